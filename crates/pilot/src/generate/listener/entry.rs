//! Outbound listeners before they are written, and what happens when services
//! of different protocols want the same address and port.
//!
//! Requests and bytes share a listener that tells them apart by the first
//! bytes. Of two chains that match the same the first, so the older service's,
//! stays. MongoDB and MySQL share with nobody: their servers speak first, and a
//! look at the first bytes would wait for ever.

use std::collections::BTreeMap;

use proto::envoy::config::core::v3::TrafficDirection;
use proto::envoy::config::listener::v3::{FilterChainMatch, Listener};

use super::base;
use super::chain::{chain, http_inspector, tls_inspector, unknown};
use super::draft::{self, Draft};
use crate::generate::message::seconds;
use crate::protocol::Protocol;
use crate::scope::Scope;

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Requests only.
    Http,
    /// Bytes only.
    Bytes,
    /// Both, told apart by the first bytes.
    Auto,
}

impl Kind {
    /// Of a port's protocol; `None` for what the mesh leaves alone.
    pub(super) fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Udp => None,
            protocol if protocol.is_http() => Some(Self::Http),
            protocol if protocol.is_tcp() => Some(Self::Bytes),
            _ => Some(Self::Auto),
        }
    }

    /// What it is once requests are told apart from other connections.
    pub(super) fn sniffed(self) -> Self {
        if self == Self::Bytes { Self::Bytes } else { Self::Auto }
    }
}

/// A listener.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its addresses, the one it is known by first; or a Unix socket.
    pub(super) binds: Vec<String>,
    /// Its port; 0 for a Unix socket.
    pub(super) port: u16,
    /// Whether it takes connections itself.
    pub(super) binds_to_port: bool,
    /// Protocol of the first service.
    pub(super) protocol: Protocol,
    /// What it takes.
    pub(super) kind: Kind,
    /// Whether it is complete: an egress listener of a Sidecar with this port.
    pub(super) is_locked: bool,
    /// Its filter chains.
    pub(super) chains: Vec<Draft>,
}

impl Entry {
    /// Whether a service of that protocol would add anything.
    pub(super) fn is_open_to(&self, kind: Kind, protocol: Protocol) -> bool {
        // All HTTP services of a listener share its routes.
        let is_served = kind == Kind::Http && self.kind != Kind::Bytes;
        !self.is_locked && !is_served && self.tolerates(protocol)
    }

    /// Envoy knows MongoDB's and MySQL's first bytes from nothing else.
    pub(super) fn tolerates(&self, protocol: Protocol) -> bool {
        let is_alone = |protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
        let own = match self.kind {
            Kind::Auto => Protocol::Auto,
            _ => self.protocol,
        };
        own == protocol || !(is_alone(own) || is_alone(protocol))
    }
}

/// Listeners by address and port.
#[derive(Debug, Default)]
pub(super) struct Entries(BTreeMap<(String, u16), Entry>);

impl Entries {
    pub(super) fn get(&self, bind: &str, port: u16) -> Option<&Entry> {
        self.0.get(&(bind.to_owned(), port))
    }

    /// Nothing is added any more to listeners that are there.
    pub(super) fn lock(&mut self) {
        self.0.values_mut().for_each(|entry| entry.is_locked = true);
    }

    /// Adds a listener with its chains, or the chains to one that is there.
    /// Whether something of them was left out.
    pub(super) fn add(&mut self, mut entry: Entry, chains: Vec<Draft>) -> bool {
        let Some(bind) = entry.binds.first() else { return false };
        let key = (bind.clone(), entry.port);
        match self.0.get_mut(&key) {
            // A listener of bytes and requests takes the place of one of requests.
            Some(known) if !(entry.kind == Kind::Auto && known.kind == Kind::Http) => {
                if known.kind != entry.kind {
                    known.kind = Kind::Auto;
                }
                draft::merge(&mut known.chains, chains)
            }
            _ => {
                // What a service says twice itself is no conflict.
                draft::merge(&mut entry.chains, chains);
                self.0.insert(key, entry);
                false
            }
        }
    }

    /// Envoy's messages, by address and port.
    pub(super) fn write(self, scope: Scope<'_>) -> Vec<Listener> {
        self.0
            .into_values()
            .filter(|entry| !entry.chains.is_empty())
            .map(|entry| write(scope, entry))
            .collect()
    }
}

/// Envoy's message.
pub(super) fn write(scope: Scope<'_>, entry: Entry) -> Listener {
    let Entry { binds, port, binds_to_port, chains, .. } = entry;
    let name = format!("{}_{port}", binds.first().map_or("", String::as_str));
    let binds: Vec<&str> = binds.iter().map(String::as_str).collect();
    let mut listener = base(scope, name, &binds, port, TrafficDirection::Outbound);
    listener.continue_on_listener_filters_timeout = true;
    if binds_to_port {
        listener.max_connections_to_accept_per_socket_event = Some(1);
    } else {
        listener.bind_to_port = Some(false);
    }
    let needs_names =
        chains.iter().any(|draft| !draft.names.is_empty() || draft.filters.iter().any(reads_name));
    let needs_http = chains.iter().any(|draft| !draft.protocols.is_empty());
    listener.listener_filters = needs_names.then(tls_inspector).into_iter().collect();
    listener.listener_filters_timeout = seconds(0);
    if needs_http {
        listener.listener_filters.push(http_inspector());
        listener.listener_filters_timeout =
            scope.snapshot.mesh.protocol_detection_timeout.map(Into::into).or(seconds(0));
    }
    // A chain for everything else is the default one, so that a connection that
    // begins to match another is never lost.
    let (general, special): (Vec<Draft>, Vec<Draft>) = chains.into_iter().partition(Draft::is_general);
    listener.filter_chains = special.into_iter().map(Draft::write).collect();
    let general = general.into_iter().next().map(Draft::write);
    if listener.filter_chains.is_empty() {
        listener.filter_chains.extend(general);
    } else {
        listener.default_filter_chain = Some(general.unwrap_or_else(|| {
            // The port is shared: what nobody claims is for somebody else.
            chain("PassthroughFilterChain", Some(FilterChainMatch::default()), unknown(scope))
        }));
    }
    listener
}

fn reads_name(filter: &proto::envoy::config::listener::v3::Filter) -> bool {
    filter.name == super::native::NAME_FILTER
}
