//! Sidecars: which one holds for a workload, with its hosts and ports read.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Store;
use config::kube::TargetPort;
use names::Hostname;
use proto::istio::networking::v1alpha3::{
    CaptureMode, IstioEgressListener, IstioIngressListener, Sidecar, SidecarPort,
};

use super::service::Port;
use crate::protocol::Protocol;

/// A Sidecar.
#[derive(Debug)]
pub struct Entry {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: Sidecar,
    /// Ways out, in its order.
    pub egress: Vec<Egress>,
    /// Ports of the workload that it declares, in its order; none when it leaves that to services.
    pub ingress: Vec<Ingress>,
}

/// An egress listener.
#[derive(Debug)]
pub struct Egress {
    /// Its own port; `None` when it holds for every port. Its number is 0 for a Unix socket.
    pub port: Option<Port>,
    /// Address or Unix socket that it listens on; may be empty.
    pub bind: String,
    /// Whether it takes connections itself in place of those that are redirected.
    pub binds_to_port: bool,
    /// Hosts that may be called this way.
    pub imports: Vec<Import>,
}

/// An ingress listener.
#[derive(Debug)]
pub struct Ingress {
    /// Its port; the workload's is the same unless `defaultEndpoint` says another.
    pub port: Port,
    /// Whether it takes connections itself; `None` leaves it to the proxy.
    pub binds_to_port: Option<bool>,
    /// What it says.
    pub spec: IstioIngressListener,
}

/// A host of an egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Namespaces it is looked for in.
    pub namespace: Namespaces,
    /// Its name as written: an exact one, a wildcard, or a short one.
    pub host: Hostname,
    /// Whether it is taken out instead (`~NAMESPACE/HOST`).
    pub is_excluded: bool,
}

/// The part of an egress host before the slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// `*`.
    All,
    /// `.`: that of the workload.
    Own,
    /// A name.
    One(String),
}

impl Import {
    /// Reads `NAMESPACE/HOST`; `None` for any other form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, host) = text.split_once('/').filter(|(_, host)| !host.contains('/'))?;
        let (namespace, is_excluded) = match namespace.strip_prefix('~') {
            Some("") => ("*", true),
            Some(namespace) => (namespace, true),
            None => (namespace, false),
        };
        let namespace = match namespace {
            "*" => Namespaces::All,
            "." => Namespaces::Own,
            name => Namespaces::One(name.to_owned()),
        };
        Some(Self { namespace, host: Hostname::new(host), is_excluded })
    }
}

/// Sidecars by namespace.
#[derive(Debug, Default)]
pub struct Index {
    /// Those with a selector first, the oldest first.
    namespaces: BTreeMap<String, Vec<Arc<Entry>>>,
    /// The one that holds where no other does.
    root: Option<Arc<Entry>>,
}

impl Index {
    /// Indexes those of a store.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str) -> Self {
        let mut index = Self::default();
        let (mut selective, mut general) = (Vec::new(), Vec::new());
        for (object, spec) in store.by_age::<Sidecar>() {
            let entry = Arc::new(Entry {
                namespace: object.meta.namespace.clone(),
                name: object.meta.name.clone(),
                egress: spec.egress.iter().filter_map(egress).collect(),
                ingress: spec.ingress.iter().filter_map(ingress).collect(),
                spec: spec.clone(),
            });
            let is_general = spec.workload_selector.is_none();
            if is_general { &mut general } else { &mut selective }.push(entry);
        }
        index.root = general.iter().find(|entry| entry.namespace == root_namespace).cloned();
        for entry in selective.into_iter().chain(general) {
            index.namespaces.entry(entry.namespace.clone()).or_default().push(entry);
        }
        index
    }

    /// The one for a workload: the oldest that selects it, else the oldest of
    /// its namespace without a selector, else that of the root namespace.
    #[must_use]
    pub fn find(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Arc<Entry>> {
        let fits = |entry: &&Arc<Entry>| {
            let selector = entry.spec.workload_selector.as_ref();
            selector.is_none_or(|selector| config::matches(&selector.labels, labels))
        };
        let own = self.namespaces.get(namespace).into_iter().flatten().find(fits);
        own.or(self.root.as_ref())
    }
}

fn egress(listener: &IstioEgressListener) -> Option<Egress> {
    let is_socket = listener.bind.starts_with(SOCKET);
    let port = match &listener.port {
        None => None,
        Some(own) => Some(port(own).filter(|port| port.number != 0 || is_socket)?),
    };
    Some(Egress {
        port,
        bind: listener.bind.clone(),
        binds_to_port: listener.capture_mode() == CaptureMode::None || is_socket,
        imports: listener.hosts.iter().filter_map(|host| Import::parse(host)).collect(),
    })
}

fn ingress(listener: &IstioIngressListener) -> Option<Ingress> {
    Some(Ingress {
        port: listener.port.as_ref().and_then(port).filter(|port| port.number != 0)?,
        binds_to_port: match listener.capture_mode() {
            CaptureMode::Default => None,
            CaptureMode::Iptables => Some(false),
            CaptureMode::None => Some(true),
        },
        spec: listener.clone(),
    })
}

fn port(port: &SidecarPort) -> Option<Port> {
    let number = u16::try_from(port.number).ok()?;
    Some(Port {
        name: port.name.clone(),
        number,
        target: TargetPort::Number(number),
        protocol: Protocol::of_name(&port.protocol),
    })
}

/// What the address of a Unix socket starts with.
pub(crate) const SOCKET: &str = "unix://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_namespace_and_a_name() {
        let import = |text| Import::parse(text).unwrap();
        assert_eq!(import("./*").namespace, Namespaces::Own);
        assert_eq!(import("*/*.com").namespace, Namespaces::All);
        assert_eq!(import("x/y").namespace, Namespaces::One("x".into()));
        assert!(import("~/*").is_excluded && import("~/*").namespace == Namespaces::All);
        assert_eq!(import("~x/y").namespace, Namespaces::One("x".into()));
        assert_eq!(Import::parse("y"), None);
        assert_eq!(Import::parse("x/y/z"), None);
    }
}
