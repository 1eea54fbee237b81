//! The difference of two JSON values as a JSON patch (RFC 6902).

use serde_json::{Value, json};

/// Operations that make `from` into `to`.
#[must_use]
pub fn between(from: &Value, to: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk("", from, to, &mut operations);
    operations
}

fn walk(path: &str, from: &Value, to: &Value, operations: &mut Vec<Value>) {
    match (from, to) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let path = format!("{path}/{}", escape(key));
                match new.get(key) {
                    Some(other) => walk(&path, value, other, operations),
                    None => operations.push(json!({"op": "remove", "path": path})),
                }
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                let path = format!("{path}/{}", escape(key));
                operations.push(json!({"op": "add", "path": path, "value": value}));
            }
        }
        (Value::Array(old), Value::Array(new)) => lists(path, old, new, operations),
        (old, new) if old == new => {}
        (_, new) => operations.push(json!({"op": "replace", "path": path, "value": new})),
    }
}

fn lists(path: &str, old: &[Value], new: &[Value], operations: &mut Vec<Value>) {
    let begin = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[begin..], &new[begin..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    let is_same = |a: &Value, b: &Value| a.get("name").is_some() && a.get("name") == b.get("name");
    if old.len() == new.len() && old.iter().zip(new).all(|(a, b)| is_same(a, b)) {
        for (index, (a, b)) in old.iter().zip(new).enumerate() {
            walk(&format!("{path}/{}", begin + index), a, b, operations);
        }
        return;
    }
    for index in (0..old.len()).rev() {
        operations.push(json!({"op": "remove", "path": format!("{path}/{}", begin + index)}));
    }
    for (index, value) in new.iter().enumerate() {
        operations.push(json!({"op": "add", "path": format!("{path}/{}", begin + index), "value": value}));
    }
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
#[error("{op} {path}: {why}")]
pub struct Error {
    op: String,
    path: String,
    why: &'static str,
}

/// Applies operations of the kinds that [`between`] makes, as the API server does.
///
/// # Errors
/// When an operation points at nothing.
pub fn apply(value: &mut Value, operations: &[Value]) -> Result<(), Error> {
    for operation in operations {
        let get = |field: &str| operation[field].as_str().unwrap_or_default();
        one(value, get("op"), get("path"), &operation["value"]).map_err(|why| Error {
            op: get("op").into(),
            path: get("path").into(),
            why,
        })?;
    }
    Ok(())
}

fn one(root: &mut Value, op: &str, path: &str, value: &Value) -> Result<(), &'static str> {
    let Some((parent, key)) = path.rsplit_once('/') else {
        *root = value.clone();
        return Ok(());
    };
    let key = key.replace("~1", "/").replace("~0", "~");
    let parent = root.pointer_mut(parent).ok_or("there is no such place")?;
    match (parent, op) {
        (Value::Object(map), "add") => drop(map.insert(key, value.clone())),
        (Value::Object(map), "replace") => {
            *map.get_mut(&key).ok_or("there is no such field")? = value.clone();
        }
        (Value::Object(map), "remove") => drop(map.remove(&key).ok_or("there is no such field")?),
        (Value::Array(list), op) => {
            let index: usize = key.parse().map_err(|_| "not an index")?;
            match op {
                "add" if index <= list.len() => list.insert(index, value.clone()),
                "replace" if index < list.len() => list[index] = value.clone(),
                "remove" if index < list.len() => drop(list.remove(index)),
                _ => return Err("no such item or operation"),
            }
        }
        _ => return Err("no such operation"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..5i64).prop_map(Value::from),
            "[a-c/~]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{1,2}|name", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_patch_makes_the_one_into_the_other(from in any_json(), to in any_json()) {
            let operations = between(&from, &to);
            let mut value = from.clone();
            apply(&mut value, &operations).unwrap();
            prop_assert_eq!(&value, &to);
            prop_assert!(from != to || operations.is_empty());
        }
    }
}
