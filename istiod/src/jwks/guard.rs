//! Where keys are never fetched from. Private networks are fine: issuers are
//! often in the cluster.

use std::net::IpAddr;

use runtime::address::{self, Network, Special};

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody may lead there.
    #[error(transparent)]
    Special(#[from] Special),
    /// In a network that was named.
    #[error("{0} is in {1} of BLOCKED_CIDRS_IN_JWKS_URIS")]
    Blocked(IpAddr, Network),
    /// This machine.
    #[error("{0} is this machine itself; ISTIOD_JWKS_ALLOW_LOOPBACK=true allows it")]
    Loopback(IpAddr),
}

/// Decides about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    /// Networks that were named.
    pub blocked: Vec<Network>,
    /// Whether this machine may be asked.
    pub allows_loopback: bool,
}

impl Guard {
    /// Whether `ip` may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        if let Some(special) = address::special(ip) {
            return Err(special.into());
        }
        let plain = address::plain(ip);
        if let Some(network) = self.blocked.iter().find(|network| network.contains(plain)) {
            return Err(Refused::Blocked(ip, *network));
        }
        if !self.allows_loopback && address::is_local(ip) {
            return Err(Refused::Loopback(ip));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(blocked: &[&str], allows_loopback: bool) -> Guard {
        Guard { blocked: blocked.iter().map(|text| text.parse().unwrap()).collect(), allows_loopback }
    }

    #[test]
    fn metadata_servers_are_refused_and_this_machine_unless_it_is_allowed() {
        for ip in ["169.254.169.254", "64:ff9b::a83f:8110"] {
            assert!(guard(&[], true).check(ip.parse().unwrap()).is_err(), "{ip}");
        }
        for ip in ["127.0.0.1", "::1", "0.0.0.0"] {
            assert!(guard(&[], false).check(ip.parse().unwrap()).is_err(), "{ip}");
            assert_eq!(guard(&[], true).check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
    }

    #[test]
    fn issuers_of_the_cluster_and_of_the_world_are_fine_unless_they_are_named() {
        for ip in ["10.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert_eq!(guard(&[], false).check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
        let blocked = guard(&["10.0.0.0/8"], false);
        let refused = blocked.check("::ffff:10.0.0.1".parse().unwrap());
        assert!(matches!(refused, Err(Refused::Blocked(..))), "{refused:?}");
    }
}
