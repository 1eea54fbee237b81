//! DNS requests to the agent: the redirection in `nat`, and zones of
//! connection tracking in `raw`.

use ipnet::IpNet;

use super::{INBOUND, OUTPUT, PREROUTING, Table, families};
use crate::config::port::Ports;
use crate::config::{Config, Dns};
use crate::family::Family;
use crate::rule::{Match, Protocol, Rule, Target};

/// The chain of both tables.
const CHAIN: &str = "ISTIO_OUTPUT_DNS";
const PORT: Ports = Ports::one(53);
const AGENT: Ports = Ports::one(names::port::AGENT_DNS);
/// The agent's requests to the servers.
const TO_SERVERS: u16 = 1;
/// The application's requests to the agent.
const TO_AGENT: u16 = 2;

/// Servers whose requests are redirected: `None` is any server.
fn servers(config: &Config) -> Vec<Option<IpNet>> {
    match &config.dns {
        None => Vec::new(),
        Some(Dns::All) => vec![None],
        Some(Dns::Servers(servers)) => {
            let networks = servers.iter().map(|&server| IpNet::from(server));
            let captured = networks.filter(|network| families(config).any(|it| it == Family::of(network)));
            captured.map(Some).collect()
        }
    }
}

/// A rule for those families that have servers.
fn where_redirected(config: &Config, rule: &Rule) -> Vec<Rule> {
    let servers = servers(config);
    let all = servers.contains(&None);
    let has = |family| servers.iter().flatten().any(|network| Family::of(network) == family);
    match families(config).filter(|&family| all || has(family)).collect::<Vec<_>>()[..] {
        [_, _] => vec![rule.clone()],
        [family] => vec![rule.clone().only(family)],
        _ => Vec::new(),
    }
}

/// The way to the redirection.
pub(super) fn jumps(config: &Config) -> Vec<Rule> {
    where_redirected(config, &Rule::jump(CHAIN))
}

pub(super) fn redirect(config: &Config, nat: &mut Table) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for server in servers(config) {
            let rule = Rule::new(Target::Redirect(names::port::AGENT_DNS)).protocol(protocol);
            let rule = rule.when(Match::Destination(PORT));
            nat.add(CHAIN, server.into_iter().fold(rule, Rule::to));
        }
    }
}

/// An application's request to the agent and the agent's own to the server may
/// have the same addresses and ports; in one zone their replies would be mixed up.
pub(super) fn zones(config: &Config) -> Table {
    let mut raw = Table::new("raw");
    if config.dns.is_none() {
        return raw;
    }
    let udp = |zone| Rule::new(Target::Zone(zone)).protocol(Protocol::Udp);
    raw.add(OUTPUT, Rule::jump(CHAIN));
    let uids = config.uids.iter().map(|&ids| Match::User(ids));
    let gids = config.gids.iter().map(|&ids| Match::Group(ids));
    for owner in uids.chain(gids) {
        raw.add(CHAIN, udp(TO_SERVERS).when(Match::Destination(PORT)).when(owner.clone()));
        raw.add(CHAIN, udp(TO_AGENT).when(Match::Source(AGENT)).when(owner));
    }
    for rule in where_redirected(config, &Rule::jump(INBOUND)) {
        raw.add(PREROUTING, rule);
    }
    for server in servers(config) {
        let request = udp(TO_AGENT).when(Match::Destination(PORT));
        let reply = udp(TO_SERVERS).when(Match::Source(PORT));
        raw.add(CHAIN, server.into_iter().fold(request, Rule::to));
        raw.add(INBOUND, server.into_iter().fold(reply, Rule::from));
    }
    raw
}
