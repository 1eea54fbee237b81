//! The downward API: what a pod is told of itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::mirror::{items, text};

/// Addresses of a pod and of its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// The pod's.
    pub(super) pod: Ipv4Addr,
    /// The node's.
    pub(super) node: Ipv4Addr,
}

/// A field of a pod.
pub(super) fn of(pod: &Value, network: &Network, path: &str) -> anyhow::Result<String> {
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let value = match path {
        "metadata.name" => text(&metadata["name"]).to_owned(),
        "metadata.namespace" => text(&metadata["namespace"]).to_owned(),
        "metadata.uid" => text(&metadata["uid"]).to_owned(),
        "metadata.labels" => lines(&metadata["labels"]),
        "metadata.annotations" => lines(&metadata["annotations"]),
        "spec.nodeName" => text(&spec["nodeName"]).to_owned(),
        "spec.serviceAccountName" => text(&spec["serviceAccountName"]).to_owned(),
        "status.podIP" | "status.podIPs" => network.pod.to_string(),
        "status.hostIP" | "status.hostIPs" => network.node.to_string(),
        _ => {
            let (map, key) =
                path.strip_suffix("']").and_then(|path| path.split_once("['")).context("unknown")?;
            match map {
                "metadata.labels" => text(&metadata["labels"][key]).to_owned(),
                "metadata.annotations" => text(&metadata["annotations"][key]).to_owned(),
                _ => bail!("unknown"),
            }
        }
    };
    Ok(value)
}

