//! The definitions of Istio's kinds for an API server
//! (`CustomResourceDefinition`), made from the table of kinds and the messages.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use config::Kind;
use prost_reflect::{FieldDescriptor, Kind as FieldKind, MessageDescriptor, OneofDescriptor};
use serde_json::{Map, Value, json};

/// Where they lie in the tree: a file of the chart that installs them.
pub const FILE: &str = "deploy/helm/crds/files/crds.yaml";

/// What `kubectl get` shows: name of the column, where the value is, what it is.
type Column = (&'static str, &'static str, &'static str);

/// What a field's value is limited to: its full name, the word of the schema, the value.
type Limit = (&'static str, &'static str, u64);

const LIMITS: &[Limit] = &[
    ("istio.extensions.v1alpha1.WasmPlugin.plugin_name", "minLength", 1),
    ("istio.extensions.v1alpha1.WasmPlugin.plugin_name", "maxLength", 256),
    ("istio.extensions.v1alpha1.WasmPlugin.image_pull_secret", "minLength", 1),
    ("istio.extensions.v1alpha1.WasmPlugin.image_pull_secret", "maxLength", 253),
    ("istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.port_number", "minimum", 1),
    ("istio.networking.v1alpha3.EnvoyFilter.WaypointMatch.port_number", "maximum", 65535),
];

/// What must be so of a message: its full name, an expression (CEL), what is said.
const RULES: &[(&str, &str, &str)] = &[(
    "istio.networking.v1alpha3.EnvoyFilter.EnvoyConfigObjectMatch",
    "has(self.waypoint) == (has(self.context) && self.context == 'WAYPOINT')",
    "waypoint goes with the context WAYPOINT, and with no other",
)];

const HEADER: &str = "# Made by `harness crds` from the table of kinds and the messages: change those.\n";
/// Messages inside each other that are written out; deeper ones are left open.
const DEPTH: usize = 24;

/// All definitions.
///
/// # Errors
/// When a kind has no message.
pub fn definitions() -> anyhow::Result<Vec<Value>> {
    let mut kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.is_istio()).collect();
    kinds.sort_by_key(|kind| (kind.group(), kind.plural()));
    kinds.into_iter().map(definition).collect()
}

/// The text of [`FILE`].
///
/// # Errors
/// As [`definitions`].
pub fn text() -> anyhow::Result<String> {
    let mut text = HEADER.to_owned();
    for definition in definitions()? {
        text.push_str("---\n");
        text.push_str(serde_saphyr::to_string(&definition)?.trim_end());
        text.push('\n');
    }
    Ok(text)
}

/// Writes [`FILE`] below the folder; or only says whether it is as it would be written.
///
/// # Errors
/// When it cannot be written, or is not as it should be.
pub fn write(tree: &Path, only_check: bool) -> anyhow::Result<()> {
    let (path, text) = (tree.join(FILE), text()?);
    if only_check {
        let is_current = fs::read_to_string(&path).is_ok_and(|found| found == text);
        ensure!(
            is_current,
            "{FILE} is not what the kinds say: run cargo run -p istio-tests --bin harness crds"
        );
        return Ok(());
    }
    fs::create_dir_all(path.parent().context("folder")?)?;
    fs::write(&path, text).with_context(|| path.display().to_string())
}

fn definition(kind: Kind) -> anyhow::Result<Value> {
    let message = message(kind).with_context(|| format!("{kind} has no message"))?;
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": object(&message, DEPTH),
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    let stored = stored(kind);
    let columns: Vec<Value> = columns(kind)
        .iter()
        .map(|(name, path, what)| {
            let form = if *name == "Age" { "date" } else { "string" };
            json!({"name": name, "jsonPath": path, "type": form, "description": what})
        })
        .collect();
    let versions: Vec<Value> = versions(kind)
        .map(|version| {
            let mut version = json!({
                "name": version,
                "served": true,
                "storage": version == stored,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            });
            if !columns.is_empty() {
                version["additionalPrinterColumns"] = columns.clone().into();
            }
            version
        })
        .collect();
    let singular = kind.as_str().to_ascii_lowercase();
    let area = kind.group().trim_end_matches(".istio.io");
    let mut names = json!({
        "kind": kind.as_str(),
        "listKind": format!("{kind}List"),
        "plural": kind.plural(),
        "singular": singular,
        "categories": ["istio-io", format!("{area}-istio-io")],
    });
    if let Some(short) = short_name(kind) {
        names["shortNames"] = json!([short]);
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", kind.plural(), kind.group()),
            "labels": {"app": "istio-pilot", "app.kubernetes.io/part-of": "istio"},
            // Objects of users go with their definition: uninstalling must not take it.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": kind.group(),
            "names": names,
            "scope": if kind.is_namespaced() { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    }))
}

