//! One object that is looked at.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use config::Spec;
use config::yaml::{self, Lines};
use mesh::{MeshConfig, MeshNetworks};
use prost::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::analyzer::schema;
use crate::kube::{Definition, Deployment, Gateway, PodSpec, Secret, Service, Webhooks};
use crate::read::Parts;
use crate::{Code, Kind, Labels};

/// Annotation in which kubectl keeps all of an object once more: nobody looks at it.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object: what it is called, what it says and where it was written.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without one, and when none was said.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// What it says.
    pub body: Body,
    /// What the control plane says of it.
    pub conditions: Box<[Condition]>,
    /// Where it was written; `None` for what comes from a cluster.
    pub source: Option<Source>,
    /// The cluster that it is in; empty for the one that is looked at.
    pub cluster: Arc<str>,
}

/// What an object says.
#[derive(Clone, Debug)]
pub enum Body {
    /// One of Istio's own.
    Istio(Content),
    /// Nothing but its labels counts.
    Empty,
    /// A pod.
    Pod(Box<PodSpec>),
    /// A deployment.
    Deployment(Box<Deployment>),
    /// A service.
    Service(Box<Service>),
    /// A Secret.
    Secret(Box<Secret>),
    /// A ConfigMap.
    ConfigMap(Labels),
    /// Webhooks.
    Webhooks(Box<Webhooks>),
    /// A custom resource.
    Definition(Box<Definition>),
    /// A gateway of the Gateway API.
    Gateway(Box<Gateway>),
    /// Settings of the mesh.
    Mesh(Arc<MeshConfig>),
    /// Networks of the mesh.
    Networks(Arc<MeshNetworks>),
}

/// What an object of Istio's own says, in the encoded form of its API: read, it
/// takes ten times the memory.
#[derive(Clone, Debug)]
pub struct Content {
    encoded: Box<[u8]>,
    /// What the rules of its kind say of it.
    pub(crate) told: Box<[(Code, String)]>,
    /// Whether the control plane has given its hosts addresses.
    pub(crate) has_addresses: bool,
}

impl Content {
    fn new(spec: &Spec) -> Self {
        let has_addresses = matches!(spec, Spec::ServiceEntry(entry) if !entry.status.addresses.is_empty());
        Self { encoded: encoded(spec).into_boxed_slice(), told: schema::check(spec).into(), has_addresses }
    }
}

fn encoded(spec: &Spec) -> Vec<u8> {
    match spec {
        Spec::AuthorizationPolicy(spec) => spec.encode_to_vec(),
        Spec::DestinationRule(spec) => spec.encode_to_vec(),
        Spec::EnvoyFilter(spec) => spec.encode_to_vec(),
        Spec::Gateway(spec) => spec.encode_to_vec(),
        Spec::PeerAuthentication(spec) => spec.encode_to_vec(),
        Spec::ProxyConfig(spec) => spec.encode_to_vec(),
        Spec::RequestAuthentication(spec) => spec.encode_to_vec(),
        Spec::ServiceEntry(entry) => entry.spec.encode_to_vec(),
        Spec::Sidecar(spec) => spec.encode_to_vec(),
        Spec::Telemetry(spec) => spec.encode_to_vec(),
        Spec::TrafficExtension(spec) => spec.encode_to_vec(),
        Spec::VirtualService(spec) => spec.encode_to_vec(),
        Spec::WasmPlugin(spec) => spec.encode_to_vec(),
        Spec::WorkloadEntry(entry) => entry.spec.encode_to_vec(),
        Spec::WorkloadGroup(spec) => spec.encode_to_vec(),
        // Of Kubernetes.
        _ => Vec::new(),
    }
}

/// Something that is so, or not.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// `True`, `False` or `Unknown`.
    pub status: Box<str>,
    /// Why, in one word.
    pub reason: Box<str>,
    /// Why, for people.
    pub message: Box<str>,
}

/// Where an object was written.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, as the user named it.
    pub file: Arc<str>,
    /// The line that it begins at, counted from 1; 0 when lines say nothing.
    pub line: usize,
    pub(crate) text: Text,
}

/// How lines of fields are found.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// Not at all.
    Unknown,
    /// By reading the document again, which begins after so many lines; or an item of
    /// a list, as a list of one.
    Part { parts: Parts, range: Range<usize>, before: usize, is_item: bool },
    /// In a list, as the item of that index.
    Item { lines: Arc<Lines>, index: usize, before: usize },
}

impl Source {
    /// The line of a field with a single value, `spec.host`; `None` when it is
    /// not written.
    pub(crate) fn line_of(&self, field: &str) -> Option<usize> {
        match &self.text {
            Text::Unknown => None,
            Text::Part { parts, range, before, is_item } => {
                let (_, lines) = yaml::document(&parts.get(&self.file, range.clone())?).ok()?;
                let within = if *is_item { "[0]." } else { "" };
                Some(lines.of_value(&format!("{within}{field}"))? + before)
            }
            Text::Item { lines, index, before } => {
                Some(lines.of_value(&format!("items[{index}].{field}"))? + before)
            }
        }
    }

