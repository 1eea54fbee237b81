//! `MeshNetworks`: which networks a mesh spans and by which gateways each is entered.

use std::net::IpAddr;
use std::ops::Deref;

use proto::istio::mesh::v1alpha1 as api;
use proto::istio::mesh::v1alpha1::network::istio_network_gateway::Gw;
use proto::istio::mesh::v1alpha1::network::network_endpoints::Ne;

use crate::check;
use crate::yaml::{self, Error};

/// Networks by name; none unless the mesh spans several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshNetworks {
    api: api::MeshNetworks,
    /// What has no effect, in words.
    pub warnings: Vec<String>,
}

/// A range of addresses, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    bits: u8,
}

/// A gateway with an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway<'a> {
    /// Network that it leads into.
    pub network: &'a str,
    /// Its address, or its host name.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
}

impl Deref for MeshNetworks {
    type Target = api::MeshNetworks;

    fn deref(&self) -> &api::MeshNetworks {
        &self.api
    }
}

impl MeshNetworks {
    /// Reads networks from YAML (`networks: NAME: {endpoints, gateways}`).
    ///
    /// # Errors
    /// When the text is no YAML, or a field has a value that it cannot have.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        let over = yaml::parse(text)?;
        let (api, unknown) = yaml::overlay(&api::MeshNetworks::default(), &over, yaml::Rules::default())?;
        let warnings = unknown.into_iter().map(|name| format!("{name} does not exist")).collect();
        for (name, network) in &api.networks {
            for (index, endpoints) in network.endpoints.iter().enumerate() {
                let at = format!("networks.{name}.endpoints[{index}]");
                match &endpoints.ne {
                    Some(Ne::FromCidr(range)) if range.parse::<Range>().is_err() => {
                        return Err(Error::Field(format!(
                            "{at}.fromCidr: {range:?} is not a range of addresses: expected one such as 10.0.0.0/8"
                        )));
                    }
                    Some(Ne::FromRegistry(name)) if name.is_empty() => {
                        return Err(Error::Field(format!("{at}.fromRegistry is empty: name a cluster")));
                    }
                    None => return Err(Error::Field(format!("{at}: give fromCidr or fromRegistry"))),
                    Some(_) => {}
                }
            }
            for (index, gateway) in network.gateways.iter().enumerate() {
                let at = format!("networks.{name}.gateways[{index}]");
                if gateway.port == 0 || gateway.port > 65535 {
                    return Err(Error::Field(format!(
                        "{at}.port: {} is not a port: expected 1 to 65535",
                        gateway.port
                    )));
                }
                match &gateway.gw {
                    Some(Gw::Address(address)) if !is_reachable(address) => {
                        return Err(Error::Field(format!(
                            "{at}.address: {address:?} is neither an IP address nor a host name: expected one such \
                             as 198.51.100.1 or gateway.example.com"
                        )));
                    }
                    None => return Err(Error::Field(format!("{at}: give address or registryServiceName"))),
                    Some(_) => {}
                }
            }
        }
        Ok(Self { api, warnings })
    }

    /// The network that all endpoints of a cluster are in.
    #[must_use]
    pub fn of_registry(&self, cluster_id: &str) -> Option<&str> {
        self.api
            .networks
            .iter()
            .find(|(_, network)| has_registry(network, cluster_id))
            .map(|(name, _)| name.as_str())
    }

    /// Ranges of addresses with their networks.
    pub fn ranges(&self) -> impl Iterator<Item = (Range, &str)> {
        self.api.networks.iter().flat_map(|(name, network)| {
            network.endpoints.iter().filter_map(|endpoints| match &endpoints.ne {
                Some(Ne::FromCidr(range)) => Some((range.parse().ok()?, name.as_str())),
                _ => None,
            })
        })
    }

    /// Gateways with an address or a host name.
    pub fn gateways(&self) -> impl Iterator<Item = Gateway<'_>> {
        self.api.networks.iter().flat_map(|(name, network)| {
            network.gateways.iter().filter_map(|gateway| match &gateway.gw {
                Some(Gw::Address(address)) => {
                    Some(Gateway { network: name, address, port: u16::try_from(gateway.port).ok()? })
                }
                _ => None,
            })
        })
    }

    /// Networks that a service of a cluster is the gateway of, with its port.
    pub fn gateways_by_service<'a>(
        &'a self,
        cluster_id: &'a str,
        host: &'a str,
    ) -> impl Iterator<Item = (&'a str, u16)> {
        let of_cluster =
            self.api.networks.iter().filter(move |(_, network)| has_registry(network, cluster_id));
        of_cluster.flat_map(move |(name, network)| {
            network.gateways.iter().filter_map(move |gateway| match &gateway.gw {
                Some(Gw::RegistryServiceName(service)) if service == host => {
                    Some((name.as_str(), u16::try_from(gateway.port).ok()?))
                }
                _ => None,
            })
        })
    }
}

