//! Clusters that every proxy has.

use names::cluster_name;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{DiscoveryType, LbPolicy};
use proto::envoy::config::core::v3::{
    Address, BindConfig, ExtraSourceAddress, HttpProtocolOptions as CommonOptions, Pipe, address,
};
use proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use proto::istio::networking::v1alpha3::ConnectionPoolSettings;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;

use super::draft::{Draft, use_downstream};
use super::secure::Security;
use super::{base, dns, header_case, of_type, pool, stat};
use crate::generate::message::{seconds, socket_address};
use crate::generate::tls;
use crate::scope::Scope;

/// Source address by which the kernel's rules know traffic from Envoy to its own workload.
const OWN_SOURCE: &str = "127.0.0.6";
/// The same for IPv6.
const OWN_SOURCE_V6: &str = "::6";
/// Socket of a server of credentials beside a gateway.
const CREDENTIAL_SOCKET: &str = "./var/run/secrets/credential-uds/socket";

/// Ends connections that lead nowhere.
pub(super) fn black_hole(scope: Scope<'_>) -> Cluster {
    Cluster {
        cluster_discovery_type: of_type(DiscoveryType::Static),
        ..base(scope, cluster_name::BLACK_HOLE.into())
    }
}

/// Leads to where the client meant to go.
pub(super) fn passthrough(scope: Scope<'_>) -> Cluster {
    original(scope, cluster_name::PASSTHROUGH)
}

/// Leads requests to the host that they name, where no service has that name.
pub(super) fn dynamic(scope: Scope<'_>) -> Cluster {
    let mesh = &scope.snapshot.mesh;
    let settings = mesh.outbound_traffic_policy.as_ref().and_then(|policy| policy.tls.as_ref());
    let settings = settings.filter(|tls| tls.mode() != TlsMode::Disable);
    let mut draft = Draft::new(base(scope, cluster_name::DYNAMIC_DNS.into()));
    dns::set_dynamic(&mut draft.cluster, dns::unknown(scope), settings.is_none());
    set_any_protocol(scope, &mut draft);
    pool::apply(&mut draft, mesh, Some(&ConnectionPoolSettings::default()), None);
    let security =
        Security { scope, service: None, rule: None, identities: &[], settings, sni: "", is_auto: false };
    security.apply(&mut draft);
    draft.finish()
}

/// Leads to ports of the workload that no service declares.
pub(super) fn inbound_passthrough(scope: Scope<'_>) -> Cluster {
    let mut cluster = original(scope, cluster_name::INBOUND_PASSTHROUGH);
    cluster.upstream_bind_config = own_source(scope, true);
    cluster
}

fn original(scope: Scope<'_>, name: &str) -> Cluster {
    let mesh = &scope.snapshot.mesh;
    let mut draft = Draft::new(Cluster {
        // Both count under one name, as Istio's dashboards expect.
        alt_stat_name: stat::name(cluster_name::PASSTHROUGH),
        cluster_discovery_type: of_type(DiscoveryType::OriginalDst),
        lb_policy: LbPolicy::ClusterProvided.into(),
        ..base(scope, name.into())
    });
    set_any_protocol(scope, &mut draft);
    let defaults = mesh.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref());
    pool::apply(&mut draft, mesh, defaults, None);
    draft.finish()
}

/// The client's protocol, for servers of which nothing is known.
fn set_any_protocol(scope: Scope<'_>, draft: &mut Draft) {
    let options = draft.options();
    options.common_http_protocol_options =
        Some(CommonOptions { idle_timeout: seconds(300), ..CommonOptions::default() });
    options.upstream_protocol_options = Some(use_downstream(header_case::options(scope)));
}

/// The source of connections to the proxy's own workload. `knows_both`: for
/// both families of addresses if the proxy has both, else only where that is
/// switched on.
pub(super) fn own_source(scope: Scope<'_>, knows_both: bool) -> Option<BindConfig> {
    let has = |is_v6: bool| scope.proxy.ips.iter().any(|ip| ip.is_ipv6() == is_v6);
    let main = if has(false) { OWN_SOURCE } else { OWN_SOURCE_V6 };
    let is_dual = knows_both || scope.snapshot.settings.features.dual_stack;
    let extra = (has(false) && has(true) && is_dual).then(|| ExtraSourceAddress {
        address: Some(socket_address(OWN_SOURCE_V6, 0)),
        ..ExtraSourceAddress::default()
    });
    Some(BindConfig {
        source_address: Some(socket_address(main, 0)),
        extra_source_addresses: extra.into_iter().collect(),
        ..BindConfig::default()
    })
}

/// The server of credentials beside a gateway.
pub(super) fn credentials(scope: Scope<'_>) -> Option<Cluster> {
    if !tls::has_external(scope) {
        return None;
    }
    let mut draft = Draft::new(base(scope, tls::EXTERNAL.into()));
    draft.cluster.cluster_discovery_type = of_type(DiscoveryType::Static);
    let pipe = Pipe { path: CREDENTIAL_SOCKET.into(), ..Pipe::default() };
    draft.cluster.load_assignment =
        Some(assignment(tls::EXTERNAL, Address { address: Some(address::Address::Pipe(pipe)) }));
    draft.set_http2();
    Some(draft.finish())
}

/// One endpoint.
pub(super) fn assignment(cluster: &str, address: Address) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint {
                host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
                ..LbEndpoint::default()
            }],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}
