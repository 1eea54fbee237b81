//! What one Envoy holds: its dump and its view of the endpoints, by name.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use prost::Name;
use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::address::Address as AddressKind;
use proto::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::envoy::config::core::v3::{Address, Metadata};
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::envoy::config::listener::v3::Listener;
use proto::envoy::config::route::v3::RouteConfiguration;
use serde_json::Value;

use super::message;

/// Why a page of Envoy's admin interface is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON.
    #[error("no JSON of Envoy's admin interface: {0}")]
    Json(#[from] serde_json::Error),
    /// It has no list of configurations.
    #[error("no config dump of Envoy: `configs` is missing")]
    NoDump,
}

/// A resource that is read when it is first needed.
#[derive(Debug)]
pub(super) struct Resource<M> {
    raw: Value,
    cell: OnceCell<Result<M, String>>,
}

impl<M: prost::Message + Name + Default> Resource<M> {
    fn new(raw: Value) -> Self {
        Self { raw, cell: OnceCell::new() }
    }

    /// The message, or why it cannot be read.
    pub(super) fn get(&self) -> Result<&M, &str> {
        self.cell.get_or_init(|| message::decode(self.raw.clone())).as_ref().map_err(String::as_str)
    }
}

/// How an Envoy judges an endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    /// Its address; text, since it may be a socket.
    pub(super) address: String,
    /// Its port.
    pub(super) port: u16,
    /// Why no requests are sent to it.
    pub(super) trouble: Vec<String>,
    /// Whether it is draining or degraded, which is not all that bad.
    pub(super) note: String,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) locality: String,
    pub(super) hostname: String,
}

/// One Envoy.
#[derive(Debug)]
pub struct Proxy {
    /// `POD.NAMESPACE`.
    pub name: String,
    /// Namespace of the workload.
    pub namespace: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Who it proves to be: the SPIFFE identity of its certificate.
    pub identity: Option<String>,
    pub(super) is_router: bool,
    /// `NONE` where nothing is redirected.
    pub(super) interception: String,
    /// `cluster.local`.
    pub(super) domain: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) listeners: Vec<Resource<Listener>>,
    pub(super) routes: BTreeMap<String, Resource<RouteConfiguration>>,
    pub(super) clusters: BTreeMap<String, Resource<Cluster>>,
    pub(super) assignments: BTreeMap<String, Resource<ClusterLoadAssignment>>,
    pub(super) extensions: BTreeMap<String, Any>,
    /// What the page `/clusters` says; `None` without it.
    pub(super) hosts: Option<BTreeMap<String, Vec<Host>>>,
}

impl Proxy {
    /// Reads a dump (`/config_dump?include_eds`) and, where it is known, the page
    /// `/clusters?format=json`.
    ///
    /// # Errors
    /// When one of them is something else.
    pub fn read(dump: &str, clusters: Option<&str>) -> Result<Self, Error> {
        let mut dump: Value = serde_json::from_str(dump)?;
        let mut proxy = Self::empty();
        let configs = field(&mut dump, "configs").ok_or(Error::NoDump)?;
        for mut config in items(configs) {
            let kind = text(&config, "@type");
            match kind.rsplit('.').next().unwrap_or_default() {
                "BootstrapConfigDump" => proxy.take_node(&config),
                "ClustersConfigDump" => {
                    for entry in list(&mut config, &["static_clusters", "dynamic_active_clusters"]) {
                        take(&mut proxy.clusters, entry, "cluster", "name");
                    }
                }
                "ListenersConfigDump" => {
                    let fixed = list(&mut config, &["static_listeners"]);
                    let dynamic = list(&mut config, &["dynamic_listeners"]);
                    let dynamic =
                        dynamic.into_iter().filter_map(|mut entry| field(&mut entry, "active_state"));
                    for mut entry in fixed.into_iter().chain(dynamic) {
                        let listener = field(&mut entry, "listener");
                        proxy.listeners.extend(listener.map(Resource::new));
                    }
                }
                "RoutesConfigDump" => {
                    for entry in list(&mut config, &["dynamic_route_configs"]) {
                        take(&mut proxy.routes, entry, "route_config", "name");
                    }
                }
                "EndpointsConfigDump" => {
                    for entry in list(&mut config, &["static_endpoint_configs", "dynamic_endpoint_configs"]) {
                        take(&mut proxy.assignments, entry, "endpoint_config", "cluster_name");
                    }
                }
                "SecretsConfigDump" => {
                    for entry in list(&mut config, &["dynamic_active_secrets"]) {
                        if text(&entry, "name") == "default" {
                            proxy.identity = identity(&entry);
                        }
                    }
                }
                "EcdsConfigDump" => {
                    for mut entry in list(&mut config, &["ecds_filters"]) {
                        if let Some(filter) = field(&mut entry, "ecds_filter") {
                            proxy.take_extension(filter);
                        }
                    }
                }
                _ => {}
            }
        }
        proxy.hosts = clusters.map(hosts).transpose()?;
        Ok(proxy)
    }

