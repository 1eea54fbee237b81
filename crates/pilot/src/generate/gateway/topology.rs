//! What stands in front of a gateway (`gatewayTopology` of its proxy configuration).

use std::net::IpAddr;

use mesh::ProxyConfig;
use proto::envoy::config::core::v3::CidrRange;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails as Forward, InternalAddressConfig,
};
use proto::istio::mesh::v1alpha1::ForwardClientCertDetails;

use crate::scope::Scope;

/// What stands in front of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::generate) struct Topology {
    /// Proxies that are believed when they say whose request they forward.
    pub(in crate::generate) trusted_proxies: u32,
    /// What happens to the header with the client's certificate.
    pub(in crate::generate) forward: Forward,
    /// Whether connections begin with the PROXY protocol.
    pub(in crate::generate) has_proxy_protocol: bool,
}

/// Addresses of the mesh's networks, whose requests count as internal; `None`
/// without any.
pub(in crate::generate) fn internal_addresses(scope: Scope<'_>) -> Option<InternalAddressConfig> {
    let ranges = scope.snapshot.settings.networks.ranges();
    let mut ranges: Vec<(IpAddr, u8)> = ranges.map(|(range, _)| (range.first(), range.bits())).collect();
    ranges.sort_unstable();
    let range = |(first, bits): (IpAddr, u8)| CidrRange {
        address_prefix: first.to_string(),
        prefix_len: Some(bits.into()),
    };
    let cidr_ranges: Vec<CidrRange> = ranges.into_iter().map(range).collect();
    (!cidr_ranges.is_empty())
        .then(|| InternalAddressConfig { cidr_ranges, ..InternalAddressConfig::default() })
}

impl Topology {
    /// As the proxy's own configuration says, else the mesh's.
    pub(in crate::generate) fn of(scope: Scope<'_>) -> Self {
        let config: Option<&ProxyConfig> =
            scope.proxy.config.as_deref().or(scope.snapshot.mesh.default_config.as_ref());
        let topology = config.and_then(|config| config.gateway_topology.as_ref());
        let details = topology
            .map_or(ForwardClientCertDetails::Undefined, |topology| topology.forward_client_cert_details());
        Self {
            trusted_proxies: topology.map_or(0, |topology| topology.num_trusted_proxies),
            forward: match details {
                ForwardClientCertDetails::Sanitize => Forward::Sanitize,
                ForwardClientCertDetails::ForwardOnly => Forward::ForwardOnly,
                ForwardClientCertDetails::AppendForward => Forward::AppendForward,
                ForwardClientCertDetails::AlwaysForwardOnly => Forward::AlwaysForwardOnly,
                ForwardClientCertDetails::SanitizeSet | ForwardClientCertDetails::Undefined => {
                    Forward::SanitizeSet
                }
            },
            has_proxy_protocol: topology.is_some_and(|topology| topology.proxy_protocol.is_some()),
        }
    }
}
