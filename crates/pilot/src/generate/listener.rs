//! Listeners (LDS).

mod bind;
mod bytes;
mod chain;
mod draft;
mod entry;
mod forward;
mod gateway;
mod inbound;
mod inspect;
mod native;
mod outbound;

use proto::envoy::config::core::v3::{Address, Pipe, TrafficDirection, address as specifier};
use proto::envoy::config::listener::v3::listener::ConnectionBalanceConfig;
use proto::envoy::config::listener::v3::listener::connection_balance_config::{BalanceType, ExactBalance};
use proto::envoy::config::listener::v3::{AdditionalAddress, Listener};

use super::Side;
use super::message::{address, seconds};
use crate::proxy::{Interception, Proxy};
use crate::scope::Scope;
use crate::snapshot::sidecar::SOCKET;

/// All listeners of a gateway.
pub(super) fn gateway(scope: Scope<'_>) -> Vec<Listener> {
    gateway::listeners(scope)
}

/// The listeners of one side of a proxy.
pub(super) fn side(scope: Scope<'_>, side: Side) -> Vec<Listener> {
    // Without a port for it there is no interception at all.
    if scope.snapshot.mesh.proxy_listen_port <= 0 {
        return Vec::new();
    }
    let redirects = scope.proxy.interception != Interception::None;
    match side {
        Side::Shared => {
            let mut listeners = outbound::listeners(scope);
            listeners.extend(outbound::http_proxy(scope));
            if redirects {
                listeners.push(outbound::catch_all(scope));
            }
            listeners
        }
        Side::Own => inbound::listeners(scope),
    }
}

/// Addresses of listeners that take connections to any, the main family first.
pub(super) fn wildcards(scope: Scope<'_>) -> &'static [&'static str] {
    let any = bind::any(scope.proxy);
    if scope.snapshot.settings.features.dual_stack { any } else { &any[..1] }
}

/// A listener at some addresses, the one it is known by first.
fn base(scope: Scope<'_>, name: String, binds: &[&str], port: u16, direction: TrafficDirection) -> Listener {
    let mut addresses = binds.iter().map(|bind| address_of(bind, port));
    let is_balanced = match direction {
        TrafficDirection::Inbound => scope.proxy.is_set("INBOUND_LISTENER_EXACT_BALANCE"),
        // Envoy cannot balance what it takes over from another listener.
        _ => name != "virtualOutbound" && scope.proxy.is_set("OUTBOUND_LISTENER_EXACT_BALANCE"),
    };
    let balance = ConnectionBalanceConfig { balance_type: Some(BalanceType::ExactBalance(ExactBalance {})) };
    Listener {
        name,
        address: addresses.next(),
        additional_addresses: addresses
            .map(|address| AdditionalAddress { address: Some(address), ..AdditionalAddress::default() })
            .collect(),
        traffic_direction: direction.into(),
        connection_balance_config: is_balanced.then_some(balance),
        ..Listener::default()
    }
}

fn address_of(bind: &str, port: u16) -> Address {
    match bind.strip_prefix(SOCKET) {
        Some(path) => {
            Address { address: Some(specifier::Address::Pipe(Pipe { path: path.into(), ..Pipe::default() })) }
        }
        None => address(bind, port),
    }
}

/// Sets how long listener filters may look at the first bytes.
fn set_detection_timeout(scope: Scope<'_>, listener: &mut Listener) {
    listener.listener_filters_timeout =
        scope.snapshot.mesh.protocol_detection_timeout.map(Into::into).or(seconds(0));
    listener.continue_on_listener_filters_timeout = true;
}

/// A port of the mesh's settings.
fn port_of(setting: i32, default: u16) -> u16 {
    u16::try_from(setting).ok().filter(|port| *port != 0).unwrap_or(default)
}

/// Whether listeners of the proxy itself have a port: those of its bootstrap, and
/// those that take what is redirected.
fn is_reserved(scope: Scope<'_>, port: u16) -> bool {
    let mesh = &scope.snapshot.mesh;
    [mesh.proxy_listen_port, mesh.proxy_inbound_listen_port].contains(&i32::from(port))
        || is_bootstrapped(scope.proxy, port)
}

/// Whether a listener of the proxy's bootstrap has a port.
fn is_bootstrapped(proxy: &Proxy, port: u16) -> bool {
    [
        "ENVOY_STATUS_PORT",
        "ENVOY_PROMETHEUS_PORT",
        "ENVOY_SECURE_METRICS_PORT",
        "ENVOY_SECURE_MERGED_METRICS_PORT",
    ]
    .iter()
    .any(|key| proxy.number(key) == Some(f64::from(port)))
}

/// Whether the proxy cannot open ports below 1024.
fn is_unprivileged(proxy: &Proxy) -> bool {
    proxy.is_set("UNPRIVILEGED_POD")
}

#[cfg(test)]
mod tests;