    fn empty() -> Self {
        Self {
            name: String::new(),
            namespace: String::new(),
            addresses: Vec::new(),
            identity: None,
            is_router: false,
            interception: String::new(),
            domain: "cluster.local".into(),
            annotations: BTreeMap::new(),
            listeners: Vec::new(),
            routes: BTreeMap::new(),
            clusters: BTreeMap::new(),
            assignments: BTreeMap::new(),
            extensions: BTreeMap::new(),
            hosts: None,
        }
    }

    fn take_node(&mut self, config: &Value) {
        let node = &config["bootstrap"]["node"];
        // KIND~IP~POD.NAMESPACE~DOMAIN.
        let id = text(node, "id");
        let mut parts = id.split('~');
        self.is_router = parts.next() == Some("router");
        let address = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default().to_owned();
        if let Some((_, domain)) = parts.next().and_then(|domain| domain.split_once(".svc.")) {
            self.domain = domain.to_owned();
        }
        let metadata = &node["metadata"];
        self.namespace = text(metadata, "NAMESPACE");
        if self.namespace.is_empty() {
            self.namespace =
                self.name.rsplit_once('.').map(|(_, namespace)| namespace.to_owned()).unwrap_or_default();
        }
        let more = text(metadata, "INSTANCE_IPS");
        let mut addresses: Vec<IpAddr> =
            std::iter::once(address).chain(more.split(',')).filter_map(|ip| ip.trim().parse().ok()).collect();
        addresses.dedup();
        self.addresses = addresses;
        self.interception = text(metadata, "INTERCEPTION_MODE");
        if let Some(annotations) = metadata["ANNOTATIONS"].as_object() {
            let pairs = annotations
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            self.annotations = pairs.collect();
        }
    }

    fn take_extension(&mut self, filter: Value) {
        use proto::envoy::config::core::v3::TypedExtensionConfig;
        let decoded: Result<TypedExtensionConfig, _> = message::decode(filter);
        if let Ok(TypedExtensionConfig { name, typed_config: Some(config) }) = decoded {
            self.extensions.insert(name, config);
        }
    }

    /// The address by which others reach it.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

/// A field by its name as Envoy writes it, or in the other form of protobuf's JSON.
fn field(json: &mut Value, name: &str) -> Option<Value> {
    let fields = json.as_object_mut()?;
    fields.remove(name).or_else(|| fields.remove(&camel(name)))
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        text.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(chars.as_str());
    }
    text
}