    /// The place, with another line if one is given.
    pub(crate) fn reference(&self, line: Option<usize>) -> String {
        match self.line {
            0 => self.file.to_string(),
            own => format!("{}:{}", self.file, line.unwrap_or(own)),
        }
    }
}

/// Why a value is no object that can be looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl Resource {
    /// Reads an object of a kind. A namespaced object that names no namespace
    /// is in `default_namespace`.
    ///
    /// # Errors
    /// When it does not fit into the type of its kind.
    pub fn read(kind: Kind, mut object: Value, default_namespace: &str) -> Result<Self, Unreadable> {
        yaml::drop_nulls(&mut object);
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
        {
            annotations.remove(APPLIED);
        }
        let meta = |name: &str| object.pointer(&format!("/metadata/{name}"));
        let text = |name: &str| meta(name).and_then(Value::as_str).unwrap_or_default();
        let named = text("namespace");
        let namespace = match (kind.is_namespaced(), named) {
            (false, _) => "",
            (true, "") => default_namespace,
            (true, named) => named,
        };
        Ok(Self {
            kind,
            namespace: namespace.into(),
            name: text("name").into(),
            labels: Labels::read(meta("labels"))?,
            annotations: Labels::read(meta("annotations"))?,
            conditions: conditions(kind, &object),
            body: body(kind, &mut object)?,
            source: None,
            cluster: Arc::default(),
        })
    }

    /// An object of Istio's own that the control plane has read already.
    #[must_use]
    pub fn of_object(object: &config::Object) -> Option<Self> {
        let kind = Kind::ALL.iter().copied().find(|kind| kind.istio() == Some(object.key.kind))?;
        Some(Self {
            kind,
            namespace: (*object.key.namespace).into(),
            name: (*object.key.name).into(),
            labels: (&object.meta.labels).into(),
            annotations: (&object.meta.annotations).into(),
            body: Body::Istio(Content::new(&object.spec)),
            conditions: Box::default(),
            source: None,
            cluster: Arc::default(),
        })
    }

    /// What it says, if it is one of Istio's own, whose type must be that of its kind.
    #[must_use]
    pub(crate) fn spec<T: Message + Default>(&self) -> Option<T> {
        if let Body::Istio(content) = &self.body { T::decode(&*content.encoded).ok() } else { None }
    }

    /// Its namespace and name, `a/b`; the name alone without a namespace.
    #[must_use]
    pub fn full_name(&self) -> String {
        full_name(&self.namespace, &self.name)
    }

    /// Its kind and full name.
    #[must_use]
    pub fn friendly_name(&self) -> String {
        format!("{} {}", self.kind, self.full_name())
    }

    /// The namespace whose users it concerns.
    #[must_use]
    pub fn home(&self) -> &str {
        if self.kind == Kind::Namespace { &self.name } else { &self.namespace }
    }
}

/// A namespace and a name, `a/b`; the name alone without a namespace.
pub(crate) fn full_name(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

fn conditions(kind: Kind, object: &Value) -> Box<[Condition]> {
    let read = |list: Option<&Value>| Vec::<Condition>::deserialize(list?).ok();
    let all = match kind {
        Kind::HttpRoute | Kind::GrpcRoute => {
            let parents = object.pointer("/status/parents").and_then(Value::as_array);
            parents
                .into_iter()
                .flatten()
                .filter_map(|parent| read(parent.get("conditions")))
                .flatten()
                .collect()
        }
        Kind::Service
        | Kind::ServiceEntry
        | Kind::WorkloadEntry
        | Kind::AuthorizationPolicy
        | Kind::KubernetesGateway => read(object.pointer("/status/conditions")).unwrap_or_default(),
        _ => Vec::new(),
    };
    all.into_boxed_slice()
}

fn of<T: DeserializeOwned + Default>(object: &Value, field: &str) -> Result<Box<T>, Unreadable> {
    let content = if field.is_empty() { Some(object) } else { object.get(field) };
    Ok(Box::new(content.map(T::deserialize).transpose()?.unwrap_or_default()))
}

fn body(kind: Kind, object: &mut Value) -> Result<Body, Unreadable> {
    if let Some(istio) = kind.istio() {
        let spec = yaml::spec(istio, object);
        let content = spec.map(|spec| Body::Istio(Content::new(&spec)));
        return content.map_err(|(field, why)| Unreadable(format!("{field}: {why}")));
    }
    Ok(match kind {
        Kind::Pod => Body::Pod(of(object, "spec")?),
        Kind::Deployment => Body::Deployment(of(object, "spec")?),
        Kind::Service => Body::Service(of(object, "spec")?),
        Kind::Secret => Body::Secret(of(object, "")?),
        Kind::ConfigMap => Body::ConfigMap(*of(object, "data")?),
        Kind::MutatingWebhookConfiguration | Kind::ValidatingWebhookConfiguration => {
            Body::Webhooks(of(object, "")?)
        }
        Kind::CustomResourceDefinition => Body::Definition(of(object, "spec")?),
        Kind::KubernetesGateway => Body::Gateway(of(object, "spec")?),
        _ => Body::Empty,
    })
}
