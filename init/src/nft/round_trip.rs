//! What is lowered comes back the same, for any configuration.

use proptest::prelude::*;

use super::lower::{lower, lower_rule};
use super::raise::{Chain, raise};
use crate::config::owner::Ids;
use crate::config::port::Ports;
use crate::config::{Config, Dns, Facts, Groups, Inbound, Interface, Outbound, Tproxy, env};
use crate::plan::{Plan, TO_ITSELF};
use crate::rule::{Match, Protocol, Rule, State, Target};

fn ports() -> impl Strategy<Value = Ports> {
    prop_oneof![
        any::<u16>().prop_map(Ports::one),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Ports::range(a.min(b), a.max(b))),
    ]
}

fn ids() -> impl Strategy<Value = Ids> {
    let id = 0..u32::MAX;
    prop_oneof![
        id.clone().prop_map(Ids::one),
        (id.clone(), id).prop_map(|(a, b)| Ids::range(a.min(b), a.max(b))),
    ]
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![
        (any::<u32>(), 0..=32_u8).prop_map(|(address, prefix)| ipnet::IpNet::new(
            std::net::Ipv4Addr::from(address).into(),
            prefix
        )),
        (any::<u128>(), 0..=128_u8).prop_map(|(address, prefix)| ipnet::IpNet::new(
            std::net::Ipv6Addr::from(address).into(),
            prefix
        )),
    ]
    .prop_map(|network| network.unwrap().trunc())
}

fn interface() -> impl Strategy<Value = Interface> {
    "[a-z]{1,8}[0-9]{0,3}\\+?|\\+".prop_map(|text| Interface::parse(&text).unwrap())
}

fn list<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(item, 0..4)
}

fn dns() -> impl Strategy<Value = Option<Dns>> {
    let servers = list(network().prop_map(|network| network.addr())).prop_map(|it| Some(Dns::Servers(it)));
    prop_oneof![Just(None), Just(Some(Dns::All)), servers]
}

prop_compose! {
    fn config()(
        (uids, gids, groups, except) in (list(ids()), list(ids()), list(ids()), any::<bool>()),
        (inbound, all) in (list(ports()), any::<bool>()),
        (outbound, outbound_all, outbound_except) in (list(network()), any::<bool>(), list(network())),
        (outbound_ports, outbound_ports_except) in (list(ports()), list(ports())),
        (interfaces_except, virtual_interfaces) in (list(interface()), list(interface())),
        (dns, drop_invalid, mark) in (dns(), any::<bool>(), proptest::option::of(1..u32::MAX)),
        (ipv6, guard, tunnel_port) in (any::<bool>(), any::<bool>(), any::<u16>()),
    ) -> Config {
        let facts = Facts { addresses: vec!["10.0.0.1".parse().unwrap()], ..Facts::default() };
        let (args, only, _) = env::complete(crate::args::Args::default(), |_| None);
        Config {
            uids,
            gids,
            groups: if except { Groups::All { except: groups } } else { Groups::Only(groups) },
            inbound: match (all, inbound.is_empty()) {
                (true, _) => Inbound::All { except: inbound },
                (false, true) => Inbound::None,
                (false, false) => Inbound::Only(inbound),
            },
            outbound: if outbound_all { Outbound::All } else { Outbound::Only(outbound) },
            outbound_except,
            outbound_ports,
            outbound_ports_except,
            interfaces_except,
            virtual_interfaces,
            dns,
            drop_invalid,
            tproxy: mark.filter(|&mark| mark != TO_ITSELF).map(|mark| Tproxy { mark, table: 133 }),
            ipv6,
            guard: guard && !ipv6,
            tunnel_port,
            ..Config::resolve(&args, &only, &facts).unwrap()
        }
    }
}

/// A rule less what native mode does not say, with what it says besides.
fn as_native(mut rule: Rule) -> Rule {
    if rule.source.is_none() && rule.destination.is_none() {
        rule.family = None;
    }
    for interface in [&mut rule.input, &mut rule.output] {
        interface.take_if(|interface| interface.is_any());
    }
    if rule.matches.contains(&Match::State(State::Invalid)) {
        rule.protocol = Some(Protocol::Tcp);
    }
    for condition in &mut rule.matches {
        if let Match::NotDestinations(ports) = condition {
            ports.sort_unstable();
            ports.dedup();
        }
    }
    rule
}

/// The chains of a plan, as they should come back.
fn chains_of(plan: &Plan) -> Vec<Chain> {
    let chains = plan.tables.iter().flat_map(|table| {
        table.chains.iter().map(|chain| {
            let mut rules: Vec<Rule> = chain.rules.iter().cloned().map(as_native).collect();
            let is_built_in = [crate::plan::PREROUTING, crate::plan::OUTPUT].contains(&chain.name);
            if plan.guard && is_built_in {
                rules.insert(0, Rule::new(Target::Return).only(crate::family::Family::V6));
            }
            Chain {
                table: table.name.to_owned(),
                name: chain.name.to_owned(),
                rules: rules.into_iter().map(Ok).collect(),
            }
        })
    });
    chains.collect()
}

proptest! {
    #[test]
    fn a_plan_comes_back(config in config()) {
        let plan = Plan::of(&config);
        let mut wanted = chains_of(&plan);
        let raised = raise(&lower(&plan));
        // The one rule whose place differs between the modes.
        if plan.ipv6 {
            for (wanted, raised) in wanted.iter_mut().zip(&raised) {
                if (wanted.table.as_str(), wanted.name.as_str()) == ("mangle", "ISTIO_INBOUND") {
                    prop_assert_ne!(&wanted.rules, &raised.rules);
                    wanted.rules[1..4].rotate_left(1);
                }
            }
        }
        prop_assert_eq!(raised, wanted);
    }

    #[test]
    fn what_comes_back_lowers_to_the_same(config in config()) {
        let lowered = lower(&Plan::of(&config));
        for (table, raised) in lowered.tables.iter().flat_map(|table| &table.chains).zip(raise(&lowered)) {
            for (rule, raised) in table.rules.iter().zip(raised.rules) {
                let raised = raised.unwrap();
                // A family alone is not said of rules without addresses.
                if raised.family.is_none() || raised.source.is_some() || raised.destination.is_some() {
                    prop_assert_eq!(&lower_rule(&raised_table(&lowered, table), &raised), rule);
                }
            }
        }
    }
}

fn raised_table(lowered: &super::ruleset::Ruleset, chain: &super::ruleset::Chain) -> String {
    let table = lowered.tables.iter().find(|table| table.chains.iter().any(|it| std::ptr::eq(it, chain)));
    table.unwrap().name.replace(super::ruleset::PREFIX, "")
}
