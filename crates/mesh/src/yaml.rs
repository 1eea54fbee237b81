//! Settings written as YAML, merged over others.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why settings cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no YAML.
    #[error("{0}")]
    Yaml(String),
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Field(String),
    /// The text is YAML but no map of settings.
    #[error("expected settings as `name: value`, found {0}")]
    NotAMap(&'static str),
}

/// Reads YAML into a JSON value; an empty text is an empty map.
///
/// # Errors
/// When it is no YAML or no map.
pub fn parse(text: &str) -> Result<Value, Error> {
    let value: Value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_saphyr::from_str(text).map_err(|error| Error::Yaml(error.to_string()))?
    };
    match value {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        Value::Object(_) => Ok(value),
        Value::Array(_) => Err(Error::NotAMap("a list")),
        _ => Err(Error::NotAMap("a single value")),
    }
}

/// Lays `over` on `base`: fields replace fields, and so do lists; the maps of
/// strings named in `merged` are merged key by key.
///
/// Returns the result and the names of fields that do not exist.
///
/// # Errors
/// When a field has a value of the wrong kind.
pub fn overlay<T>(base: &T, over: &Value, merged: &[&str]) -> Result<(T, Vec<String>), Error>
where
    T: Serialize + DeserializeOwned,
{
    let mut all = serde_json::to_value(base).map_err(|error| Error::Field(error.to_string()))?;
    // Checked on its own first, so that an error speaks of what the user wrote.
    let mut unknown = Vec::new();
    let _: T = serde_ignored::deserialize(over, |path| unknown.push(path.to_string()))
        .map_err(|error| Error::Field(error.to_string()))?;
    merge(&mut all, over, merged, true);
    let value = serde_json::from_value(all).map_err(|error| Error::Field(error.to_string()))?;
    Ok((value, unknown))
}

fn merge(base: &mut Value, over: &Value, merged: &[&str], is_top: bool) {
    let (Value::Object(base), Value::Object(over)) = (base, over) else { return };
    for (name, value) in over {
        match base.get_mut(name) {
            Some(old @ Value::Object(_))
                if value.is_object() && is_top && merged.contains(&name.as_str()) =>
            {
                merge(old, value, merged, false);
            }
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}