/// A map as a file has it: a line each, sorted, the values quoted.
fn lines(map: &Value) -> String {
    let sorted: BTreeMap<&String, &str> =
        map.as_object().into_iter().flatten().map(|(key, value)| (key, text(value))).collect();
    let lines = sorted.into_iter().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A text as Go's `%q` writes it.
fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in value.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '\t' => quoted += "\\t",
            '\u{7}' => quoted += "\\a",
            '\u{8}' => quoted += "\\b",
            '\u{b}' => quoted += "\\v",
            '\u{c}' => quoted += "\\f",
            _ if u32::from(letter) < 0x20 || u32::from(letter) == 0x7f => {
                write!(quoted, "\\x{:02x}", u32::from(letter)).ok();
            }
            _ if letter.is_control() => {
                write!(quoted, "\\u{:04x}", u32::from(letter)).ok();
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// Finds a ConfigMap or a Secret of the pod's namespace, by kind and name.
pub(super) type Find<'a> = &'a dyn Fn(&str, &str) -> Option<Arc<Value>>;

/// The variables of a container, with references to earlier ones put in.
pub(super) fn variables(
    pod: &Value,
    container: &Value,
    network: &Network,
    find: Find<'_>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for source in items(&container["envFrom"]) {
        let prefix = text(&source["prefix"]);
        for (kind, field) in [("ConfigMap", "configMapRef"), ("Secret", "secretRef")] {
            let reference = &source[field];
            if let Some(object) = referred(kind, reference, find)? {
                for key in object["data"].as_object().into_iter().flat_map(|data| data.keys()) {
                    all.insert(format!("{prefix}{key}"), content(kind, &object, key)?.unwrap_or_default());
                }
            }
        }
    }
    for variable in items(&container["env"]) {
        let name = text(&variable["name"]);
        let from = &variable["valueFrom"];
        let value = if from["fieldRef"].is_object() {
            let path = text(&from["fieldRef"]["fieldPath"]);
            of(pod, network, path).with_context(|| format!("{name}: field {path}"))?
        } else if from["resourceFieldRef"].is_object() {
            resource(container, &from["resourceFieldRef"]).with_context(|| name.to_owned())?
        } else if from.is_object() {
            let Some(value) = key(from, find).with_context(|| name.to_owned())? else { continue };
            value
        } else {
            expand(text(&variable["value"]), &all)
        };
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// The value that a variable has from a ConfigMap or a Secret; `None` when it
/// is not there and need not be.
fn key(from: &Value, find: Find<'_>) -> anyhow::Result<Option<String>> {
    for (kind, field) in [("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")] {
        let reference = &from[field];
        if !reference.is_object() {
            continue;
        }
        let Some(object) = referred(kind, reference, find)? else { return Ok(None) };
        let key = text(&reference["key"]);
        let value = content(kind, &object, key)?;
        ensure!(
            value.is_some() || reference["optional"] == true,
            "{kind} {} has no {key}",
            text(&reference["name"])
        );
        return Ok(value);
    }
    bail!("the node has no variables of this kind: {from}")
}

fn referred(kind: &str, reference: &Value, find: Find<'_>) -> anyhow::Result<Option<Arc<Value>>> {
    if !reference.is_object() {
        return Ok(None);
    }
    let name = text(&reference["name"]);
    let object = find(kind, name);
    ensure!(object.is_some() || reference["optional"] == true, "{kind} {name} is not there");
    Ok(object)
}

fn content(kind: &str, object: &Value, key: &str) -> anyhow::Result<Option<String>> {
    let Some(value) = object["data"][key].as_str() else { return Ok(None) };
    if kind == "Secret" {
        return Ok(Some(String::from_utf8(STANDARD.decode(value)?)?));
    }
    Ok(Some(value.to_owned()))
}

/// Puts variables in place of `$(NAME)`; one that is not there stays as it is.
pub(super) fn expand(value: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        result += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match variables.get(name) {
                Some(value) => result += value,
                None => write!(result, "$({name})").unwrap_or_default(),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result + rest
}

/// Amounts of the node, where a container has no limit.
const ALLOCATABLE: [(&str, &str); 2] = [("cpu", "2"), ("memory", "4Gi")];

fn resource(container: &Value, reference: &Value) -> anyhow::Result<String> {
    let path = text(&reference["resource"]);
    let (list, resource) = path.split_once('.').context("resource")?;
    let given = container["resources"][list][resource].as_str();
    let node = ALLOCATABLE.iter().find(|(name, _)| *name == resource).map(|(_, amount)| *amount);
    let amount = match (given, list) {
        (Some(given), _) => quantity(given)?,
        (None, "limits") => quantity(node.with_context(|| format!("resource {path}"))?)?,
        (None, _) => 0.0,
    };
    let divisor = match text(&reference["divisor"]) {
        "" | "0" => 1.0,
        divisor => quantity(divisor)?,
    };
    Ok(format!("{:.0}", (amount / divisor).ceil()))
}

fn quantity(text: &str) -> anyhow::Result<f64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => bail!("quantity {text:?}"),
    };
    Ok(number.parse::<f64>().with_context(|| format!("quantity {text:?}"))? * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NETWORK: Network = Network { pod: Ipv4Addr::new(10, 0, 0, 2), node: Ipv4Addr::new(10, 0, 0, 1) };

    #[test]
    fn maps_are_written_as_a_kubelet_does() {
        let pod = json!({"metadata": {"labels": {"b": "say \"x\"\n", "a": "1"}}});
        assert_eq!(of(&pod, &NETWORK, "metadata.labels").unwrap(), "a=\"1\"\nb=\"say \\\"x\\\"\\n\"");
        assert_eq!(of(&pod, &NETWORK, "metadata.labels['a']").unwrap(), "1");
    }

    #[test]
    fn variables_refer_to_earlier_ones() {
        let container = json!({
            "env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "B", "value": "$(A):$$(A):$(C)"},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
            ],
            "resources": {"limits": {"cpu": "1500m"}},
        });
        let all = variables(&json!({}), &container, &NETWORK, &|_, _| None).unwrap();
        assert_eq!(all["B"], "10.0.0.2:$(A):$(C)");
        assert_eq!((all["CPU"].as_str(), all["MEM"].as_str()), ("2", "4294967296"));
    }

    #[test]
    fn variables_are_read_from_config_maps_and_secrets() {
        let find = |kind: &str, name: &str| {
            let object = match (kind, name) {
                ("ConfigMap", "map") => json!({"data": {"A": "1", "B": "2"}}),
                ("Secret", "keys") => json!({"data": {"TOKEN": "c2VjcmV0"}}),
                _ => return None,
            };
            Some(Arc::new(object))
        };
        let of = |container: Value| variables(&json!({}), &container, &NETWORK, &find);
        let all = of(json!({
            "envFrom": [
                {"configMapRef": {"name": "map"}},
                {"prefix": "MY_", "secretRef": {"name": "keys"}},
                {"configMapRef": {"name": "nowhere", "optional": true}},
            ],
            "env": [
                {"name": "B", "value": "$(A)$(MY_TOKEN)"},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "A"}}},
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "TOKEN"}}},
                {"name": "E", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "none", "optional": true}}},
            ],
        }))
        .unwrap();
        let wanted = [("A", "1"), ("B", "1secret"), ("C", "1"), ("D", "secret"), ("MY_TOKEN", "secret")];
        assert_eq!(all, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        for container in [
            json!({"envFrom": [{"secretRef": {"name": "nowhere"}}]}),
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "none"}}}]}),
        ] {
            assert!(of(container.clone()).is_err(), "{container}");
        }
    }
}
