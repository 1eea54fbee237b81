//! Clusters of services, one for each port and one more for each subset.

use std::collections::BTreeSet;

use names::ClusterName;
use prost_types::Value;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, EdsClusterConfig};
use proto::envoy::config::core::v3::{HealthStatusSet, Metadata};
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{Subset, TrafficPolicy};

use super::draft::Draft;
use super::policy::{self, Policy};
use super::secure::{self, Security, identities};
use super::{balancer, base, dns, header_case, of_type, outlier, pool, stat};
use crate::finding::Topic;
use crate::generate::endpoint;
use crate::generate::message::{ads, api_path, metadata, service_list, structure, text, truth};
use crate::protocol::Protocol;
use crate::proxy::ProxyKind;
use crate::scope::Scope;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::{Port, Resolution, Service};

/// Clusters of all services that the proxy sees.
pub(super) fn clusters(scope: Scope<'_>) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    // Envoy takes a name once; the oldest service has it.
    let mut names = BTreeSet::new();
    for service in scope.services() {
        for cluster in of_service(scope, service) {
            if names.insert(cluster.name.clone()) {
                clusters.push(cluster);
                continue;
            }
            scope.note(Topic::DuplicateCluster, cluster.name.clone(), Some(service.origin()), || {
                format!(
                    "cluster {} stands for an older service of that name: this one gets none",
                    cluster.name
                )
            });
        }
    }
    clusters
}

/// Clusters of one service.
pub(in crate::generate) fn of_service(scope: Scope<'_>, service: &Service) -> Vec<Cluster> {
    Maker::new(scope, service, false).clusters()
}

/// Clusters that lead to the services of the mesh without touching the TLS of
/// clients, for gateways between networks (`AUTO_PASSTHROUGH`). Each has the
/// name that clients ask for.
pub(in crate::generate) fn untouched(scope: Scope<'_>) -> Vec<Cluster> {
    let own = scope.services().filter(|service| !service.is_external);
    own.flat_map(|service| Maker::new(scope, service, true).clusters()).collect()
}

/// Makes the clusters of one service.
struct Maker<'a> {
    scope: Scope<'a>,
    service: &'a Service,
    rule: Option<&'a Rule>,
    /// Who the servers may be.
    identities: Vec<String>,
    /// What is known of the endpoints where they come by EDS.
    peers: Option<&'static str>,
    /// Whether TLS of clients is left alone.
    is_untouched: bool,
}

/// What one cluster is for.
#[derive(Clone, Copy)]
struct Target<'a> {
    port: &'a Port,
    subset: Option<&'a Subset>,
    policy: Policy<'a>,
    /// The policy of the level that the cluster stands for.
    own: Option<&'a TrafficPolicy>,
    kind: DiscoveryType,
}

impl<'a> Maker<'a> {
    fn new(scope: Scope<'a>, service: &'a Service, is_untouched: bool) -> Self {
        let rule = scope.rule(service).map(|rule| &**rule);
        let identities = if is_untouched { Vec::new() } else { identities(scope, service) };
        let peers = endpoint::peers(scope, service);
        Self { scope, service, rule, identities, peers, is_untouched }
    }

