//! The wanted rules of a configuration, as a value.
//!
//! The rules and their order are Istio's (what each is for stands beside it),
//! so that tools and eyes that know them keep working.

mod dns;
mod mangle;
mod nat;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::config::Config;
use crate::rule::Rule;

/// Chains of ours begin with this; everything else is foreign.
pub const PREFIX: &str = "ISTIO_";

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether a network is of this family.
    pub fn holds(self, network: &IpNet) -> bool {
        match self {
            Self::V4 => network.addr().is_ipv4(),
            Self::V6 => network.addr().is_ipv6(),
        }
    }

    /// Addresses that are the pod itself.
    pub fn loopback(self, config: &Config) -> IpNet {
        match self {
            Self::V4 => config.loopback.into(),
            Self::V6 => IpNet::from(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST)),
        }
    }

    /// The address that Envoy calls the application from.
    pub fn passthrough(self) -> IpNet {
        match self {
            Self::V4 => IpNet::from(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6))),
            Self::V6 => IpNet::from(std::net::IpAddr::V6(crate::passthrough::ADDRESS)),
        }
    }
}

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
}

/// The wanted rules of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The family.
    pub family: Family,
    /// Tables that have rules.
    pub tables: Vec<Table>,
}

impl Plan {
    /// No rules: what a clean-up wants.
    pub fn nothing(family: Family) -> Self {
        Self { family, tables: Vec::new() }
    }

    /// The rules that a configuration asks for.
    pub fn of(config: &Config, family: Family) -> Self {
        let tables = [mangle::table(config), nat::table(config, family), dns::zones(config, family)];
        Self { family, tables: tables.into_iter().filter(|table| !table.chains.is_empty()).collect() }
    }
}
