//! Table `nat`: where connections are turned to Envoy.

use ipnet::IpNet;

use super::{INBOUND, OUTPUT as BUILT_IN_OUTPUT, PREROUTING, Table, dns, families};
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::config::{Config, Groups, Inbound, Interface, Outbound};
use crate::family::Family;
use crate::rule::{Match, Protocol, Rule, Target};

const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const OUTPUT: &str = "ISTIO_OUTPUT";
const REDIRECT: &str = "ISTIO_REDIRECT";
const DNS_PORT: u16 = 53;

pub(super) fn table(config: &Config) -> Table {
    let mut nat = Table::new("nat");
    let tcp = |target| Rule::new(target).protocol(Protocol::Tcp);
    nat.add(REDIRECT, tcp(Target::Redirect(config.envoy_port)));
    nat.add(IN_REDIRECT, tcp(Target::Redirect(config.inbound_port)));

    virtual_machines(config, &mut nat);
    nat.exclude(&config.interfaces_except);
    if config.inbound != Inbound::None && config.tproxy.is_none() {
        nat.add(PREROUTING, Rule::jump(INBOUND).protocol(Protocol::Tcp));
    }
    inbound(config, &mut nat);
    nat.add(BUILT_IN_OUTPUT, Rule::jump(OUTPUT));
    output(config, &mut nat);
    dns::redirect(config, &mut nat);
    nat
}

fn virtual_machines(config: &Config, nat: &mut Table) {
    // Traffic of a virtual machine enters from its interface, but is outbound.
    // Istio inserts each rule at the top: the last one stands first.
    let machines = || config.virtual_interfaces.iter().rev();
    let captured = match &config.outbound {
        Outbound::All => vec![None],
        Outbound::Only(networks) => {
            let networks = networks.iter().rev().filter(|network| is_captured(config, network));
            networks.copied().map(Some).collect()
        }
    };
    for network in captured {
        for interface in machines() {
            let rule = Rule::jump(REDIRECT).input(interface);
            nat.add(PREROUTING, network.into_iter().fold(rule, Rule::to));
        }
    }
    for interface in machines() {
        nat.add(PREROUTING, Rule::new(Target::Return).input(interface));
    }
}

/// Whether there are rules for a network's family.
fn is_captured(config: &Config, network: &IpNet) -> bool {
    families(config).any(|family| family == Family::of(network))
}

fn inbound(config: &Config, nat: &mut Table) {
    let to = |ports, target| Rule::new(target).protocol(Protocol::Tcp).when(Match::Destination(ports));
    // A tunnel is ended by Envoy itself.
    nat.add(INBOUND, to(Ports::one(config.tunnel_port), Target::Return));
    match &config.inbound {
        _ if config.tproxy.is_some() => {}
        Inbound::None => {}
        Inbound::All { except } => {
            for ports in except {
                nat.add(INBOUND, to(*ports, Target::Return));
            }
            nat.add(INBOUND, Rule::jump(IN_REDIRECT).protocol(Protocol::Tcp));
        }
        Inbound::Only(list) => {
            for ports in list {
                nat.add(INBOUND, to(*ports, Target::Jump(IN_REDIRECT.to_owned())));
            }
        }
    }
}

fn output(config: &Config, nat: &mut Table) {
    let lo = Interface::loopback();
    let mut add = |rule| nat.add(OUTPUT, rule);
    for ports in &config.outbound_ports_except {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            add(Rule::new(Target::Return).protocol(protocol).when(Match::Destination(*ports)));
        }
    }
    // Envoy's calls to the application must reach it and not come back to Envoy.
    for family in families(config) {
        add(Rule::new(Target::Return).from(family.passthrough()).output(&lo));
    }

    let uids = config.uids.iter().map(|&ids| Owner { ids, is_user: true });
    let gids = config.gids.iter().map(|&ids| Owner { ids, is_user: false });
    for owner in uids.chain(gids) {
        proxy(config, owner, &mut add);
    }
    match &config.groups {
        Groups::All { except } => {
            for &ids in except {
                add(Rule::new(Target::Return).when(Match::Group(ids)));
            }
        }
        Groups::Only(groups) => {
            let rule = Rule::new(Target::Return);
            add(groups.iter().fold(rule, |rule, &ids| rule.when(Match::NotGroup(ids))));
        }
    }
    for rule in dns::jumps(config) {
        add(rule);
    }
    // An application that calls localhost means itself.
    for family in families(config) {
        add(Rule::new(Target::Return).to(config.loopback(family)));
    }
    for network in config.outbound_except.iter().filter(|network| is_captured(config, network)) {
        add(Rule::new(Target::Return).to(*network));
    }
    for ports in &config.outbound_ports {
        add(Rule::jump(REDIRECT).protocol(Protocol::Tcp).when(Match::Destination(*ports)));
    }
    match &config.outbound {
        Outbound::All => add(Rule::jump(REDIRECT)),
        Outbound::Only(networks) => {
            for network in networks.iter().filter(|network| is_captured(config, network)) {
                add(Rule::jump(REDIRECT).to(*network));
            }
        }
    }
}

/// A user or a group of the proxy.
#[derive(Clone, Copy)]
struct Owner {
    ids: Ids,
    is_user: bool,
}

impl Owner {
    fn is(self) -> Match {
        if self.is_user { Match::User(self.ids) } else { Match::Group(self.ids) }
    }

    fn is_not(self) -> Match {
        if self.is_user { Match::NotUser(self.ids) } else { Match::NotGroup(self.ids) }
    }
}

/// The three rules about one owner of the proxy's traffic.
fn proxy(config: &Config, owner: Owner, add: &mut impl FnMut(Rule)) {
    let lo = Interface::loopback();
    let has_dns = config.dns.is_some();
    // Envoy calls the pod's own address: the application called itself by the
    // name of its service, which is inbound. With DNS, the agent's calls to a
    // resolver on this host are not.
    let other_ports = if has_dns && owner.is_user {
        Match::NotDestinations(vec![DNS_PORT, config.tunnel_port])
    } else {
        Match::NotDestination(Ports::one(config.tunnel_port))
    };
    for family in families(config) {
        let to_itself = Rule::jump(IN_REDIRECT).not_to(config.loopback(family)).output(&lo);
        add(to_itself.protocol(Protocol::Tcp).when(other_ports.clone()).when(owner.is()));
    }
    // The application talks to itself directly, unless loopback addresses are
    // to be captured. With DNS, requests to a resolver on this host go on to
    // the DNS rules.
    if !captures_loopback(config) {
        let rule = Rule::new(Target::Return).output(&lo);
        let rule = if has_dns {
            rule.protocol(Protocol::Tcp).when(Match::NotDestination(Ports::one(DNS_PORT)))
        } else {
            rule
        };
        add(rule.when(owner.is_not()));
    }
    // What the proxy sends never goes to the proxy.
    add(Rule::new(Target::Return).when(owner.is()));
}

fn captures_loopback(config: &Config) -> bool {
    match &config.outbound {
        Outbound::All => false,
        Outbound::Only(networks) => networks.iter().any(|network| network.addr().is_loopback()),
    }
}