fn items(json: Value) -> Vec<Value> {
    match json {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn list(json: &mut Value, names: &[&str]) -> Vec<Value> {
    names.iter().filter_map(|name| field(json, name)).flat_map(items).collect()
}

fn text(json: &Value, name: &str) -> String {
    let value = json.get(name).or_else(|| json.get(camel(name)));
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn take<M: prost::Message + Name + Default>(
    into: &mut BTreeMap<String, Resource<M>>,
    mut entry: Value,
    what: &str,
    name: &str,
) {
    if let Some(resource) = field(&mut entry, what) {
        into.insert(text(&resource, name), Resource::new(resource));
    }
}

/// The identity that the workload's certificate proves.
fn identity(secret: &Value) -> Option<String> {
    let find = |json: &Value, name: &str| json.get(name).or_else(|| json.get(camel(name))).cloned();
    let chain = find(&find(&find(secret, "secret")?, "tls_certificate")?, "certificate_chain")?;
    let pem = base64::engine::general_purpose::STANDARD.decode(text(&chain, "inline_bytes")).ok()?;
    let certificates = pki::certificate::Certificate::all_from_pem(&String::from_utf8(pem).ok()?).ok()?;
    certificates.first()?.uris.first().cloned()
}

/// The page `/clusters?format=json`.
fn hosts(page: &str) -> Result<BTreeMap<String, Vec<Host>>, serde_json::Error> {
    let page: Value = serde_json::from_str(page)?;
    let mut all = BTreeMap::new();
    for cluster in page["cluster_statuses"].as_array().into_iter().flatten() {
        let hosts = cluster["host_statuses"].as_array().into_iter().flatten().map(host);
        all.insert(text(cluster, "name"), hosts.collect());
    }
    Ok(all)
}

fn host(status: &Value) -> Host {
    let number = |json: &Value| json.as_u64().and_then(|number| u32::try_from(number).ok());
    let socket = &status["address"]["socket_address"];
    let health = &status["health_status"];
    let mut trouble = Vec::new();
    let flags = [
        ("failed_outlier_check", "ejected by outlier detection"),
        ("failed_active_health_check", "failed its health check"),
        ("pending_active_hc", "its first health check is not over"),
    ];
    for (flag, words) in flags {
        if health[flag] == Value::Bool(true) {
            trouble.push(words.to_owned());
        }
    }
    let mut note = String::new();
    match text(health, "eds_health_status").as_str() {
        "UNHEALTHY" | "TIMEOUT" => trouble.push("istiod says that it is not healthy".into()),
        "DRAINING" => trouble.push("it is draining".into()),
        "DEGRADED" => "degraded".clone_into(&mut note),
        _ => {}
    }
    let place = ["region", "zone", "sub_zone"].map(|part| text(&status["locality"], part));
    Host {
        address: if socket.is_object() {
            text(socket, "address")
        } else {
            text(&status["address"]["pipe"], "path")
        },
        port: number(&socket["port_value"]).and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        trouble,
        note,
        priority: number(&status["priority"]).unwrap_or(0),
        weight: number(&status["weight"]).unwrap_or(1),
        locality: place.join("/").trim_end_matches('/').to_owned(),
        hostname: text(status, "hostname"),
    }
}

/// Address and port of a message.
pub(super) fn socket(address: Option<&Address>) -> Option<(&str, u16)> {
    let Some(AddressKind::SocketAddress(socket)) = address.and_then(|address| address.address.as_ref())
    else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok()?,
        _ => 0,
    };
    Some((&socket.address, port))
}

/// The same as numbers; `None` for a name.
pub(super) fn socket_address(address: Option<&Address>) -> Option<SocketAddr> {
    let (ip, port) = socket(address)?;
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

/// The object of the user that Istio notes on what it makes of it: `KIND NAME.NAMESPACE`.
pub(super) fn object(metadata: Option<&Metadata>) -> Option<String> {
    use prost_types::value::Kind;
    let istio = metadata?.filter_metadata.get("istio")?;
    let Some(Kind::StringValue(path)) = &istio.fields.get("config")?.kind else { return None };
    // /apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME.
    let mut parts = path.rsplit('/');
    let (name, kind, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let kind: String = kind
        .split('-')
        .map(|word| {
            let mut chars = word.chars();
            let first = chars.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(chars).collect::<String>()
        })
        .collect();
    Some(format!("{kind} {name}.{namespace}"))
}
