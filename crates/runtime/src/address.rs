//! Addresses that must not be connected to on somebody else's word. Who may
//! write an object names a server that our programs ask: without a guard, that
//! could be what only they can reach, such as their node's metadata server.
//!
//! To be asked about addresses, not names, and about the one that is connected
//! to.

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
    /// Whether an address, as [`plain`] has it, is in the network.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
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

/// An address that nobody else may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Special {
    /// Only neighbors have such addresses.
    #[error("{0} is a link-local address, as metadata servers have")]
    LinkLocal(IpAddr),
    /// A metadata server of a cloud.
    #[error("{0} is a metadata server")]
    Metadata(IpAddr),
}

/// What is special about an address, however it is written.
#[must_use]
pub fn special(ip: IpAddr) -> Option<Special> {
    let plain = plain(ip);
    let is_link_local = match plain {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[..3] == [224, 0, 0] || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] & 0xff0f == 0xff02,
    };
    if is_link_local {
        return Some(Special::LinkLocal(ip));
    }
    METADATA.iter().any(|network| network.contains(plain)).then_some(Special::Metadata(ip))
}

/// Whether that is an address of this machine. The unspecified address leads
/// there, too.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    let ip = plain(ip);
    ip.is_loopback() || ip.is_unspecified()
}

/// An IPv4 address in an IPv6 one leads where the IPv4 address does.
#[must_use]
pub fn plain(ip: IpAddr) -> IpAddr {
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

    #[test]
    fn metadata_servers_are_special_however_they_are_written() {
        for ip in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "224.0.0.1",
            "255.255.255.255",
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
            assert!(special(ip.parse().unwrap()).is_some(), "{ip}");
        }
        for ip in
            ["10.0.0.1", "127.0.0.1", "8.8.8.8", "100.100.100.201", "fd00::1", "2001:db8::1", "225.0.0.1"]
        {
            assert_eq!(special(ip.parse().unwrap()), None, "{ip}");
        }
    }

    #[test]
    fn this_machine_has_many_addresses() {
        for ip in ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_local("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn networks_have_an_address_and_bits() {
        let is_in = |network: &str, ip: &str| {
            network.parse::<Network>().unwrap().contains(plain(ip.parse().unwrap()))
        };
        for (network, ip) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("0.0.0.0/32", "0.0.0.0"),
            ("0.0.0.0/0", "8.8.8.8"),
        ] {
            assert!(is_in(network, ip), "{network} {ip}");
        }
        for (network, ip) in
            [("10.0.0.0/8", "11.0.0.1"), ("2001:db8::/32", "2001:db9::1"), ("0.0.0.0/0", "::1")]
        {
            assert!(!is_in(network, ip), "{network} {ip}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "::/129", "a/8", "10.0.0.0/-1", ""] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
