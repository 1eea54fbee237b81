//! What two proxies tell each other about their workloads, and how it is written.
//!
//! On the wire it is base64 of a protobuf `Struct` with the names of node metadata, its
//! maps sorted by key: byte for byte what Istio's own proxies send. The rule is
//! `extensions/common/metadata_object.cc` of Istio's proxy.
//!
//! Between two of this module there is a short form, which is also what istiod writes at
//! endpoints: values that `;` parts, `name;namespace;canonical name;canonical
//! revision;cluster` and, not in Istio, `;app;version` and `;kind;instance`. No base64 has
//! a `;`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as ENCODER};
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::node::Node;

/// Longest header that is read, in bytes. Envoy refuses more than 60 KiB of headers anyhow.
pub const LONGEST: usize = 16 * 1024;

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// Where an owner's text begins.
const OWNER: &str = "kubernetes://apis/apps/v1/namespaces/";

/// Padding may be there or not, as with the original.
const DECODER: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A workload, as far as its peer knows it. What is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of Istio's labels")]
pub struct Workload {
    pub instance: String,
    pub namespace: String,
    pub name: String,
    pub cluster: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    pub app: String,
    pub version: String,
    /// `deployment`, `job`, `cronjob` or `pod`.
    pub kind: String,
}

impl Workload {
    /// Of whom nothing is known.
    pub const NONE: &'static Self = &Self {
        instance: String::new(),
        namespace: String::new(),
        name: String::new(),
        cluster: String::new(),
        canonical_name: String::new(),
        canonical_revision: String::new(),
        app: String::new(),
        version: String::new(),
        kind: String::new(),
    };

    /// Says of all labels that nobody knows them.
    pub fn all_unknown(&mut self) {
        let Self { namespace, name, cluster, canonical_name, canonical_revision, app, version, .. } = self;
        for text in [namespace, name, cluster, canonical_name, canonical_revision, app, version] {
            "unknown".clone_into(text);
        }
    }

    /// Of this proxy.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        Self {
            instance: node.name.clone(),
            namespace: node.namespace.clone(),
            name: node.workload_name.clone(),
            cluster: node.cluster_id.clone(),
            canonical_name: node.label(CANONICAL_NAME).to_owned(),
            canonical_revision: node.label(CANONICAL_REVISION).to_owned(),
            app: node.label("app").to_owned(),
            version: node.label("version").to_owned(),
            kind: kind(&node.owner, &node.workload_name).to_owned(),
        }
    }

    /// Reads a header. None where it is none of this kind, or too long.
    #[must_use]
    pub fn decode(header: &[u8]) -> Option<Self> {
        if header.is_empty() || header.len() > LONGEST {
            return None;
        }
        if header.contains(&b';') {
            return Self::of_endpoint(std::str::from_utf8(header).ok()?);
        }
        let bytes = DECODER.decode(header).ok()?;
        let fields = Struct::decode(bytes.as_slice()).ok()?.fields;
        let labels = match fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(labels)) => Some(&labels.fields),
            _ => None,
        };
        let label = |name| labels.map_or_else(String::new, |labels| text(labels, name));
        let name = text(&fields, "WORKLOAD_NAME");
        Some(Self {
            instance: text(&fields, "NAME"),
            namespace: text(&fields, "NAMESPACE"),
            kind: kind(&text(&fields, "OWNER"), &name).to_owned(),
            name,
            cluster: text(&fields, "CLUSTER_ID"),
            canonical_name: label(CANONICAL_NAME),
            canonical_revision: label(CANONICAL_REVISION),
            app: label("app"),
            version: label("version"),
        })
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut labels = BTreeMap::new();
        put(&mut labels, CANONICAL_NAME, &self.canonical_name);
        put(&mut labels, CANONICAL_REVISION, &self.canonical_revision);
        put(&mut labels, "app", &self.app);
        put(&mut labels, "version", &self.version);
        let mut fields = BTreeMap::new();
        put(&mut fields, "NAME", &self.instance);
        put(&mut fields, "NAMESPACE", &self.namespace);
        put(&mut fields, "WORKLOAD_NAME", &self.name);
        put(&mut fields, "CLUSTER_ID", &self.cluster);
        if !self.kind.is_empty() {
            put(&mut fields, "OWNER", &format!("{OWNER}{}/{}s/{}", self.namespace, self.kind, self.name));
        }
        let labels = Value { kind: Some(Kind::StructValue(Struct { fields: labels })) };
        fields.insert("LABELS".to_owned(), labels);
        ENCODER.encode(Struct { fields }.encode_to_vec())
    }

    /// Writes the short form; none where a value could not be told from what parts them, or
    /// not be in a header.
    #[must_use]
    pub fn short(&self) -> Option<String> {
        let Self { instance, namespace, name, cluster, canonical_name, canonical_revision, .. } = self;
        let Self { app, version, kind, .. } = self;
        let parts =
            [name, namespace, canonical_name, canonical_revision, cluster, app, version, kind, instance];
        let fits = |part: &&String| part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        parts.iter().all(fits).then(|| parts.map(String::as_str).join(";"))
    }

    /// Reads the short form, as much of it as there is.
    #[must_use]
    pub fn of_endpoint(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::to_owned);
        let mut next = || parts.next();
        let (name, namespace) = (next()?, next()?);
        let (canonical_name, canonical_revision, cluster) = (next()?, next()?, next()?);
        let mut next = || next().unwrap_or_default();
        let (app, version, kind, instance) = (next(), next(), next(), next());
        Some(Self {
            instance,
            namespace,
            name,
            cluster,
            canonical_name,
            canonical_revision,
            app,
            version,
            kind,
        })
    }
}

/// The kind of workload in an owner's text, which ends with `/KINDs/NAME`.
fn kind<'a>(owner: &'a str, workload: &str) -> &'a str {
    let Some(end) = owner.len().checked_sub(workload.len() + 2).filter(|end| *end > 0) else { return "" };
    let found = owner.get(..end).and_then(|text| text.rsplit_once('/')).map_or("", |(_, kind)| kind);
    if matches!(found, "deployment" | "job" | "cronjob" | "pod") { found } else { "" }
}

fn text(fields: &BTreeMap<String, Value>, name: &str) -> String {
    match fields.get(name).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn put(fields: &mut BTreeMap<String, Value>, name: &str, value: &str) {
    if !value.is_empty() {
        fields.insert(name.to_owned(), Value { kind: Some(Kind::StringValue(value.to_owned())) });
    }
}

#[cfg(test)]
mod tests;
