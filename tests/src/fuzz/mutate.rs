//! Changes to recorded meshes, chosen by bytes: the same bytes make the same mesh.

use serde_json::{Value, json};

use super::world::{World, worlds};

/// Values that sit at the edges of what fields allow.
const WORDS: &[&str] = &[
    "",
    "*",
    "*.com",
    "*.",
    ".",
    "~",
    "./*",
    "*/*",
    "a/b/c",
    "mesh",
    "-",
    "a..b",
    "A b",
    "10.0.0.1",
    "10.0.0.0/8",
    "10.0.0.1/99",
    "::1",
    "999.1.1.1",
    "unix:///tmp/x",
    "0s",
    "-1s",
    "1h30m",
    "315576000001s",
    "(",
    "a{1001}",
    "[[:alpha:]",
    "%",
    "%REQ(:path)%",
    "{*}",
    "{**}/a",
    "spiffe://a/b",
    "STRICT",
    "\u{0}",
    "\u{fffd}\u{10ffff}",
    "reviews.default.svc.cluster.local",
];

/// Choices from bytes; zeros when they are used up.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Over some bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes are used.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// A number below `bound`, or 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let mut number = 0;
        for _ in 0..2 {
            let Some((first, rest)) = self.0.split_first() else { break };
            number = number << 8 | usize::from(*first);
            self.0 = rest;
        }
        number % bound.max(1)
    }
}

/// A recorded mesh with some changes.
#[must_use]
pub fn world(bytes: &[u8]) -> World {
    let mut choices = Choices::new(bytes);
    let all = worlds();
    let mut world = all[choices.below(all.len())].clone();
    change_objects(&mut world, choices);
    world
}

/// Changes objects of a mesh until the choices are used up.
pub fn change_objects(world: &mut World, mut choices: Choices<'_>) {
    let all = worlds();
    while !choices.is_empty() && !world.objects.is_empty() {
        let count = world.objects.len();
        match choices.below(12) {
            0 => {
                // Objects of another mesh beside ours.
                let other = &all[choices.below(all.len())].objects;
                world.objects.extend(other.get(choices.below(other.len())).cloned());
            }
            1 => {
                world.objects.remove(choices.below(count));
            }
            _ => {
                let mut index = choices.below(count);
                // What users write is where the rules are.
                let is_istio = |object: &Value| {
                    object["apiVersion"].as_str().is_some_and(|version| version.contains("istio.io"))
                };
                let istio: Vec<usize> = (0..count).filter(|index| is_istio(&world.objects[*index])).collect();
                if !istio.is_empty() && choices.below(4) > 0 {
                    index = istio[index % istio.len()];
                }
                let object = &mut world.objects[index];
                for part in ["spec", "endpoints", "ports", "data", "metadata"] {
                    if let Some(part) = object.get_mut(part) {
                        change(part, &mut choices);
                        break;
                    }
                }
            }
        }
    }
}

/// Changes one value somewhere inside.
fn change(value: &mut Value, choices: &mut Choices<'_>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(choices.below(map.len())).cloned().unwrap_or_default();
            match choices.below(8) {
                0 => {
                    map.remove(&key);
                }
                1 => {
                    map.insert(key, json!({}));
                }
                2 => {
                    let content = map.remove(&key).unwrap_or_default();
                    map.insert(WORDS[choices.below(WORDS.len())].to_owned(), content);
                }
                _ => {
                    if let Some(inner) = map.get_mut(&key) {
                        change(inner, choices);
                    }
                }
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let index = choices.below(list.len());
            match choices.below(8) {
                0 => {
                    list.remove(index);
                }
                1 => list.push(list[index].clone()),
                2 => list.swap(0, index),
                3 => list.clear(),
                _ => change(&mut list[index], choices),
            }
        }
        Value::Number(_) => {
            let numbers = [0i64, 1, -1, 2, 80, 100, 101, 65_535, 65_536, 2_147_483_648, 4_294_967_296];
            *value = json!(numbers[choices.below(numbers.len())]);
        }
        Value::Bool(set) => *set = !*set,
        other => *other = json!(WORDS[choices.below(WORDS.len())]),
    }
}
