//! The listener filters of inbound listeners: what looks at a connection before
//! its filter chain is chosen.

use std::collections::BTreeMap;

use proto::envoy::config::listener::v3::{FilterChain, ListenerFilter};
use proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use proto::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;

use super::chain::{PLAIN_HTTP, http_inspector, listener_filter, tls_inspector, to_other_ports, to_ports};
use crate::proxy::Interception;
use crate::scope::Scope;

/// Mark by which the kernel's rules know packets from the proxy that bear the client's address.
const MARK: u32 = 1337;

/// What chains of a port want to know.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    tls: bool,
    http: bool,
}

/// The filters for a listener with these chains. Each inspector is switched off
/// for ports where no chain needs it: looking at a server-first protocol would
/// wait for bytes that never come.
pub(super) fn filters(scope: Scope<'_>, chains: &[FilterChain], binds_to_port: bool) -> Vec<ListenerFilter> {
    let mut filters = Vec::new();
    if !binds_to_port {
        filters.push(listener_filter("envoy.filters.listener.original_dst", &OriginalDst::default()));
        if scope.proxy.interception == Interception::Tproxy {
            let config = OriginalSrc { mark: MARK, ..OriginalSrc::default() };
            filters.push(listener_filter("envoy.filters.listener.original_src", &config));
        }
    }
    // By port; 0 is for ports that no chain names.
    let mut needs: BTreeMap<u16, Needs> = BTreeMap::new();
    for matcher in chains.iter().filter_map(|chain| chain.filter_chain_match.as_ref()) {
        let port = matcher.destination_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let own = needs.entry(port).or_default();
        own.tls |= matcher.transport_protocol == "tls";
        own.http |= matcher.application_protocols.iter().any(|name| PLAIN_HTTP.contains(&name.as_str()));
    }
    if needs.values().any(|own| own.tls) {
        filters.push(tls(&needs));
    }
    // After the other: what is TLS is not looked at again.
    if needs.values().any(|own| own.http) {
        let off = needs.iter().filter(|(_, own)| !own.http).map(|(port, _)| *port);
        let off: Vec<u16> = off.collect();
        let disabled = (!off.is_empty()).then(|| to_ports(off.into_iter()));
        filters.push(ListenerFilter { filter_disabled: disabled, ..http_inspector() });
    }
    filters
}

fn tls(needs: &BTreeMap<u16, Needs>) -> ListenerFilter {
    let is_on = needs.get(&0).is_some_and(|own| own.tls);
    // Ports that differ from the rest.
    let ports: Vec<u16> =
        needs.iter().filter(|(port, own)| **port != 0 && own.tls != is_on).map(|(port, _)| *port).collect();
    let disabled = match (ports.is_empty(), is_on) {
        (true, _) => None,
        (false, true) => Some(to_ports(ports.into_iter())),
        (false, false) => Some(to_other_ports(ports.into_iter())),
    };
    ListenerFilter { filter_disabled: disabled, ..tls_inspector() }
}