    fn clusters(&self) -> Vec<Cluster> {
        let mut clusters = Vec::new();
        for port in self.service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            if self.service.is_dynamic() && (self.is_untouched || !dns::names_hosts(port.protocol)) {
                continue;
            }
            let rule = self.rule.and_then(|rule| rule.policy.as_ref());
            let policy = Policy::of_rule(rule, port.number, &self.scope.snapshot.mesh);
            let target = Target { port, subset: None, policy, own: rule, kind: self.kind() };
            let Some(main) = self.cluster(target) else { continue };
            let is_original = main.is_original();
            clusters.push(main.finish());
            if self.service.is_dynamic() {
                continue;
            }
            for subset in self.rule.iter().flat_map(|rule| &rule.subsets) {
                let own = subset.traffic_policy.as_ref();
                let kind = if is_original || policy::is_passthrough(own) {
                    DiscoveryType::OriginalDst
                } else {
                    target.kind
                };
                let policy = policy.for_subset(own, port.number);
                let target = Target { port, subset: Some(subset), policy, own, kind };
                clusters.extend(self.cluster(target).map(Draft::finish));
            }
        }
        clusters
    }

    /// How endpoints are found unless a rule says that the client knows.
    fn kind(&self) -> DiscoveryType {
        match self.service.resolution {
            Resolution::Dns if self.service.races_connections => DiscoveryType::LogicalDns,
            Resolution::Dns => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
            // Gateways have no destination of their own to keep to.
            Resolution::Passthrough if self.scope.proxy.kind == ProxyKind::Sidecar => {
                DiscoveryType::OriginalDst
            }
            _ => DiscoveryType::Eds,
        }
    }

    /// One cluster; `None` when it would have no endpoints and must have some.
    fn cluster(&self, target: Target<'a>) -> Option<Draft> {
        let Target { port, subset, policy, kind, .. } = target;
        let (scope, service) = (self.scope, self.service);
        let mesh = &scope.snapshot.mesh;
        let subset_name = subset.map_or("", |subset| &subset.name);
        let full = ClusterName::outbound(port.number, subset_name, &service.host);
        let name = if self.is_untouched { full.sni() } else { full.to_string() };

        let mut draft = Draft::new(base(scope, name.clone()));
        if !mesh.outbound_cluster_stat_name.is_empty() && !self.service.is_dynamic() {
            let pattern = &mesh.outbound_cluster_stat_name;
            draft.cluster.alt_stat_name =
                stat::name(&stat::by_pattern(pattern, service, port, subset_name, 0));
        }
        if self.service.is_dynamic() {
            let cache = dns::cache(scope, service.host.as_str());
            dns::set_dynamic(&mut draft.cluster, cache, false);
        } else {
            draft.cluster.cluster_discovery_type = of_type(kind);
            let sessions_of = &scope.snapshot.settings.features.session_labels;
            let has_sessions = sessions_of.has_sessions(&service.labels);
            let keeps_draining = subset.is_none() && !self.is_untouched && has_sessions;
            draft.cluster.common_lb_config = Some(CommonLbConfig {
                override_host_status: keeps_draining.then(sessions),
                ..CommonLbConfig::default()
            });
            match kind {
                DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
                    dns::set(scope, service, &mut draft.cluster);
                    let wanted = endpoint::Wanted {
                        service,
                        port,
                        rule: self.rule,
                        subset,
                        is_by_server_name: self.is_untouched,
                    };
                    let assignment = endpoint::listed(scope, &name, &wanted);
                    if assignment.endpoints.is_empty() {
                        scope.note(Topic::NothingToResolve, name.clone(), Some(service.origin()), || {
                            format!(
                                "cluster {name} has no names to resolve and is left out: no endpoint fits"
                            )
                        });
                        return None;
                    }
                    let mut localities = assignment.endpoints.iter();
                    let is_one = localities.next().is_some_and(|first| first.lb_endpoints.len() == 1);
                    // Envoy takes no more than one name here.
                    if kind == DiscoveryType::LogicalDns && !(is_one && localities.next().is_none()) {
                        draft.cluster.cluster_discovery_type = of_type(DiscoveryType::StrictDns);
                    }
                    draft.cluster.load_assignment = Some(assignment);
                }
                DiscoveryType::OriginalDst => {
                    draft.cluster.lb_config = super::original_port(service, port);
                }
                _ => {}
            }
        }
        let is_router = scope.proxy.kind == ProxyKind::Router;
        draft.set_protocol(port.protocol, &header_case::options(scope), is_router);
        if pool::upgrades_to_http2(policy.connection_pool, mesh, port.protocol) {
            draft.set_http2();
        }
        pool::apply(&mut draft, mesh, policy.connection_pool, policy.retry_budget);
        if let Some(outlier) = policy.outlier_detection {
            outlier::apply(&mut draft, outlier, super::sends_unhealthy(scope, service));
        }
        balancer::apply(scope, service, port.protocol, &mut draft, &policy);
        if !self.is_untouched {
            self.secure(target, &full, &mut draft);
        }
        let is_eds = draft.cluster.cluster_discovery_type == of_type(DiscoveryType::Eds);
        draft.cluster.metadata = self.describe(target, is_eds);
        if is_eds {
            draft.cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name });
        }
        Some(draft)
    }

    fn secure(&self, target: Target<'a>, name: &ClusterName, draft: &mut Draft) {
        let (scope, service) = (self.scope, self.service);
        // The name in each request is asked for where there is no other.
        let sni = if draft.is_dynamic() { String::new() } else { name.sni() };
        let security = Security {
            scope,
            service: Some(service),
            rule: self.rule,
            identities: if draft.is_dynamic() { &[] } else { &self.identities },
            settings: target.policy.tls,
            sni: &sni,
            is_auto: secure::is_auto(scope, service, target.port, target.own),
        };
        security.apply(draft);
        if let Some(protocol) = target.policy.proxy_protocol {
            secure::wrap(draft, protocol);
        }
    }

    fn describe(&self, target: Target<'_>, is_eds: bool) -> Option<Metadata> {
        let mut fields = structure([]);
        let mut add = |key: &str, value: Value| fields.fields.insert(key.into(), value);
        let mode = target.policy.tls.map(|tls| tls.mode());
        let is_elsewhere = matches!(mode, Some(TlsMode::Simple | TlsMode::Mutual));
        // Which service a dynamic cluster is for is only known by the request.
        if !self.service.is_dynamic() {
            add("services", service_list(std::iter::once(self.service)));
        }
        if let Some(rule) = self.rule {
            let (namespace, name) = &rule.origin;
            add("config", api_path("networking.istio.io", "destination-rule", namespace, name));
            if is_elsewhere {
                add("alpn_override", text("false"));
            }
        }
        if let Some(peers) = self.peers.filter(|_| is_eds && !is_elsewhere) {
            add("peers", text(peers));
        }
        match target.subset {
            Some(subset) => {
                add("subset", text(&subset.name));
            }
            None if self.service.is_external => {
                add("external", truth(true));
            }
            None => {}
        }
        (!fields.fields.is_empty()).then(|| metadata([("istio", fields)]))
    }
}

/// States of endpoints that sessions go on with.
fn sessions() -> HealthStatusSet {
    use proto::envoy::config::core::v3::HealthStatus::{Degraded, Draining, Healthy, Unknown};
    HealthStatusSet { statuses: [Healthy, Draining, Unknown, Degraded].map(Into::into).to_vec() }
}
