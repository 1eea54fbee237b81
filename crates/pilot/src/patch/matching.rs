//! Which piece of configuration a patch names.

use proto::envoy::config::listener::v3::{FilterChain, Listener};
use proto::istio::networking::v1alpha3::envoy_filter::envoy_config_object_match::ObjectTypes;
use proto::istio::networking::v1alpha3::envoy_filter::listener_match::FilterMatch;
use proto::istio::networking::v1alpha3::envoy_filter::{
    ApplyTo, ClusterMatch, ListenerMatch, RouteConfigurationMatch,
};

use crate::snapshot::envoy_filter::Patch;

pub(super) fn on_listener(patch: &Patch) -> Option<&ListenerMatch> {
    match &patch.matcher {
        Some(ObjectTypes::Listener(matcher)) => Some(matcher),
        _ => None,
    }
}

pub(super) fn on_cluster(patch: &Patch) -> Option<&ClusterMatch> {
    match &patch.matcher {
        Some(ObjectTypes::Cluster(matcher)) => Some(matcher),
        _ => None,
    }
}

pub(super) fn on_routes(patch: &Patch) -> Option<&RouteConfigurationMatch> {
    match &patch.matcher {
        Some(ObjectTypes::RouteConfiguration(matcher)) => Some(matcher),
        _ => None,
    }
}

/// The network filter that a patch names.
pub(super) fn filter(patch: &Patch) -> Option<&FilterMatch> {
    on_listener(patch)?.filter_chain.as_ref()?.filter.as_ref()
}

/// The HTTP filter that a patch names.
pub(super) fn http_filter(patch: &Patch) -> Option<&str> {
    filter(patch)?.sub_filter.as_ref().map(|inner| inner.name.as_str())
}

/// The listener filter that a patch names.
pub(super) fn listener_filter(patch: &Patch) -> Option<&str> {
    on_listener(patch).map(|matcher| matcher.listener_filter.as_str()).filter(|name| !name.is_empty())
}

/// Whether a network filter of that name is meant.
pub(super) fn is_filter(patch: &Patch, name: &str) -> bool {
    filter(patch).is_none_or(|matcher| matcher.name == name)
}

/// Listeners that take connections to all ports, which stand in their chains.
fn is_virtual(listener: &Listener) -> bool {
    ["virtualInbound", "virtualOutbound"].contains(&listener.name.as_str())
}

pub(super) fn listener(patch: &Patch, listener: &Listener) -> bool {
    use proto::envoy::config::core::v3::address::Address;
    use proto::envoy::config::core::v3::socket_address::PortSpecifier;
    let Some(matcher) = on_listener(patch) else { return true };
    if !matcher.name.is_empty() && matcher.name != listener.name {
        return false;
    }
    if matcher.port_number == 0 || patch.apply_to != ApplyTo::Listener && is_virtual(listener) {
        return true;
    }
    let address = listener.address.as_ref().and_then(|address| address.address.as_ref());
    matches!(address, Some(Address::SocketAddress(socket))
        if socket.port_specifier == Some(PortSpecifier::PortValue(matcher.port_number)))
}

/// The listener itself is matched already.
pub(super) fn chain(patch: &Patch, listener: &Listener, chain: &FilterChain) -> bool {
    let Some(matcher) = on_listener(patch) else { return true };
    let own = chain.filter_chain_match.as_ref();
    let port = own.and_then(|own| own.destination_port);
    if is_virtual(listener) && matcher.port_number != 0 && port != Some(matcher.port_number) {
        return false;
    }
    let Some(wanted) = &matcher.filter_chain else { return true };
    let has = |list: fn(&proto::envoy::config::listener::v3::FilterChainMatch) -> &Vec<String>,
               item: &str| {
        own.is_some_and(|own| list(own).iter().any(|known| known == item))
    };
    (wanted.name.is_empty() || wanted.name == chain.name)
        && (wanted.sni.is_empty() || has(|own| &own.server_names, &wanted.sni))
        && (wanted.transport_protocol.is_empty()
            || own.is_some_and(|own| own.transport_protocol == wanted.transport_protocol))
        && (wanted.application_protocols.is_empty()
            || wanted
                .application_protocols
                .split(',')
                .all(|name| has(|own| &own.application_protocols, name)))
        && (wanted.destination_port == 0 || port == Some(wanted.destination_port))
}
