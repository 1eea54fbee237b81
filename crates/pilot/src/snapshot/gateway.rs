//! Gateways: which servers a `router` proxy opens.
//!
//! `merge` puts the servers of all Gateways of one proxy together.

pub(crate) mod merge;
mod problem;

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Store;
use proto::istio::networking::v1alpha3::server_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{self as api, ServerTlsSettings};

pub(super) use problem::{names_config_maps, problems};

use crate::protocol::Protocol;

/// A server of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its position in the Gateway.
    pub index: usize,
    /// Its name; may be empty.
    pub name: String,
    /// Port that it is declared with; 0 with a Unix socket.
    pub port: u16,
    /// Name of that port.
    pub port_name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Address or Unix socket that it is bound to; empty means all addresses.
    pub bind: String,
    /// Its hosts: `HOST`, or `NAMESPACE/HOST` for one that only VirtualServices
    /// of a namespace may use.
    pub hosts: Vec<String>,
    /// Settings of TLS, also those that only redirect.
    pub tls: Option<ServerTlsSettings>,
}

/// A Gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `NAMESPACE/NAME`, as VirtualServices refer to it.
    pub id: String,
    /// Labels of its proxies; none means all.
    pub selector: BTreeMap<String, String>,
    /// Its servers that can be used.
    pub servers: Vec<Server>,
}

/// All Gateways, the oldest first.
#[derive(Debug, Default)]
pub struct Index(Vec<Arc<Gateway>>);

impl Index {
    /// Indexes those of a store.
    #[must_use]
    pub fn build(store: &Store) -> Self {
        let gateways = store.by_age::<api::Gateway>().into_iter().map(|(object, gateway)| {
            let (namespace, name) = (object.meta.namespace.clone(), object.meta.name.clone());
            let servers = gateway.servers.iter().enumerate();
            let servers = servers.filter_map(|(index, one)| server(index, one, &namespace)).collect();
            Arc::new(Gateway {
                id: format!("{namespace}/{name}"),
                selector: gateway.selector.clone(),
                servers,
                namespace,
                name,
            })
        });
        Self(gateways.collect())
    }

    /// Those of a proxy with these labels, the oldest first; of one namespace if
    /// `namespace` is given.
    pub fn of_proxy<'a>(
        &'a self,
        labels: &'a BTreeMap<String, String>,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Gateway>> {
        self.0.iter().filter(move |gateway| {
            namespace.is_none_or(|namespace| gateway.namespace == namespace)
                && config::matches(&gateway.selector, labels)
        })
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.0.iter()
    }
}

impl Server {
    /// Mode of TLS, if it has any.
    #[must_use]
    pub fn mode(&self) -> Option<TlsMode> {
        self.tls.as_ref().map(ServerTlsSettings::mode)
    }

    /// Whether TLS goes through as it is.
    #[must_use]
    pub fn is_passthrough(&self) -> bool {
        matches!(self.mode(), Some(TlsMode::Passthrough | TlsMode::AutoPassthrough))
    }

    /// Whether connections carry TLS; plaintext HTTP may have settings of TLS
    /// that only redirect.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some() && !self.protocol.is_http()
    }

    /// Whether requests are routed: plaintext HTTP, or HTTPS that ends here.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        self.protocol.is_http() || (self.protocol == Protocol::Https && !self.is_passthrough())
    }

    /// Whether requests over plaintext are sent away to HTTPS.
    #[must_use]
    pub fn redirects(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// Its hosts that VirtualServices of a namespace may use.
    pub fn hosts_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        self.hosts.iter().filter_map(move |host| match host.split_once('/') {
            Some((own, host)) => (own == namespace).then_some(host),
            None => Some(host.as_str()),
        })
    }

    /// Names that clients ask for in TLS, sorted.
    #[must_use]
    pub fn server_names(&self) -> Vec<String> {
        let names =
            self.hosts.iter().map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Whether a server is bound to a Unix socket.
pub(crate) fn is_socket(bind: &str) -> bool {
    bind.starts_with("unix://")
}

/// A server with its hosts resolved; `None` when its port cannot be one.
fn server(index: usize, server: &api::Server, namespace: &str) -> Option<Server> {
    let port = server.port.as_ref()?;
    // A Unix socket has no port.
    let number =
        u16::try_from(port.number).ok().filter(|number| (*number == 0) == is_socket(&server.bind))?;
    let host = |host: &String| match host.split_once('/') {
        Some((".", host)) => format!("{namespace}/{host}"),
        Some(("*", host)) => host.to_owned(),
        _ => host.clone(),
    };
    Some(Server {
        index,
        name: server.name.clone(),
        port: number,
        port_name: port.name.clone(),
        protocol: Protocol::of_name(&port.protocol),
        bind: server.bind.clone(),
        hosts: server.hosts.iter().map(host).map(|host| host.to_ascii_lowercase()).collect(),
        tls: server.tls.clone(),
    })
}
