//! Where modules are never fetched from. A resource names a URL, and a server
//! may lead on to others: without a guard, who writes resources could make
//! every pod ask its node's metadata server for credentials.
//!
//! Addresses are checked, not names, and the checked address is the one that
//! is connected to. Private networks are fine: modules are often served from
//! within the cluster.

use std::net::IpAddr;

use runtime::address::{self, Network, Special, is_local, plain};

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// Nobody may lead there.
    #[error(transparent)]
    Special(#[from] Special),
    /// In a network that was named.
    #[error("{0} is in {1} of BLOCKED_CIDRS_IN_WASM_FETCH")]
    Blocked(IpAddr, Network),
    /// Another server leads there.
    #[error("{0} is this pod itself, where another server leads to")]
    Loopback(IpAddr),
}

/// Decides about addresses.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// Networks that were named.
    pub(super) blocked: Vec<Network>,
}

impl Guard {
    /// Whether `ip` may be connected to; `from` is the address of the server
    /// that led there, if one did.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, ip: IpAddr, from: Option<IpAddr>) -> Result<(), Refused> {
        if let Some(special) = address::special(ip) {
            return Err(special.into());
        }
        let plain = plain(ip);
        if let Some(network) = self.blocked.iter().find(|network| network.contains(plain)) {
            return Err(Refused::Blocked(ip, *network));
        }
        if is_local(ip) && from.is_some_and(|from| !is_local(from)) {
            return Err(Refused::Loopback(ip));
        }
        Ok(())
    }
}

/// Whether that is an address of this pod, or of a private network.
pub(super) fn is_private(ip: IpAddr) -> bool {
    let ip = plain(ip);
    is_local(ip)
        || match ip {
            IpAddr::V4(v4) => v4.is_private(),
            IpAddr::V6(v6) => v6.is_unique_local(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(blocked: &[&str], ip: &str, from: Option<&str>) -> Result<(), Refused> {
        let guard = Guard { blocked: blocked.iter().map(|text| text.parse().unwrap()).collect() };
        guard.check(ip.parse().unwrap(), from.map(|ip| ip.parse().unwrap()))
    }

    #[test]
    fn metadata_servers_are_refused_however_they_are_written() {
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "169.254.0.1",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "ff02::1",
            "ff12::1",
            "100.100.100.200",
            "168.63.129.16",
            "64:ff9b::a83f:8110",
            "192.0.0.192",
            "fd20:ce::254",
            "fd00:ec2::254",
            "fd00:ec2::230",
        ] {
            assert!(check(&[], ip, None).is_err(), "{ip}");
        }
    }

    #[test]
    fn servers_of_the_cluster_and_of_the_world_are_fine() {
        for ip in
            ["10.0.0.1", "127.0.0.1", "8.8.8.8", "100.100.100.201", "fd00::1", "2001:db8::1", "225.0.0.1"]
        {
            assert_eq!(check(&[], ip, None), Ok(()), "{ip}");
        }
    }

    #[test]
    fn named_networks_are_refused() {
        let blocked = ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/32"];
        for ip in ["10.255.0.1", "2001:db8:1::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(matches!(check(&blocked, ip, None), Err(Refused::Blocked(..))), "{ip}");
        }
        for ip in ["11.0.0.1", "2001:db9::1", "0.0.0.1"] {
            assert_eq!(check(&blocked, ip, None), Ok(()), "{ip}");
        }
        assert!(check(&["0.0.0.0/0"], "8.8.8.8", None).is_err());
        assert!(check(&["0.0.0.0/0"], "::1", None).is_ok());
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_leads_to_this_pod_but_itself() {
        assert!(check(&[], "127.0.0.1", Some("8.8.8.8")).is_err());
        assert!(check(&[], "::1", Some("10.0.0.1")).is_err());
        assert!(check(&[], "0.0.0.0", Some("10.0.0.1")).is_err());
        assert!(check(&[], "127.0.0.2", Some("127.0.0.1")).is_ok());
        assert!(check(&[], "10.0.0.2", Some("10.0.0.1")).is_ok());
    }
}
