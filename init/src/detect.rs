//! Facts about the system, found by reading only.

use std::fs;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::config::{Facts, Variant};
use crate::family::Family;
use crate::iptables::programs::{Error, Lock, Programs};
use crate::iptables::ruleset::Ruleset;

/// Gathers the facts that the configuration is read against.
pub fn facts() -> Facts {
    let read = |path: &str| fs::read_to_string(path);
    Facts {
        passwd: read("/etc/passwd").unwrap_or_default(),
        group: read("/etc/group").unwrap_or_default(),
        services: read("/etc/services").unwrap_or_default(),
        resolv_conf: read("/etc/resolv.conf").map_err(|error| error.to_string()),
        addresses: addresses(),
    }
}

/// Addresses of all interfaces in the kernel's order: IPv4 before IPv6.
pub fn addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| ip(&interface.address?));
    addresses.collect()
}

/// The interface that has an address.
pub fn interface_of(address: IpAddr) -> Option<String> {
    let mut interfaces = getifaddrs().ok()?;
    let has = |storage: Option<SockaddrStorage>| storage.as_ref().and_then(ip) == Some(address);
    interfaces.find(|interface| has(interface.address)).map(|interface| interface.interface_name)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// The programs to use, why, and the IPv4 rules in force.
pub struct Choice {
    /// The programs.
    pub programs: Programs,
    /// Why these.
    pub why: &'static str,
    /// IPv4 rules in force.
    pub v4: Ruleset,
    /// IPv6 rules in force.
    pub v6: Ruleset,
}

/// Chooses the programs: the ones told; else those that hold our rules, or
/// any; else nft, legacy, plain, whichever is there.
///
/// # Errors
/// No program works.
pub fn choose(forced: Option<Variant>, lock: Lock, needs_v6: bool, has_v6: bool) -> Result<Choice, Error> {
    let programs = |variant| Programs { variant, lock };
    if let Some(variant) = forced {
        return read(programs(Some(variant)), "as told", needs_v6, has_v6);
    }
    let legacy = programs(Some(Variant::Legacy));
    let nft = read(programs(Some(Variant::Nft)), "the default", needs_v6, has_v6);
    if is_ours(&nft) {
        return nft.map(|choice| Choice { why: "it holds our rules", ..choice });
    }
    // Asking would load legacy tables where there are none.
    if has_legacy_tables() {
        let found = read(legacy, "it holds our rules", needs_v6, has_v6);
        if is_ours(&found) {
            return found;
        }
        if found.as_ref().is_ok_and(|choice| choice.v4.has_rules() || choice.v6.has_rules()) {
            return found.map(|choice| Choice { why: "it holds rules", ..choice });
        }
    }
    let nft = match nft {
        Ok(choice) => return Ok(choice),
        // No other program is allowed more.
        Err(error) if error.is_forbidden() => return Err(error),
        Err(error) => error,
    };
    let why = if nft.is_missing() { "there is no nft variant" } else { "the nft variant does not work" };
    tracing::debug!("{nft}");
    match read(legacy, why, needs_v6, has_v6) {
        Err(error) if error.is_missing() && nft.is_missing() => read(programs(None), why, needs_v6, has_v6),
        // The first choice's failure says more than that of the stopgap.
        Err(error) if error.is_missing() => Err(nft),
        found => found,
    }
}

fn is_ours(choice: &Result<Choice, Error>) -> bool {
    let nothing = Ruleset::default();
    choice
        .as_ref()
        .is_ok_and(|choice| [&choice.v4, &choice.v6].iter().any(|rules| !rules.ours(&nothing).is_empty()))
}

/// Reads the rules of both families side by side.
fn read(programs: Programs, why: &'static str, needs_v6: bool, has_v6: bool) -> Result<Choice, Error> {
    let v4 = programs.read(Family::V4)?;
    let v6 = (needs_v6 || has_v6).then(|| programs.read(Family::V6));
    let v4 = Ruleset::parse(&v4.text()?);
    let v6 = match v6.map(|reading| reading?.text()) {
        Some(Ok(text)) => Ruleset::parse(&text),
        Some(Err(error)) if needs_v6 => return Err(error),
        Some(Err(error)) => {
            tracing::debug!("IPv6 rules in force are not known: {error}");
            Ruleset::default()
        }
        None => Ruleset::default(),
    };
    Ok(Choice { programs, why, v4, v6 })
}

/// Whether legacy tables exist in this network namespace. A kernel without
/// them has no such file.
pub fn has_legacy_tables() -> bool {
    ["/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|names| !names.trim().is_empty()))
}
