//! Objects of Kubernetes: whose contents are in the report, and of which only what
//! they are called.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::{DEEPEST, REMOVED, Redactor, hide, pattern};

/// Annotations that hold a whole object once more.
const COPIES: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/last-applied-configuration",
    "kapp.k14s.io/original",
    "objectset.rio.cattle.io/applied",
];
/// Fields with the contents of Secrets and ConfigMaps.
const DATA: [&str; 3] = ["data", "stringData", "binaryData"];
/// Types of Secrets begin so.
const TYPES: [&str; 5] = ["kubernetes.io/", "Opaque", "helm.sh/", "bootstrap.kubernetes.io/", "istio.io/"];
/// ConfigMaps of Istio that are in any namespace.
const ROOTS: [&str; 2] = ["istio-ca-root-cert", "istio-ca-crl"];

/// A Secret, a ConfigMap, a copy of one, or a JSON web key, in a text that cannot be read.
static KIND: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\bkind\\?["']?\s*:\s*(?:[|>][+-]?\s+)?\\?["']?(?:Secret|ConfigMap)(?:List)?\b|\b(?:stringData|binaryData)\\?["']?\s*:|\\?["']data\\?["']\s*:\s*\{|\bkty\b"#,
    )
});

/// Whether a text that cannot be read is about what must not be.
pub(super) fn is_about_secrets(text: &str) -> bool {
    KIND.is_match(text)
}

fn kind(fields: &Map<String, Value>) -> &str {
    fields.get("kind").and_then(Value::as_str).map(str::trim).unwrap_or_default()
}

fn has_data(fields: &Map<String, Value>) -> bool {
    DATA.iter().any(|part| fields.contains_key(*part))
}

/// Whether an object is a Secret; what only names one is none.
pub(super) fn is_secret(fields: &Map<String, Value>) -> bool {
    let is_typed = || {
        let said = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        TYPES.iter().any(|begin| said.starts_with(begin))
    };
    has_data(fields)
        && (kind(fields).eq_ignore_ascii_case("Secret") || fields.contains_key("stringData") || is_typed())
}

pub(super) fn is_config_map(fields: &Map<String, Value>) -> bool {
    has_data(fields) && (kind(fields).eq_ignore_ascii_case("ConfigMap") || fields.contains_key("binaryData"))
}

impl Redactor {
    /// What every object of Kubernetes may have.
    pub(super) fn kubernetes(&self, fields: &mut Map<String, Value>, field: &str) {
        for name in COPIES {
            fields.remove(name);
        }
        if field == "annotations" {
            fields.iter_mut().filter(|(_, value)| is_copy(value)).for_each(|(_, value)| hide(value));
        }
        // Items of the API server's own kinds leave their kind to the list.
        let kind = kind(fields).strip_suffix("List").unwrap_or_default().to_owned();
        if kind.is_empty() {
            return;
        }
        for item in fields.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(item) = item.as_object_mut() {
                item.entry("kind").or_insert_with(|| kind.as_str().into());
            }
        }
    }

    /// A Secret: what it is called, and what it has.
    pub(super) fn secret_object(&self, fields: &mut Map<String, Value>, depth: usize) {
        for (name, value) in fields {
            match name.as_str() {
                "kind" | "apiVersion" | "type" => self.open(value, name, depth),
                "metadata" => {
                    for (_, value) in entries(value, "annotations") {
                        *value = REMOVED.into();
                    }
                    self.open(value, name, depth);
                }
                part if DATA.contains(&part) => match value {
                    Value::Object(parts) => {
                        self.rename(parts, depth);
                        parts.iter_mut().for_each(|(_, value)| *value = REMOVED.into());
                    }
                    Value::Null => {}
                    other => *other = REMOVED.into(),
                },
                _ => hide(value),
            }
        }
    }

    /// A ConfigMap: the contents are those of anybody, but for Istio's own.
    pub(super) fn config_map(&self, fields: &mut Map<String, Value>, depth: usize) {
        let is_own = self.is_own(fields) && depth < DEEPEST;
        for (name, value) in fields {
            match name.as_str() {
                "data" | "binaryData" | "stringData" => match value {
                    Value::Object(parts) => {
                        self.rename(parts, depth);
                        for (part, value) in parts {
                            if !is_own || name != "data" || super::names::is_secret(part) {
                                let size = value.as_str().map_or(0, str::len);
                                *value = format!("{REMOVED}: {size} bytes").into();
                            } else {
                                self.open(value, part, depth);
                            }
                        }
                    }
                    Value::Null => {}
                    other => *other = REMOVED.into(),
                },
                _ => self.open(value, name, depth),
            }
        }
    }

    /// Whether a ConfigMap is one of Istio's: settings of the control plane, or roots.
    fn is_own(&self, fields: &Map<String, Value>) -> bool {
        let metadata = fields.get("metadata");
        let text =
            |field: &str| metadata.and_then(|all| all.get(field)).and_then(Value::as_str).unwrap_or_default();
        let (name, namespace) = (text("name"), text("namespace"));
        let is_release =
            metadata.and_then(|all| all.pointer("/labels/owner")).is_some_and(|owner| owner == "helm");
        let is_settings =
            name == "istio" || name.starts_with("istio-") || name == "values" || name.starts_with("values-");
        let is_inside = self.istio.as_deref() == Some(namespace) && is_settings;
        !is_release && (is_inside || ROOTS.contains(&name))
    }
}

/// Whether the value of an annotation is an object with contents, or packed.
fn is_copy(value: &Value) -> bool {
    let Value::String(said) = value else { return false };
    let said = said.trim();
    if super::encoded::is_packed(said) {
        return true;
    }
    let object = said.starts_with('{').then(|| serde_json::from_str::<Map<String, Value>>(said));
    match object {
        Some(Ok(fields)) => has_data(&fields),
        _ => is_about_secrets(said),
    }
}

fn entries<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = (&'a String, &'a mut Value)> {
    value.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|map| map.iter_mut())
}
