//! Clusters of services, one for each port and one more for each subset.

use std::collections::BTreeSet;

use names::ClusterName;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::istio::networking::v1alpha3::Subset;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;

use super::policy::{self, Policy, http2, use_downstream};
use super::{base, breakers, of_type, unlimited};
use crate::generate::message::{ads, api_path, metadata, service_list, structure, text};
use crate::generate::tls;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::{Endpoint, MtlsMode, Port, Service};

pub(super) fn clusters(scope: Scope<'_>) -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for service in scope.services() {
        let rule = scope.rule(service).map(|rule| &**rule);
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            clusters.push(cluster(scope, service, port, rule, None));
            for subset in rule.iter().flat_map(|rule| &rule.subsets) {
                clusters.push(cluster(scope, service, port, rule, Some(subset)));
            }
        }
    }
    clusters
}

fn cluster(
    scope: Scope<'_>,
    service: &Service,
    port: &Port,
    rule: Option<&Rule>,
    subset: Option<&Subset>,
) -> Cluster {
    let subset_name = subset.map_or("", |subset| &subset.name);
    let name = ClusterName::outbound(port.number, subset_name, &service.host);
    let settings = rule.map_or_else(Policy::default, |rule| {
        policy::for_port(
            rule.policy.as_ref(),
            subset.and_then(|subset| subset.traffic_policy.as_ref()),
            port.number,
        )
    });

    let mut cluster = base(scope, name.to_string());
    cluster.circuit_breakers = breakers(unlimited());
    cluster.common_lb_config = Some(CommonLbConfig {
        healthy_panic_threshold: Some(Default::default()),
        ..CommonLbConfig::default()
    });
    cluster.metadata = Some(describe(service, rule, subset_name));
    let is_original = service.is_headless || policy::is_passthrough(&settings);
    if is_original {
        cluster.cluster_discovery_type = of_type(DiscoveryType::OriginalDst);
        cluster.lb_policy = LbPolicy::ClusterProvided.into();
    } else {
        cluster.cluster_discovery_type = of_type(DiscoveryType::Eds);
        cluster.lb_policy = LbPolicy::LeastRequest.into();
        cluster.eds_cluster_config =
            Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name.to_string() });
    }

    let mut options = HttpProtocolOptions::default();
    if port.protocol.is_http2() {
        options.upstream_protocol_options = Some(http2(0));
    } else if port.protocol == Protocol::Auto {
        options.upstream_protocol_options = Some(use_downstream());
    }
    let upgrades = policy::upgrades_to_http2(&settings, &scope.snapshot.mesh, port.protocol);
    if upgrades {
        options.upstream_protocol_options = Some(http2(0));
    }
    policy::apply(&mut cluster, &mut options, &settings, port.protocol, is_original);
    let is_http2 = upgrades || port.protocol.is_http2();
    secure(scope, &mut cluster, service, port, &name, &settings, is_http2);
    policy::finish(&mut cluster, &options);
    cluster
}

fn describe(
    service: &Service,
    rule: Option<&Rule>,
    subset: &str,
) -> proto::envoy::config::core::v3::Metadata {
    let mut fields = structure([("services", service_list(std::iter::once(service)))]);
    if let Some(rule) = rule {
        let (namespace, name) = &rule.origin;
        let path = api_path("networking.istio.io", "destination-rule", namespace, name);
        fields.fields.insert("config".into(), path);
    }
    if !subset.is_empty() {
        fields.fields.insert("subset".into(), text(subset));
    }
    metadata([("istio", fields)])
}

/// Who the servers may be: the accounts of all workloads of the service,
/// whichever port they serve.
pub(in crate::generate) fn identities(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mesh = &scope.snapshot.mesh;
    let domains =
        || std::iter::once(mesh.trust_domain()).chain(mesh.trust_domain_aliases.iter().map(String::as_str));
    let all: BTreeSet<String> = service
        .endpoints
        .iter()
        .flat_map(|endpoint| domains().filter_map(|domain| endpoint.identity(domain)))
        .collect();
    all.into_iter().collect()
}

/// Sets how the cluster's connections are secured.
fn secure(
    scope: Scope<'_>,
    cluster: &mut Cluster,
    service: &Service,
    port: &Port,
    name: &ClusterName,
    settings: &Policy<'_>,
    is_http2: bool,
) {
    let endpoints: Vec<&Endpoint> = service.endpoints_of(port).collect();
    let identities = identities(scope, service);
    let socket = || {
        let identities = match settings.tls {
            Some(tls) if !tls.subject_alt_names.is_empty() => tls.subject_alt_names.clone(),
            _ => identities.clone(),
        };
        let sni = settings.tls.map(|tls| tls.sni.clone()).filter(|sni| !sni.is_empty());
        tls::client(sni.unwrap_or_else(|| name.sni()), identities, is_http2)
    };
    match settings.tls.map(|tls| tls.mode()) {
        Some(TlsMode::IstioMutual) => cluster.transport_socket = Some(socket()),
        Some(TlsMode::Disable) => {}
        // TLS to servers outside the mesh needs certificates from files, which
        // agents do not serve yet: no connection rather than one in plaintext.
        Some(TlsMode::Simple | TlsMode::Mutual) => {
            cluster.cluster_discovery_type = of_type(DiscoveryType::Static);
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.eds_cluster_config = None;
        }
        None if !scope.snapshot.mesh.has_auto_mtls() => {}
        None if scope.snapshot.authn.namespace_mode(&service.namespace) == MtlsMode::Disable => {}
        None if cluster.eds_cluster_config.is_none() => {
            if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.accepts_mtls) {
                cluster.transport_socket = Some(socket());
            }
        }
        // Each endpoint says whether it accepts mutual TLS.
        None => {
            let label = structure([("tlsMode", text("istio"))]);
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".into(),
                    r#match: Some(label),
                    transport_socket: Some(socket()),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".into(),
                    r#match: Some(structure([])),
                    transport_socket: Some(tls::plaintext()),
                },
            ];
        }
    }
}