fn is_reachable(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok() || check::is_host(address, false)
}

fn has_registry(network: &api::Network, cluster_id: &str) -> bool {
    network
        .endpoints
        .iter()
        .any(|endpoints| matches!(&endpoints.ne, Some(Ne::FromRegistry(name)) if name == cluster_id))
}

impl Range {
    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.first
    }

    /// How many leading bits its addresses share.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => {
                let rest = 32 - u32::from(self.bits);
                u32::from(first).checked_shr(rest) == u32::from(ip).checked_shr(rest)
            }
            (IpAddr::V6(first), IpAddr::V6(ip)) => {
                let rest = 128 - u32::from(self.bits);
                u128::from(first).checked_shr(rest) == u128::from(ip).checked_shr(rest)
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, bits) = text.split_once('/').ok_or(())?;
        let first: IpAddr = first.parse().map_err(|_| ())?;
        let bits: u8 = bits.parse().map_err(|_| ())?;
        if bits > if first.is_ipv4() { 32 } else { 128 } { Err(()) } else { Ok(Self { first, bits }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_networks_by_range_and_registry() {
        let text = "
networks:
  n1: {endpoints: [{fromRegistry: Kubernetes}, {fromCidr: 10.1.0.0/16}]}
  n2:
    endpoints: [{fromCidr: 'fd00::/8'}, {fromCidr: 0.0.0.0/0}]
    gateways: [{address: 198.51.100.1, port: 15443}, {address: gw.example.com, port: 15443}]
";
        let networks = MeshNetworks::from_yaml(text).unwrap();
        assert_eq!(networks.of_registry("Kubernetes"), Some("n1"));
        assert_eq!(networks.of_registry("other"), None);
        let of = |ip: &str| {
            let ip = ip.parse().unwrap();
            networks
                .ranges()
                .filter(|(range, _)| range.contains(ip))
                .map(|(_, name)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("10.1.2.3"), ["n1", "n2"]);
        assert_eq!(of("10.2.2.3"), ["n2"]);
        assert_eq!(of("fd01::1"), ["n2"]);
        let gateways: Vec<_> = networks.gateways().map(|gateway| gateway.address).collect();
        assert_eq!(gateways, ["198.51.100.1", "gw.example.com"]);
        assert!(networks.warnings.is_empty(), "{:?}", networks.warnings);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("networks: {a: {endpoints: [{fromCidr: 10.0.0.0}]}}", "10.0.0.0/8"),
            ("networks: {a: {endpoints: [{}]}}", "fromCidr or fromRegistry"),
            ("networks: {a: {gateways: [{address: 1.2.3.4}]}}", "0 is not a port"),
            ("networks: {a: {gateways: [{port: 1}]}}", "give address"),
            ("networks: {a: {gateways: [{port: 1, address: 1nv@lid}]}}", "nor a host name"),
        ] {
            let error = MeshNetworks::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
