//! Where modules are never fetched from. A resource names a URL, and a server
//! may lead on to others: without a guard, who writes resources could make
//! every pod ask its node's metadata server for credentials.
//!
//! Addresses are checked, not names, and the checked address is the one that
//! is connected to. Private networks are fine: modules are often served from
//! within the cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network, written `ADDRESS/BITS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(drop)?;
        let bits = bits.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(()) } else { Ok(Self { address, bits }) }
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
pub(super) enum Refused {
    /// Only neighbours have such addresses.
    #[error("{0} is a link-local address, as metadata servers have")]
    LinkLocal(IpAddr),
    /// A metadata server of a cloud.
    #[error("{0} is a metadata server")]
    Metadata(IpAddr),
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
        let plain = plain(ip);
        let is_link_local = match plain {
            IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] & 0xff0f == 0xff02,
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
        if is_local(plain) && from.is_some_and(|from| !is_local(from)) {
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

/// The unspecified address leads to this machine, too.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
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
