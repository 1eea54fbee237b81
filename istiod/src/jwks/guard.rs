//! Where keys are never fetched from. Who may write a RequestAuthentication
//! names a URI that istiod asks: without a guard, that could be what only
//! istiod can reach, such as its node's metadata server.
//!
//! Addresses are checked, not names, and the checked address is the one that
//! is connected to. Private networks are fine: issuers are often in the cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, written `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected networks such as 10.0.0.0/8, separated by commas")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = text.split_once('/').ok_or(NoNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let bits = bits.parse().map_err(|_| NoNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(NoNetwork) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Network {
    fn contains(self, ip: IpAddr) -> bool {
        // Aligned left, so that both families shift alike.
        let left = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        let shift = 128 - u32::from(self.bits);
        self.address.is_ipv4() == ip.is_ipv4()
            && left(self.address).checked_shr(shift) == left(ip).checked_shr(shift)
    }
}

/// Metadata servers of clouds outside the link-local networks: Alibaba's,
/// Azure's, Oracle's, Google's over IPv6, and Amazon's IPv6 network of such services.
const METADATA: [Network; 5] = [
    Network { address: IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), bits: 32 },
    Network { address: IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), bits: 32 },
    Network { address: IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), bits: 32 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), bits: 128 },
    Network { address: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0)), bits: 32 },
];
/// IPv4 addresses as NAT64 writes them.
const NAT64: Network =
    Network { address: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)), bits: 96 };

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only neighbors have such addresses.
    #[error("{0} is a link-local address, as metadata servers have")]
    LinkLocal(IpAddr),
    /// A metadata server of a cloud.
    #[error("{0} is a metadata server")]
    Metadata(IpAddr),
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
        let plain = plain(ip);
        let is_link_local = match plain {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
        };
        if is_link_local {
            return Err(Refused::LinkLocal(ip));
        }
        if METADATA.iter().any(|network| network.contains(plain)) {
            return Err(Refused::Metadata(ip));
        }
        if let Some(network) = self.blocked.iter().find(|network| network.contains(plain)) {
            return Err(Refused::Blocked(ip, *network));
        }
        // The unspecified address leads to this machine, too.
        if !self.allows_loopback && (plain.is_loopback() || plain.is_unspecified()) {
            return Err(Refused::Loopback(ip));
        }
        Ok(())
    }
}

/// An IPv4 address in an IPv6 one leads where the IPv4 address does.
fn plain(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if NAT64.contains(ip) => {
            let [.., a, b, c, d] = v6.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(blocked: &[&str], allows_loopback: bool) -> Guard {
        Guard { blocked: blocked.iter().map(|text| text.parse().unwrap()).collect(), allows_loopback }
    }

    #[test]
    fn metadata_servers_and_this_machine_are_refused_however_they_are_written() {
        for ip in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "100.100.100.200",
            "64:ff9b::a83f:8110",
            "fd20:ce::254",
            "fd00:ec2::254",
        ] {
            assert!(guard(&[], true).check(ip.parse().unwrap()).is_err(), "{ip}");
        }
        for ip in ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert!(guard(&[], false).check(ip.parse().unwrap()).is_err(), "{ip}");
            assert_eq!(guard(&[], true).check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
    }

    #[test]
    fn issuers_of_the_cluster_and_of_the_world_are_fine_unless_they_are_named() {
        for ip in ["10.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert_eq!(guard(&[], false).check(ip.parse().unwrap()), Ok(()), "{ip}");
        }
        let blocked = guard(&["10.0.0.0/8", "2001:db8::/32"], false);
        for ip in ["10.255.0.1", "::ffff:10.0.0.1", "2001:db8:1::1"] {
            assert!(matches!(blocked.check(ip.parse().unwrap()), Err(Refused::Blocked(..))), "{ip}");
        }
        assert_eq!(blocked.check("11.0.0.1".parse().unwrap()), Ok(()));
        for text in ["10.0.0.0", "10.0.0.0/33", "a/8", ""] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
