//! Whether JSON is a pod, as far as injection looks at it. What else a field
//! may be is the API server's to check.

use serde_json::Value;

/// More containers are no pod, but somebody who wants to keep us busy.
const MAX_CONTAINERS: usize = 1000;

/// What is wrong with a pod.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A field that is not what it must be.
    #[error("{path}: expected {expected}, found {found}: correct the pod")]
    Field {
        /// Which field.
        path: String,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Too many containers.
    #[error("{path}: {number} containers, more than the {MAX_CONTAINERS} that a pod may have")]
    TooMany {
        /// Which list.
        path: String,
        /// How many it has.
        number: usize,
    },
}

/// Checks a pod.
///
/// # Errors
/// The first field that is not what it must be.
pub fn check(pod: &Value) -> Result<(), Error> {
    let pod = object("pod", pod)?;
    if let Some(metadata) = optional("metadata", pod.get("metadata"), object)? {
        for field in ["name", "generateName", "namespace"] {
            optional(&format!("metadata.{field}"), metadata.get(field), string)?;
        }
        for field in ["labels", "annotations"] {
            let path = format!("metadata.{field}");
            for (key, value) in optional(&path, metadata.get(field), object)?.into_iter().flatten() {
                optional(&format!("{path}[{key}]"), Some(value), string)?;
            }
        }
        let path = "metadata.ownerReferences";
        for (index, owner) in
            optional(path, metadata.get("ownerReferences"), list)?.into_iter().flatten().enumerate()
        {
            object(&format!("{path}[{index}]"), owner)?;
        }
    }
    let Some(spec) = optional("spec", pod.get("spec"), object)? else { return Ok(()) };
    optional("spec.hostNetwork", spec.get("hostNetwork"), boolean)?;
    for field in ["containers", "initContainers"] {
        let items = items("spec", field, spec.get(field))?;
        if items.len() > MAX_CONTAINERS {
            return Err(Error::TooMany { path: format!("spec.{field}"), number: items.len() });
        }
        for (path, item) in items {
            container(&path, item)?;
        }
    }
    for field in ["volumes", "imagePullSecrets"] {
        items("spec", field, spec.get(field))?;
    }
    Ok(())
}

fn container(path: &str, container: &Value) -> Result<(), Error> {
    optional(&format!("{path}.image"), container.get("image"), string)?;
    for field in ["ports", "env", "volumeMounts"] {
        for (path, item) in items(path, field, container.get(field))? {
            if field == "ports" {
                optional(&format!("{path}.containerPort"), item.get("containerPort"), number)?;
            }
        }
    }
    let args = format!("{path}.args");
    for (index, word) in optional(&args, container.get("args"), list)?.into_iter().flatten().enumerate() {
        optional(&format!("{args}[{index}]"), Some(word), string)?;
    }
    for field in ["readinessProbe", "livenessProbe", "startupProbe", "lifecycle", "resources"] {
        let path = format!("{path}.{field}");
        for (key, inner) in optional(&path, container.get(field), object)?.into_iter().flatten() {
            if ["httpGet", "tcpSocket", "grpc", "preStop", "postStart"].contains(&key.as_str()) {
                optional(&format!("{path}.{key}"), Some(inner), object)?;
            }
        }
    }
    optional(&format!("{path}.securityContext"), container.get("securityContext"), object)?;
    Ok(())
}

/// The items of a list of objects with names.
fn items<'a>(parent: &str, field: &str, value: Option<&'a Value>) -> Result<Vec<(String, &'a Value)>, Error> {
    let path = format!("{parent}.{field}");
    let list = optional(&path, value, list)?.into_iter().flatten().enumerate();
    list.map(|(index, item)| {
        let path = format!("{path}[{index}]");
        let map = object(&path, item)?;
        optional(&format!("{path}.name"), map.get("name"), string)?;
        Ok((path, item))
    })
    .collect()
}

/// A field that may be left out or null.
fn optional<'a, T>(
    path: &str,
    value: Option<&'a Value>,
    read: impl Fn(&str, &'a Value) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    value.filter(|value| !value.is_null()).map(|value| read(path, value)).transpose()
}

fn wrong(path: &str, expected: &'static str, value: &Value) -> Error {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    };
    Error::Field { path: path.to_owned(), expected, found }
}

fn object<'a>(path: &str, value: &'a Value) -> Result<&'a serde_json::Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| wrong(path, "a map", value))
}

fn list<'a>(path: &str, value: &'a Value) -> Result<&'a Vec<Value>, Error> {
    value.as_array().ok_or_else(|| wrong(path, "a list", value))
}

fn string<'a>(path: &str, value: &'a Value) -> Result<&'a str, Error> {
    value.as_str().ok_or_else(|| wrong(path, "a string", value))
}

fn boolean(path: &str, value: &Value) -> Result<bool, Error> {
    value.as_bool().ok_or_else(|| wrong(path, "true or false", value))
}

fn number(path: &str, value: &Value) -> Result<i64, Error> {
    value.as_i64().ok_or_else(|| wrong(path, "a whole number", value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_the_field_that_is_wrong() {
        for (pod, want) in [
            (json!([]), "pod: expected a map, found a list"),
            (json!({"metadata": {"name": 5}}), "metadata.name: expected a string, found a number"),
            (json!({"metadata": {"labels": {"a": true}}}), "metadata.labels[a]: expected a string"),
            (json!({"spec": {"containers": {}}}), "spec.containers: expected a list, found a map"),
            (
                json!({"spec": {"initContainers": [{"name": "a", "args": [1]}]}}),
                "spec.initContainers[0].args[0]: expected a string",
            ),
            (json!({"spec": {"hostNetwork": "no"}}), "spec.hostNetwork: expected true or false"),
            (
                json!({"spec": {"containers": [{"livenessProbe": {"httpGet": 3}}]}}),
                "spec.containers[0].livenessProbe.httpGet: expected a map",
            ),
        ] {
            let error = check(&pod).unwrap_err().to_string();
            assert!(error.starts_with(want), "{error}");
        }
        check(&json!({"metadata": {"labels": null}, "spec": {"containers": null, "x": 1}})).unwrap();
    }
}
