//! Listeners (LDS).

mod chain;
mod inbound;
mod outbound;

use proto::envoy::config::core::v3::TrafficDirection;
use proto::envoy::config::listener::v3::Listener;

use super::message::{address, seconds};
use crate::proxy::Interception;
use crate::scope::Scope;

/// Address of listeners that take connections to any address.
const ANY: &str = "0.0.0.0";

/// All listeners of a proxy.
pub(super) fn listeners(scope: Scope<'_>) -> Vec<Listener> {
    let mut listeners = outbound::listeners(scope);
    if scope.proxy.interception != Interception::None {
        listeners.push(outbound::catch_all(scope));
        listeners.push(inbound::listener(scope));
    }
    listeners
}

fn base(name: String, ip: &str, port: u16, direction: TrafficDirection) -> Listener {
    Listener {
        name,
        address: Some(address(ip, port)),
        traffic_direction: direction.into(),
        ..Listener::default()
    }
}

/// Sets how long listener filters may look at the first bytes.
fn set_detection_timeout(scope: Scope<'_>, listener: &mut Listener) {
    listener.listener_filters_timeout =
        scope.snapshot.mesh.protocol_detection_timeout.map(Into::into).or(seconds(0));
    listener.continue_on_listener_filters_timeout = true;
}
