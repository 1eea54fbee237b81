//! The servers of all Gateways of one proxy, put together by port.
//!
//! Gateways come in order of age, and of two servers that cannot be both the
//! older one stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::istio::networking::v1alpha3::server_tls_settings::TlSmode as TlsMode;

use super::{Gateway, Server};
use crate::protocol::Protocol;

/// What makes a listener, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// Port that is listened on.
    pub(crate) port: u16,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// Address that is listened on; empty means all.
    pub(crate) bind: String,
}

/// A server with the Gateway it belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) server: &'a Server,
}

/// Servers of one port, protocol and address.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) key: Key,
    /// Name of the routes that its plaintext servers share.
    pub(crate) routes: String,
    pub(crate) servers: Vec<Bound<'a>>,
}

/// All servers of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Merged<'a> {
    /// In the order in which they were found.
    pub(crate) groups: Vec<Group<'a>>,
    /// Servers by the name of the routes that they share.
    pub(crate) by_routes: BTreeMap<String, Vec<Bound<'a>>>,
    /// Servers that cannot be beside an older one.
    pub(crate) dropped: Vec<Dropped<'a>>,
}

/// A server that is not served, and why.
#[derive(Debug)]
pub(crate) struct Dropped<'a> {
    pub(crate) bound: Bound<'a>,
    pub(crate) why: Conflict,
}

/// What an older server has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// That host, in TLS.
    Host(String),
    /// The port, with another protocol.
    Port(u16, Protocol),
    /// That name of routes.
    Routes(String),
}

/// The name of the routes of a server that listens on `port`; `None` for one
/// that does not look at requests.
pub(crate) fn routes_name(bound: Bound<'_>, port: u16) -> Option<String> {
    let Bound { gateway, server } = bound;
    let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
    if server.protocol.is_http() {
        return Some(format!("http.{port}{bind}"));
    }
    server.is_routed().then(|| {
        let Server { port, port_name, .. } = server;
        format!("https.{port}.{port_name}.{}.{}{bind}", gateway.name, gateway.namespace)
    })
}

/// What is known of a port while servers are added.
#[derive(Debug, Default)]
struct PortState {
    /// The plaintext servers that were added last.
    plaintext: Option<Key>,
    /// Addresses by host of the TLS servers: their names tell the chains apart.
    tls_hosts: BTreeMap<String, String>,
}

impl<'a> Merged<'a> {
    /// Puts the servers of Gateways together; `resolve` gives the port that a
    /// server's port is listened on.
    pub(crate) fn new(
        gateways: impl Iterator<Item = &'a Arc<Gateway>>,
        resolve: impl Fn(u16) -> u16,
    ) -> Self {
        let mut merged = Self::default();
        let mut ports: BTreeMap<u16, PortState> = BTreeMap::new();
        for gateway in gateways {
            for server in &gateway.servers {
                let port = resolve(server.port);
                merged.add(Bound { gateway, server }, port, &mut ports);
            }
        }
        merged
    }

    fn add(&mut self, bound: Bound<'a>, port: u16, ports: &mut BTreeMap<u16, PortState>) {
        let server = bound.server;
        let is_first = !ports.contains_key(&port);
        let state = ports.entry(port).or_default();
        if server.tls.is_some() {
            let is_known = |host: &&String| state.tls_hosts.get(*host) == Some(&server.bind);
            if let Some(host) = server.hosts.iter().find(is_known) {
                // Envoy could not tell the two apart: the later one goes, with all its hosts.
                self.dropped.push(Dropped { bound, why: Conflict::Host(host.clone()) });
                return;
            }
            state.tls_hosts.extend(server.hosts.iter().map(|host| (host.clone(), server.bind.clone())));
        }
        let key = Key { port, protocol: server.protocol, bind: server.bind.clone() };
        let routes = routes_name(bound, port);
        if is_first {
            if !server.is_tls() {
                state.plaintext = Some(key.clone());
            }
            return self.open(key, routes, bound);
        }
        match &state.plaintext {
            Some(current) if current.bind == key.bind => {
                let fits = server.protocol.is_http() && current.protocol.is_http();
                let Some(routes) = routes.filter(|_| fits) else {
                    let why = Conflict::Port(port, current.protocol);
                    self.dropped.push(Dropped { bound, why });
                    return;
                };
                if let Some(group) = self.groups.iter_mut().find(|group| group.key == *current) {
                    group.servers.push(bound);
                }
                self.by_routes.entry(routes).or_default().push(bound);
            }
            Some(_) => {
                if let Some(group) = self.groups.iter_mut().find(|group| group.key == key) {
                    group.servers.push(bound);
                    if let Some(routes) = routes {
                        group.routes.clone_from(&routes);
                        self.by_routes.entry(routes).or_default().push(bound);
                    }
                } else {
                    if !server.is_tls() {
                        state.plaintext = Some(key.clone());
                    }
                    self.open(key, routes, bound);
                }
            }
            None if !server.is_tls() => {
                state.plaintext = Some(key.clone());
                self.open(key, routes, bound);
            }
            None => {
                if let Some(routes) = routes {
                    // Each server that ends TLS has routes of its own.
                    if self.by_routes.contains_key(&routes) {
                        self.dropped.push(Dropped { bound, why: Conflict::Routes(routes) });
                        return;
                    }
                    self.by_routes.insert(routes, vec![bound]);
                }
                if let Some(group) = self.groups.iter_mut().find(|group| group.key == key) {
                    group.servers.push(bound);
                } else {
                    self.groups.push(Group { key, routes: String::new(), servers: vec![bound] });
                }
            }
        }
    }

    fn open(&mut self, key: Key, routes: Option<String>, bound: Bound<'a>) {
        if let Some(routes) = &routes {
            self.by_routes.insert(routes.clone(), vec![bound]);
        }
        let group = Group { key, routes: routes.unwrap_or_default(), servers: vec![bound] };
        match self.groups.iter_mut().find(|known| known.key == group.key) {
            Some(known) => *known = group,
            None => self.groups.push(group),
        }
    }

    /// Whether a server passes connections on to the cluster that the client's
    /// proxy asks for (`AUTO_PASSTHROUGH`).
    pub(crate) fn passes_by_name(&self) -> bool {
        let mut servers = self.groups.iter().flat_map(|group| &group.servers);
        servers.any(|bound| bound.server.mode() == Some(TlsMode::AutoPassthrough))
    }
}

#[cfg(test)]
mod tests;
