//! The wanted rules of a configuration, as a value for both families and every
//! back end.
//!
//! The rules and their order are Istio's (what each is for stands beside it),
//! so that tools and eyes that know them keep working.

mod dns;
mod mangle;
mod nat;

use crate::config::{Config, Inbound, Interface, Tproxy};
use crate::family::Family;
use crate::rule::{Rule, Target};

/// Chains of ours begin with this; everything else is foreign.
pub const PREFIX: &str = "ISTIO_";
/// The kernel's chains that rules are put in.
pub const PREROUTING: &str = "PREROUTING";
/// As above.
pub const OUTPUT: &str = "OUTPUT";
/// Marks what Envoy sends to an address of its own pod, which TPROXY captures.
pub const TO_ITSELF: u32 = 1338;
/// The chain of inbound traffic, in each table that has one.
const INBOUND: &str = "ISTIO_INBOUND";

/// A chain and its wanted rules. Of a built-in chain only our own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// A table and its wanted chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Chains that have rules, in no particular order.
    pub chains: Vec<Chain>,
}

impl Table {
    fn new(name: &'static str) -> Self {
        Self { name, chains: Vec::new() }
    }

    /// Adds a rule at the end of a chain.
    fn add(&mut self, chain: &'static str, rule: Rule) {
        match self.chains.iter_mut().find(|known| known.name == chain) {
            Some(known) => known.rules.push(rule),
            None => self.chains.push(Chain { name: chain, rules: vec![rule] }),
        }
    }

    /// Leaves interfaces alone: the first rules of the kernel's chains.
    fn exclude(&mut self, interfaces: &[Interface]) {
        for interface in interfaces {
            self.add(PREROUTING, Rule::new(Target::Return).input(interface));
            self.add(OUTPUT, Rule::new(Target::Return).output(interface));
        }
    }
}

/// Routes marked packets to this machine: what TPROXY needs beside its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The mark.
    pub mark: u32,
    /// The table that sends everything to `lo`.
    pub table: u32,
}

/// The wanted state of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Whether there are rules for IPv6, and the address `::6`.
    pub ipv6: bool,
    /// Whether rules for both families must be kept from IPv6 where one set of
    /// rules sees both: the pod has IPv6 addresses, but IPv6 is off.
    pub guard: bool,
    /// Tables that have rules.
    pub tables: Vec<Table>,
    /// The route of TPROXY, in each family that has rules.
    pub route: Option<Route>,
}

impl Plan {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Self {
        let tables = [mangle::table(config), nat::table(config), dns::zones(config)];
        Self {
            ipv6: config.ipv6,
            guard: config.guard,
            tables: tables.into_iter().filter(|table| !table.chains.is_empty()).collect(),
            route: config
                .tproxy
                .filter(|_| config.inbound != Inbound::None)
                .map(|Tproxy { mark, table }| Route { mark, table }),
        }
    }

    /// Whether there are rules for a family.
    pub fn has(&self, family: Family) -> bool {
        !self.tables.is_empty() && (family == Family::V4 || self.ipv6)
    }
}

/// Each family that has rules.
fn families(config: &Config) -> impl Iterator<Item = Family> {
    Family::ALL.into_iter().filter(|&family| family == Family::V4 || config.ipv6)
}
