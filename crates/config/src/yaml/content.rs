//! Reads a part of an object into its type, and says where that fails.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::oneof;

/// Why the content of an object cannot be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    pub(crate) field: String,
    pub(crate) message: String,
}

/// Reads one field of an object; a missing field is an empty one. Fields that
/// the type does not have are told to `unknown`.
pub(crate) fn field<T: DeserializeOwned>(
    object: &Value,
    name: &str,
    unknown: &mut Vec<String>,
) -> Result<T, ReadError> {
    let empty = Value::Object(serde_json::Map::new());
    read(object.get(name).unwrap_or(&empty), name, unknown)
}

/// Reads the object as a whole.
pub(crate) fn whole<T: DeserializeOwned>(object: &Value, unknown: &mut Vec<String>) -> Result<T, ReadError> {
    read(object, "", unknown)
}

fn read<T: DeserializeOwned>(content: &Value, name: &str, unknown: &mut Vec<String>) -> Result<T, ReadError> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(content, &mut track);
    let told =
        |path: serde_ignored::Path<'_>| unknown.push(join(name, bracketed(&path).trim_start_matches('.')));
    let result = serde_ignored::deserialize(tracked, told);
    result.map_err(|error: serde_json::Error| {
        let path = track.path().to_string();
        ReadError { message: explain(content, &path, &error.to_string()), field: join(name, &path) }
    })
}

/// Adds the value, where the reason does not have it.
fn explain(content: &Value, path: &str, why: &str) -> String {
    let pointer: String = path
        .split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .fold(String::new(), |pointer, part| pointer + "/" + &part.replace('~', "~0").replace('/', "~1"));
    if let Some(field) = why.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next())
        && let Some(Value::Object(map)) = content.pointer(&pointer)
        && let Some(reason) = oneof::explain(field, map)
    {
        return reason;
    }
    let mut why = why
        .replace("invalid digit found in string", "expected a whole number")
        .replace("expected expected", "expected")
        .replace("expected u16", "expected a number from 0 to 65535");
    // The name of a type of ours is of no use to anybody.
    if let Some(at) = why.find("expected struct ") {
        why.replace_range(at.., "expected a map of fields");
    }
    match content.pointer(&pointer) {
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)))
            if !why.contains(value.to_string().trim_matches('"')) =>
        {
            format!("{value}: {why}")
        }
        _ => why,
    }
}

/// `http.0.timeout` as people write it: `.http[0].timeout`.
fn bracketed(path: &serde_ignored::Path<'_>) -> String {
    let parts = path.to_string();
    let part = |part: &str| match part.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        // An optional field adds a question mark of its own.
        Err(_) if part == "?" => String::new(),
        Err(_) => format!(".{part}"),
    };
    parts.split('.').map(part).collect()
}

fn join(name: &str, path: &str) -> String {
    match (name, path) {
        (_, "." | "") => name.to_owned(),
        ("", path) => path.to_owned(),
        (name, path) => format!("{name}.{path}"),
    }
}
