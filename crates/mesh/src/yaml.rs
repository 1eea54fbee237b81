//! Settings written as YAML, merged over others.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) => Ok(value),
        Value::Array(_) => Err(Error::NotAMap("a list")),
        _ => Err(Error::NotAMap("a single value")),
    }
}

/// How the fields of two layers come together where the upper one does not
/// simply replace the lower one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// Fields whose parts are laid on each other one by one.
    pub merged: &'a [&'a str],
    /// Fields of which only one can be set: the upper one unsets the others.
    pub exclusive: &'a [&'a [&'a str]],
}

/// Lays `over` on `base`: fields replace fields as a whole, and so do lists
/// and maps, unless a rule says otherwise. Fields that are null are not given.
///
/// Returns the result and the names of fields that do not exist.
///
/// # Errors
/// When a field has a value of the wrong kind.
pub fn overlay<T>(base: &T, over: &Value, rules: Rules<'_>) -> Result<(T, Vec<String>), Error>
where
    T: Serialize + DeserializeOwned,
{
    let mut all = serde_json::to_value(base).map_err(|error| Error::Field(error.to_string()))?;
    let mut over = over.clone();
    if let Value::Object(fields) = &mut over {
        fields.retain(|_, value| !value.is_null());
    }
    // Checked on its own first, so that an error speaks of what the user wrote.
    let mut unknown = Vec::new();
    let _: T = serde_ignored::deserialize(&over, |path| unknown.push(path.to_string()))
        .map_err(|error| Error::Field(error.to_string()))?;
    if let (Value::Object(all), Value::Object(over)) = (&mut all, &over) {
        lay(all, over, rules);
    }
    let value = serde_json::from_value(all).map_err(|error| Error::Field(error.to_string()))?;
    Ok((value, unknown))
}

fn lay(base: &mut Map<String, Value>, over: &Map<String, Value>, rules: Rules<'_>) {
    for (name, value) in over {
        let name = camel_case(name);
        for group in rules.exclusive.iter().filter(|group| group.contains(&name.as_str())) {
            base.retain(|other, _| !group.contains(&other.as_str()));
        }
        match (base.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) if rules.merged.contains(&name.as_str()) => {
                old.extend(new.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            _ => drop(base.insert(name, value.clone())),
        }
    }
}

/// The name of a field in JSON; people also write the one of the protocol
/// definition (`drain_duration`), which means the same.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        all.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        all.push_str(letters.as_str());
    }
    all
}