/// Versions that are served; the table of kinds reads one more.
fn versions(kind: Kind) -> impl Iterator<Item = &'static str> {
    kind.versions().iter().copied().filter(move |version| kind != Kind::ProxyConfig || *version == "v1beta1")
}

/// The version in which an API server of Istio's keeps the objects: it cannot
/// be another one in a cluster that has some.
fn stored(kind: Kind) -> &'static str {
    match kind {
        Kind::Telemetry => "v1alpha1",
        Kind::ProxyConfig => "v1beta1",
        _ => kind.versions().first().copied().unwrap_or_default(),
    }
}

fn short_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::VirtualService => "vs",
        Kind::DestinationRule => "dr",
        Kind::Gateway => "gw",
        Kind::ServiceEntry => "se",
        Kind::WorkloadEntry => "we",
        Kind::WorkloadGroup => "wg",
        Kind::AuthorizationPolicy => "ap",
        Kind::PeerAuthentication => "pa",
        Kind::RequestAuthentication => "ra",
        Kind::Telemetry => "telemetry",
        _ => return None,
    })
}

fn columns(kind: Kind) -> &'static [Column] {
    const AGE: Column = ("Age", ".metadata.creationTimestamp", "When it was made");
    match kind {
        Kind::VirtualService => &[
            ("Gateways", ".spec.gateways", "Where it applies"),
            ("Hosts", ".spec.hosts", "Whose traffic it routes"),
            AGE,
        ],
        Kind::DestinationRule => &[("Host", ".spec.host", "Whose clients it is for"), AGE],
        Kind::ServiceEntry => &[
            ("Hosts", ".spec.hosts", "Hosts that it adds"),
            ("Location", ".spec.location", "Inside the mesh or outside"),
            ("Resolution", ".spec.resolution", "How addresses of endpoints are found"),
            AGE,
        ],
        Kind::WorkloadEntry => &[AGE, ("Address", ".spec.address", "Where the workload is")],
        Kind::AuthorizationPolicy => &[("Action", ".spec.action", "What happens to requests that fit"), AGE],
        Kind::PeerAuthentication => &[("Mode", ".spec.mtls.mode", "Whether mutual TLS must be"), AGE],
        Kind::WorkloadGroup | Kind::Telemetry | Kind::WasmPlugin | Kind::TrafficExtension => &[AGE],
        _ => &[],
    }
}

fn message(kind: Kind) -> Option<MessageDescriptor> {
    let area = kind.group().trim_end_matches(".istio.io");
    let package = format!("istio.{area}.");
    proto::reflect::pool().all_messages().find(|message| {
        message.name() == kind.as_str()
            && message.parent_message().is_none()
            && message.package_name().starts_with(&package)
    })
}

fn object(message: &MessageDescriptor, depth: usize) -> Value {
    if let Some(known) = well_known(message.full_name()) {
        return known;
    }
    let Some(depth) = depth.checked_sub(1) else { return open() };
    let properties: Map<String, Value> =
        message.fields().map(|field| (field.json_name().to_owned(), self::field(&field, depth))).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    let choices: Vec<Value> =
        message.oneofs().filter(|choice| !choice.is_synthetic()).map(|c| one_of(&c)).collect();
    match choices.as_slice() {
        [] => {}
        [choice] => schema["oneOf"] = choice.clone(),
        several => schema["allOf"] = several.iter().map(|choice| json!({"oneOf": choice})).collect(),
    }
    let rules = RULES.iter().filter(|(name, ..)| *name == message.full_name());
    let rules: Vec<Value> = rules.map(|(_, rule, says)| json!({"rule": rule, "message": says})).collect();
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = rules.into();
    }
    schema
}

