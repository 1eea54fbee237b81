//! What one Envoy holds: its dump and its view of the endpoints, by name.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use pki::certificate::Certificate;
use prost::Name;
use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::address::Address as AddressKind;
use proto::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::envoy::config::core::v3::{Address, Metadata, TypedExtensionConfig};
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::envoy::config::listener::v3::Listener;
use proto::envoy::config::route::v3::RouteConfiguration;
use serde::Deserialize;

use super::message;
use crate::dump::{self, ConfigDump, State, certificate, clusters, view};
use crate::json::{Text, Value};

/// Why a page of Envoy's admin interface is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is something else.
    #[error(transparent)]
    Dump(#[from] dump::Error),
    /// There is nothing in it.
    #[error("no config dump of Envoy: `configs` is missing")]
    NoDump,
}

/// A resource that is read when it is first needed.
#[derive(Debug)]
pub(super) struct Resource<M> {
    raw: Box<str>,
    cell: OnceCell<Result<M, String>>,
}

impl<M: prost::Message + Name + Default> Resource<M> {
    fn new(one: &dump::Resource<'_>) -> Self {
        Self { raw: one.raw().into(), cell: OnceCell::new() }
    }

    /// The message, or why it cannot be read.
    pub(super) fn get(&self) -> Result<&M, &str> {
        self.cell.get_or_init(|| message::decode(&self.raw)).as_ref().map_err(String::as_str)
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
        let dump = ConfigDump::parse(dump)?;
        if dump.is_empty() {
            return Err(Error::NoDump);
        }
        let mut proxy = Self::empty();
        proxy.take_node(&if_there(dump.bootstrap())?.bootstrap.node);
        proxy.clusters = by_name(if_there(dump.clusters())?)?;
        let mut listeners = if_there(dump.listeners())?;
        listeners.sort_by_key(|one| one.state);
        proxy.listeners = listeners.iter().map(Resource::new).collect();
        // Those that stand in listeners are read with them.
        let routes = if_there(dump.routes())?.into_iter().filter(|one| one.state == State::Active);
        proxy.routes = by_name(routes.collect())?;
        proxy.assignments = by_name(dump.endpoints()?)?;
        for secret in if_there(dump.secrets())? {
            if secret.state == State::Active && &*secret.name == "default" {
                proxy.identity = identity(&secret.read()?);
            }
        }
        for one in if_there(dump.extensions())? {
            let decoded = message::decode::<TypedExtensionConfig>(one.raw());
            if let Ok(TypedExtensionConfig { name, typed_config: Some(config) }) = decoded {
                proxy.extensions.insert(name, config);
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

    fn take_node(&mut self, node: &view::Node<'_>) {
        // KIND~IP~POD.NAMESPACE~DOMAIN.
        let mut parts = node.id.split('~');
        self.is_router = parts.next() == Some("router");
        let address = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default().to_owned();
        if let Some((_, domain)) = parts.next().and_then(|domain| domain.split_once(".svc.")) {
            self.domain = domain.to_owned();
        }
        let of =
            |name: &str| node.metadata.iter().find(|(known, _)| &***known == name).map(|(_, value)| value);
        let word = |name: &str| of(name).and_then(Value::as_str).unwrap_or_default();
        self.namespace = word("NAMESPACE").to_owned();
        if self.namespace.is_empty() {
            self.namespace =
                self.name.rsplit_once('.').map(|(_, namespace)| namespace.to_owned()).unwrap_or_default();
        }
        let more = word("INSTANCE_IPS").split(',');
        self.addresses =
            std::iter::once(address).chain(more).filter_map(|ip| ip.trim().parse().ok()).collect();
        self.addresses.dedup();
        self.interception = word("INTERCEPTION_MODE").to_owned();
        if let Some(Value::Object(_, annotations)) = of("ANNOTATIONS") {
            let pairs = annotations
                .iter()
                .filter_map(|(name, value)| Some((name.to_string(), value.as_str()?.to_owned())));
            self.annotations = pairs.collect();
        }
    }

    /// The address by which others reach it.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.addresses.first().copied()
    }
}

/// What is in a dump; nothing where it has no such section.
fn if_there<T: Default>(read: Result<T, dump::Error>) -> Result<T, dump::Error> {
    match read {
        Err(dump::Error::NoSection(_)) => Ok(T::default()),
        read => read,
    }
}

/// Resources by their names; those in use stand before those of the bootstrap.
fn by_name<M: prost::Message + Name + Default>(
    all: Vec<dump::Resource<'_>>,
) -> Result<BTreeMap<String, Resource<M>>, dump::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Named<'a> {
        #[serde(borrow, alias = "cluster_name", alias = "clusterName")]
        name: Text<'a>,
    }
    let mut found = BTreeMap::new();
    for one in all {
        let named: Named<'_> = one.read()?;
        found.entry(named.name.to_string()).or_insert_with(|| Resource::new(&one));
    }
    Ok(found)
}

/// The identity that the workload's certificate proves.
fn identity(secret: &view::Secret<'_>) -> Option<String> {
    let pem = certificate::decode(&secret.tls_certificate.as_ref()?.certificate_chain);
    let certificates = Certificate::all_from_pem(&String::from_utf8(pem).ok()?).ok()?;
    certificates.first()?.uris.first().cloned()
}

/// The page `/clusters?format=json`.
fn hosts(page: &str) -> Result<BTreeMap<String, Vec<Host>>, dump::Error> {
    let mut all = BTreeMap::new();
    for cluster in clusters::parse(page)? {
        let clusters::Status { name, host_statuses, .. } = clusters::Status::read(cluster)?;
        all.insert(name.to_string(), host_statuses.iter().map(Host::of).collect());
    }
    Ok(all)
}

impl Host {
    fn of(status: &clusters::Host<'_>) -> Self {
        let health = &status.health_status;
        let mut trouble = Vec::new();
        let flags = [
            (health.failed_outlier_check, "ejected by outlier detection"),
            (health.failed_active_health_check, "failed its health check"),
            (health.pending_active_hc, "its first health check is not over"),
        ];
        trouble.extend(flags.iter().filter(|(is_so, _)| *is_so).map(|(_, words)| (*words).to_owned()));
        let mut note = String::new();
        match status.health() {
            "UNHEALTHY" | "TIMEOUT" => trouble.push("istiod says that it is not healthy".into()),
            "DRAINING" => trouble.push("it is draining".into()),
            "DEGRADED" => "degraded".clone_into(&mut note),
            _ => {}
        }
        let view::Address { socket_address, pipe, .. } = &status.address;
        let view::Locality { region, zone, sub_zone, .. } = &status.locality;
        let (socket, pipe) = (socket_address.as_ref(), pipe.as_ref());
        let address = socket.map(|socket| &socket.address).or(pipe.map(|pipe| &pipe.path));
        Self {
            address: address.map(ToString::to_string).unwrap_or_default(),
            port: u16::try_from(status.port()).unwrap_or(0),
            trouble,
            note,
            priority: status.priority,
            weight: status.weight.unwrap_or(1),
            locality: format!("{region}/{zone}/{sub_zone}").trim_end_matches('/').to_owned(),
            hostname: status.hostname.to_string(),
        }
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
