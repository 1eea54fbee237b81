//! DNS requests to the agent: the redirection in `nat`, and zones of
//! connection tracking in `raw`.

use ipnet::IpNet;

use super::{Family, Table};
use crate::config::port::Ports;
use crate::config::{Config, Dns};
use crate::rule::{Match, Protocol, Rule, Target};

/// The chain of both tables.
pub(super) const CHAIN: &str = "ISTIO_OUTPUT_DNS";
const INBOUND: &str = "ISTIO_INBOUND";
const PORT: Ports = Ports::one(53);
const AGENT: Ports = Ports::one(names::port::AGENT_DNS);
/// The agent's requests to the servers.
const TO_SERVERS: u16 = 1;
/// The application's requests to the agent.
const TO_AGENT: u16 = 2;

/// Servers of a family whose requests are redirected: `None` is any server.
fn servers(config: &Config, family: Family) -> Vec<Option<IpNet>> {
    match &config.dns {
        None => Vec::new(),
        Some(Dns::All) => vec![None],
        Some(Dns::Servers(servers)) => {
            let networks = servers.iter().map(|&server| IpNet::from(server));
            networks.filter(|network| family.holds(network)).map(Some).collect()
        }
    }
}

/// Whether requests of a family are redirected.
pub(super) fn is_redirected(config: &Config, family: Family) -> bool {
    !servers(config, family).is_empty()
}

pub(super) fn redirect(config: &Config, family: Family, nat: &mut Table) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for server in servers(config, family) {
            let rule = Rule::new(Target::Redirect(names::port::AGENT_DNS)).protocol(protocol);
            let rule = rule.when(Match::Destination(PORT));
            nat.add(CHAIN, server.map_or_else(|| rule.clone(), |network| rule.clone().to(network)));
        }
    }
}

/// An application's request to the agent and the agent's own to the server may
/// have the same addresses and ports; in one zone their replies would be mixed up.
pub(super) fn zones(config: &Config, family: Family) -> Table {
    let mut raw = Table::new("raw");
    if config.dns.is_none() {
        return raw;
    }
    let udp = |zone| Rule::new(Target::Zone(zone)).protocol(Protocol::Udp);
    raw.add("OUTPUT", Rule::new(Target::Jump(CHAIN)));
    let uids = config.uids.iter().map(|&ids| Match::User(ids));
    let gids = config.gids.iter().map(|&ids| Match::Group(ids));
    for owner in uids.chain(gids) {
        raw.add(CHAIN, udp(TO_SERVERS).when(Match::Destination(PORT)).when(owner.clone()));
        raw.add(CHAIN, udp(TO_AGENT).when(Match::Source(AGENT)).when(owner));
    }
    let servers = servers(config, family);
    if !servers.is_empty() {
        raw.add("PREROUTING", Rule::new(Target::Jump(INBOUND)));
    }
    for server in servers {
        let request = udp(TO_AGENT).when(Match::Destination(PORT));
        let reply = udp(TO_SERVERS).when(Match::Source(PORT));
        let (request, reply) = match server {
            Some(network) => (request.to(network), reply.from(network)),
            None => (request, reply),
        };
        raw.add(CHAIN, request);
        raw.add(INBOUND, reply);
    }
    raw
}
