//! Differences between JSON values, and the list of those that are intended.

use serde::Deserialize;
use serde_json::Value;

/// A difference that is intended, for a whole class of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Path below the resource, `*` for any name or index, `name=NAME` for the item of a list
    /// that has this name.
    pub path: String,
    /// Why ours is right.
    pub reason: String,
}

/// Where two values differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path.
    pub path: String,
    /// What stands there.
    pub ours: String,
    /// What was recorded.
    pub theirs: String,
}

/// The first difference of two values; lists at a path that `is_unordered`
/// accepts are compared as sets.
#[must_use]
pub fn first(ours: &Value, theirs: &Value, is_unordered: &dyn Fn(&str) -> bool) -> Option<Difference> {
    walk("", ours, theirs, is_unordered)
}

fn short(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".into(), ToString::to_string);
    if text.len() > 300 { format!("{}…", text.chars().take(300).collect::<String>()) } else { text }
}

fn walk(path: &str, ours: &Value, theirs: &Value, is_unordered: &dyn Fn(&str) -> bool) -> Option<Difference> {
    let differ = |ours: Option<&Value>, theirs: Option<&Value>, path: String| {
        Some(Difference { path, ours: short(ours), theirs: short(theirs) })
    };
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let path = format!("{path}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(x), Some(y)) => walk(&path, x, y, is_unordered),
                    (x, y) => differ(x, y, path),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return differ(
                    Some(ours),
                    Some(theirs),
                    format!("{path} (length {} / {})", a.len(), b.len()),
                );
            }
            if is_unordered(path) {
                let mut rest: Vec<&Value> = b.iter().collect();
                return a.iter().enumerate().find_map(|(index, x)| {
                    let same = rest.iter().position(|y| walk("", x, y, is_unordered).is_none());
                    match same {
                        Some(at) => {
                            rest.remove(at);
                            None
                        }
                        // Near enough to show where it differs.
                        None => walk(&format!("{path}/{index}"), x, rest.first()?, is_unordered),
                    }
                });
            }
            a.iter()
                .zip(b)
                .enumerate()
                .find_map(|(i, (x, y))| walk(&format!("{path}/{i}"), x, y, is_unordered))
        }
        (x, y) if x == y => None,
        (x, y) => differ(Some(x), Some(y), path.to_owned()),
    }
}

/// In a path, the item of a list that has that name.
const NAME: &str = "name=";

/// Removes what a rule's path points at.
pub fn remove(value: &mut Value, path: &str) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    remove_parts(value, &parts);
}

fn remove_parts(value: &mut Value, parts: &[&str]) {
    let Some((first, rest)) = parts.split_first() else { return };
    match value {
        Value::Object(map) if rest.is_empty() => {
            if *first == "*" {
                map.clear();
            } else {
                map.remove(*first);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if *first == "*" || key == first {
                    remove_parts(inner, rest);
                }
            }
        }
        Value::Array(list) if rest.is_empty() && first.starts_with(NAME) => {
            list.retain(|inner| inner["name"] != first[NAME.len()..]);
        }
        Value::Array(list) => {
            for (index, inner) in list.iter_mut().enumerate() {
                if *first == "*" || *first == index.to_string() {
                    remove_parts(inner, rest);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finds_the_first_difference() {
        let ours = json!({"a": [1, {"b": 2}], "c": 3});
        let found = first(&ours, &json!({"a": [1, {"b": 4}], "c": 3}), &|_| false).unwrap();
        assert_eq!((found.path.as_str(), found.ours.as_str(), found.theirs.as_str()), ("/a/1/b", "2", "4"));
        assert!(first(&json!([1, 2]), &json!([2, 1]), &|_| true).is_none());
        assert!(first(&json!([1, 2]), &json!([2, 1]), &|_| false).is_some());
        assert!(first(&json!([1, 1]), &json!([1, 2]), &|_| true).is_some());
    }

    #[test]
    fn removes_by_path() {
        let mut value = json!({"a": [{"b": 1, "c": 2}, {"b": 3}]});
        remove(&mut value, "/a/*/b");
        assert_eq!(value, json!({"a": [{"c": 2}, {}]}));
        let mut named = json!({"a": [{"name": "x"}, {"name": "y"}]});
        remove(&mut named, "/a/name=x");
        assert_eq!(named, json!({"a": [{"name": "y"}]}));
    }
}
