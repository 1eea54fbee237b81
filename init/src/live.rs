//! Everything of ours that is in force in this network namespace, whichever
//! back end wrote it. Only reads.

use serde::Serialize;

use crate::config::Variant;
use crate::family::Family;
use crate::iptables::programs::{Lock, Programs};
use crate::iptables::ruleset::Ruleset;
use crate::iptables::{parse, programs};
use crate::simulate::Tables;
use crate::{detect, nft, passthrough, route};

/// What writes rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Writer {
    /// iptables rules in nf_tables.
    #[serde(rename = "iptables-nft")]
    IptablesNft,
    /// iptables rules in ip_tables.
    #[serde(rename = "iptables-legacy")]
    IptablesLegacy,
    /// Tables of our own in nf_tables.
    #[serde(rename = "nftables")]
    Native,
}

impl Writer {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Native => "nftables",
        }
    }
}

/// Rules of one writer.
#[derive(Clone, Debug)]
pub struct Found {
    /// Who wrote them.
    pub by: Writer,
    /// All rules that packets meet, of each family.
    pub tables: [Tables; 2],
    /// Number of rules that are ours, of each family; native rules for both
    /// count for each.
    pub ours: [usize; 2],
}

/// All that was found.
#[derive(Debug)]
pub struct Live {
    /// Rules of each writer that has any.
    pub found: Vec<Found>,
    /// Routes of TPROXY.
    pub routes: Vec<route::Live>,
    /// Whether `lo` has the address `::6`.
    pub has_passthrough: bool,
    /// What could not be read, and why.
    pub unknown: Vec<String>,
}

/// Reads everything.
///
/// # Errors
/// The kernel refused.
pub fn read() -> anyhow::Result<Live> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    let mut variants = vec![(Variant::Nft, Writer::IptablesNft)];
    // Asking would load legacy tables where there are none.
    if detect::has_legacy_tables() {
        variants.push((Variant::Legacy, Writer::IptablesLegacy));
    }
    for (variant, by) in variants {
        match iptables(variant) {
            Ok(rules) => {
                let ours = rules.each_ref().map(|rules| rules.ours(&Ruleset::default()).len());
                let tables = [0, 1].map(|index| rules[index].tables_of(Family::ALL[index]));
                if rules.iter().any(Ruleset::has_rules) {
                    found.push(Found { by, tables, ours });
                }
            }
            Err(error) => unknown.push(format!("{}: {error}", by.name())),
        }
    }
    match nft::read::ours() {
        Ok(ours) if !ours.is_empty() => found.push(native(&nft::raise::raise(&ours))),
        Ok(_) | Err(nft::Error::Absent) => {}
        Err(error) => unknown.push(format!("{}: {error}", Writer::Native.name())),
    }
    let has_passthrough = detect::addresses().iter().any(|address| *address == passthrough::ADDRESS);
    Ok(Live { found, routes: route::live()?, has_passthrough, unknown })
}

fn iptables(variant: Variant) -> Result<[Ruleset; 2], programs::Error> {
    let programs = Programs { variant: Some(variant), lock: Lock::Shared };
    let [v4, v6] = Family::ALL.map(|family| programs.read(family));
    Ok([Ruleset::parse(&v4?.text()?), Ruleset::parse(&v6?.text()?)])
}

fn native(chains: &[nft::raise::Chain]) -> Found {
    let mut found = Found { by: Writer::Native, tables: Default::default(), ours: [0, 0] };
    for (index, family) in Family::ALL.into_iter().enumerate() {
        for nft::raise::Chain { table, name, rules } in chains {
            let rules = rules.iter().filter(|rule| rule.as_ref().map_or(true, |rule| rule.is_for(family)));
            let rules: Vec<_> = rules.cloned().collect();
            found.ours[index] += rules.len();
            found.tables[index].add(table, name, rules);
        }
    }
    found
}

/// A family's rules of an iptables variant, read back.
impl Ruleset {
    fn tables_of(&self, family: Family) -> Tables {
        let mut tables = Tables::default();
        for table in self.tables() {
            for chain in &table.chains {
                let rules = chain.rules.iter().map(|rule| parse::parse(rule, family));
                let told = rules.zip(&chain.rules).map(|(rule, text)| rule.map_err(|_| text.clone()));
                tables.add(&table.name, &chain.name, told.collect());
            }
        }
        tables
    }
}