/// At most one of the fields is there.
fn one_of(choice: &OneofDescriptor) -> Value {
    let each: Vec<Value> = choice.fields().map(|field| json!({"required": [field.json_name()]})).collect();
    let none = json!({"not": {"anyOf": each}});
    std::iter::once(none).chain(each).collect()
}

fn field(field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        let FieldKind::Message(entry) = field.kind() else { return open() };
        let value = entry.map_entry_value_field();
        return json!({"type": "object", "additionalProperties": single(&value, depth)});
    }
    let mut one = single(field, depth);
    let limits = LIMITS.iter().filter(|(name, ..)| *name == field.full_name());
    for (_, limit, value) in limits {
        one[*limit] = (*value).into();
    }
    if field.is_list() { json!({"type": "array", "items": one}) } else { one }
}

fn single(field: &FieldDescriptor, depth: usize) -> Value {
    match field.kind() {
        FieldKind::Message(message) => object(&message, depth),
        FieldKind::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            json!({"type": "string", "enum": names})
        }
        FieldKind::Bool => json!({"type": "boolean"}),
        FieldKind::Double | FieldKind::Float => json!({"type": "number"}),
        FieldKind::Bytes => json!({"type": "string", "format": "byte"}),
        FieldKind::String => json!({"type": "string"}),
        FieldKind::Uint32 | FieldKind::Fixed32 => unsigned(),
        FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => {
            json!({"type": "integer", "format": "int32"})
        }
        // JSON of proto may write them as strings.
        _ => json!({"x-kubernetes-int-or-string": true}),
    }
}

fn unsigned() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": u32::MAX})
}

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Messages that have a JSON form of their own.
fn well_known(name: &str) -> Option<Value> {
    let mut schema = match name.strip_prefix("google.protobuf.")? {
        "Duration" => return Some(json!({"type": "string"})),
        "Timestamp" => return Some(json!({"type": "string", "format": "date-time"})),
        "Struct" | "Any" => return Some(open()),
        "Value" => return Some(json!({"x-kubernetes-preserve-unknown-fields": true})),
        "ListValue" => {
            return Some(json!({"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": true}}));
        }
        "BoolValue" => json!({"type": "boolean"}),
        "StringValue" => json!({"type": "string"}),
        "BytesValue" => json!({"type": "string", "format": "byte"}),
        "DoubleValue" | "FloatValue" => json!({"type": "number"}),
        "UInt32Value" => unsigned(),
        "Int32Value" => json!({"type": "integer", "format": "int32"}),
        "Int64Value" | "UInt64Value" => json!({"x-kubernetes-int-or-string": true}),
        _ => return None,
    };
    schema["nullable"] = true.into();
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_defined_with_the_fields_of_its_message() {
        let all = definitions().unwrap();
        assert_eq!(all.len(), Kind::ALL.iter().filter(|kind| kind.is_istio()).count());
        let service = all.iter().find(|one| one["spec"]["names"]["kind"] == "VirtualService").unwrap();
        assert_eq!(service["metadata"]["name"], "virtualservices.networking.istio.io");
        let version = &service["spec"]["versions"][0];
        assert_eq!((&version["name"], &version["storage"]), (&json!("v1"), &json!(true)));
        let http = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["http"]["items"];
        assert_eq!(http["properties"]["timeout"], json!({"type": "string"}));
        let uri = &http["properties"]["match"]["items"]["properties"]["uri"];
        assert_eq!(uri["oneOf"][1], json!({"required": ["exact"]}));
        for definition in &all {
            let versions = definition["spec"]["versions"].as_array().unwrap();
            assert_eq!(versions.iter().filter(|version| version["storage"] == true).count(), 1);
        }
    }

    #[test]
    fn the_file_in_the_tree_is_current() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        write(tree, true).unwrap();
    }
}
