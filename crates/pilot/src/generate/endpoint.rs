//! Endpoint assignments: those that EDS sends, and those that clusters list
//! themselves.

mod encode;
mod group;
mod locality;
mod network;
pub(super) mod own;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use names::{ClusterName, Direction};
use prost_types::value::Kind as Value;
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::{Subset, TrafficPolicy};

pub(super) use locality::Setting;

use self::encode::Naming;
use self::group::{Group, Member};
use super::cluster::policy::{self, Policy};
use crate::finding::Topic;
use crate::place;
use crate::proxy::Proxy;
use crate::scope::Scope;
use crate::settings::SessionLabels;
use crate::snapshot::destination_rule::Rule;
use crate::snapshot::endpoint::Health;
use crate::snapshot::service::TrafficDistribution;
use crate::snapshot::{Endpoint, Port, Registry, Service};

/// A cluster of a service, for which endpoints are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a Port,
    pub(super) rule: Option<&'a Rule>,
    pub(super) subset: Option<&'a Subset>,
    /// Whether only servers that accept mutual TLS of the mesh count: those that
    /// a gateway passes TLS on to by its server name (`outbound_.PORT_.SUBSET_.HOST`).
    pub(super) is_by_server_name: bool,
}

/// Whether the proxy has a cluster of that name whose endpoints come by EDS.
pub(super) fn exists(scope: Scope<'_>, cluster: &str) -> bool {
    wanted(scope, cluster).is_some()
}

fn wanted<'a>(scope: Scope<'a>, cluster: &str) -> Option<Wanted<'a>> {
    let (name, is_by_server_name) = parse(cluster)?;
    let service = scope.service(&name.host).filter(|service| !service.resolution.is_dns())?;
    let port = service.port(name.port)?;
    let rule = scope.rule(service).map(|rule| &**rule);
    let subset = rule.and_then(|rule| rule.subset(&name.subset));
    if subset.is_none() && !name.subset.is_empty() {
        return None;
    }
    Some(Wanted { service, port, rule, subset, is_by_server_name })
}

/// The assignment of a cluster; empty when the cluster does not exist.
pub(super) fn assignment(scope: Scope<'_>, cluster: &str) -> ClusterLoadAssignment {
    let mut made = ClusterLoadAssignment { cluster_name: cluster.into(), ..ClusterLoadAssignment::default() };
    if cluster == own::CLUSTER {
        made.endpoints = encode::localities(&own::groups(scope), Naming::Plain);
        return made;
    }
    let Some(wanted) = wanted(scope, cluster) else { return made };
    let service = wanted.service;
    let port = wanted.port;
    // Host names are for clusters that Envoy resolves; an unknown address is that
    // of a gateway, a path without port is a socket.
    let endpoints = service
        .endpoints_of(port)
        .filter(|endpoint| endpoint.address.is_empty() || endpoint.port == 0 || endpoint.ip().is_some());
    made.endpoints = encode::localities(&groups(scope, &wanted, endpoints), naming(scope, &wanted));
    if made.endpoints.is_empty() {
        scope.note(Topic::NoEndpoints, cluster.to_owned(), Some(service.origin()), String::new);
    }
    made
}

/// How the endpoints of a cluster say who they are. Requests have filters that read
/// metadata, so their endpoints have no names that HTTP could use otherwise.
fn naming(scope: Scope<'_>, wanted: &Wanted<'_>) -> Naming {
    let carries_connections = wanted.is_by_server_name || !wanted.port.protocol.is_http();
    match scope.proxy.has_module() {
        false => Naming::Plain,
        true if carries_connections => Naming::Hostname,
        true => Naming::Full,
    }
}

/// What our module may take for granted of the endpoints of a cluster (`peers` of its
/// metadata).
///
/// `named`: each tells all that its workload tells of itself, so it need not be asked. So it
/// is with pods and what is registered like them; a gateway that stands for others does not
/// tell, nor do servers outside of the mesh. `short`: each reads the short form, too.
pub(super) fn peers(scope: Scope<'_>, service: &Service) -> Option<&'static str> {
    let are_named = scope.proxy.has_module()
        && service.registry == Registry::Kubernetes
        && !scope.snapshot.networks.has_gateways();
    if !are_named {
        return None;
    }
    // Who has no sidecar reads neither form.
    let mut in_mesh = service.endpoints.iter().filter(|endpoint| endpoint.has_sidecar);
    Some(if in_mesh.all(|endpoint| endpoint.reads_short) { "short" } else { "named" })
}

/// The assignment that a cluster lists itself, since Envoy resolves the names
/// in it; empty when the service has no endpoint.
pub(super) fn listed(scope: Scope<'_>, cluster: &str, wanted: &Wanted<'_>) -> ClusterLoadAssignment {
    // Envoy resolves no sockets.
    let endpoints = wanted.service.listed_endpoints_of(wanted.port).filter(|endpoint| endpoint.port > 0);
    ClusterLoadAssignment {
        cluster_name: cluster.into(),
        // Their names are to be resolved, and stay as they are.
        endpoints: encode::localities(&groups(scope, wanted, endpoints), Naming::Plain),
        ..ClusterLoadAssignment::default()
    }
}

/// The cluster that a name means, and whether it is written as a server name.
fn parse(cluster: &str) -> Option<(ClusterName, bool)> {
    if let Some(rest) = cluster.strip_prefix("outbound_.") {
        let (port, rest) = rest.split_once("_.")?;
        let (subset, host) = rest.split_once("_.")?;
        let name = ClusterName {
            direction: Direction::Outbound,
            port: port.parse().ok()?,
            subset: subset.into(),
            host: names::Hostname::new(host),
        };
        return Some((name, true));
    }
    let name: ClusterName = cluster.parse().ok()?;
    (name.direction == Direction::Outbound).then_some((name, false))
}

/// Endpoints that the proxy may use, by locality, with their priorities and weights.
fn groups<'a>(
    scope: Scope<'a>,
    wanted: &Wanted<'a>,
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> Vec<Group<'a>> {
    let Wanted { service, port, rule, subset, .. } = *wanted;
    let blocks = rule.map_or_else(Policy::default, |rule| {
        let own = subset.and_then(|subset| subset.traffic_policy.as_ref());
        policy::for_port(rule.policy.as_ref(), own, port.number)
    });
    let filter = Filter::new(scope, service, &blocks);
    let tls = tls_mode(wanted);
    let mut by_locality: BTreeMap<_, Group<'a>> = BTreeMap::new();
    for endpoint in endpoints {
        let has_labels = subset.is_none_or(|subset| config::matches(&subset.labels, &endpoint.labels));
        if !has_labels || !filter.admits(endpoint) {
            continue;
        }
        let accepts_mtls = match tls {
            Some(mode) => mode == TlsMode::IstioMutual && endpoint.has_sidecar,
            None => endpoint.accepts_mtls,
        };
        let group = by_locality.entry(&endpoint.locality).or_insert_with(|| Group::new(&endpoint.locality));
        group.members.push(Member::direct(endpoint, filter.health(endpoint), accepts_mtls));
    }
    let mut groups: Vec<Group<'a>> = by_locality.into_values().collect();
    groups.iter_mut().for_each(Group::sum_up);
    let networks = &scope.snapshot.networks;
    if networks.has_gateways() {
        groups.iter_mut().for_each(|group| network::split(networks, scope.proxy, group));
    } else {
        // An endpoint without address is reached by a gateway, and there is none.
        groups.iter_mut().for_each(|group| group.retain(|member| member.has_address()));
    }
    if wanted.is_by_server_name {
        groups.iter_mut().for_each(|group| group.retain(|member| member.accepts_mtls));
    }
    if let Some(setting) = Setting::of(scope, service, &blocks) {
        let locality = place::locality(scope.snapshot, scope.proxy);
        let has_outlier_detection = blocks.outlier_detection.is_some();
        setting.apply(&mut groups, &locality, has_outlier_detection, || {
            place::labels(scope.snapshot, scope.proxy, &locality)
        });
    }
    groups
}

/// Which endpoints of a service a proxy may use at all.
struct Filter<'a> {
    /// The proxy's node, where only endpoints there count.
    node_name: Option<&'a str>,
    sends_unhealthy: bool,
    sends_draining: bool,
    session_labels: &'a SessionLabels,
    networks: Option<Vec<&'a str>>,
}

impl<'a> Filter<'a> {
    fn new(scope: Scope<'a>, service: &Service, blocks: &Policy<'_>) -> Self {
        let features = &scope.snapshot.settings.features;
        let is_forced =
            features.send_unhealthy_endpoints || service.traffic_distribution != TrafficDistribution::Any;
        // With a panic threshold Envoy would use them after all.
        let has_threshold = blocks.outlier_detection.is_some_and(|outlier| outlier.min_health_percent > 0);
        let sessions = features.session_labels.cookie(&service.labels);
        Self {
            node_name: service.is_node_local.then_some(scope.proxy.node_name.as_str()),
            sends_unhealthy: is_forced || features.auto_send_unhealthy_endpoints && !has_threshold,
            sends_draining: sessions.is_some(),
            session_labels: &features.session_labels,
            networks: requested_networks(scope.proxy),
        }
    }

    fn health(&self, endpoint: &Endpoint) -> Health {
        group::health(self.session_labels, endpoint)
    }

    fn admits(&self, endpoint: &Endpoint) -> bool {
        if self.node_name.is_some_and(|node_name| node_name != endpoint.node_name) {
            return false;
        }
        if let Some(networks) = &self.networks
            && !endpoint.network.is_empty()
            && !networks.contains(&endpoint.network.as_str())
        {
            return false;
        }
        match self.health(endpoint) {
            Health::Unknown | Health::Healthy => true,
            Health::Unhealthy => self.sends_unhealthy,
            Health::Draining => self.sends_draining,
            Health::Terminating => false,
        }
    }
}

/// Networks that the proxy wants endpoints of (`REQUESTED_NETWORK_VIEW`); `None` for all.
fn requested_networks(proxy: &Proxy) -> Option<Vec<&str>> {
    let networks: Vec<&str> = match proxy.metadata.fields.get("REQUESTED_NETWORK_VIEW")?.kind.as_ref()? {
        Value::StringValue(text) => text.split(',').filter(|name| !name.is_empty()).collect(),
        Value::ListValue(list) => list
            .values
            .iter()
            .filter_map(|value| match &value.kind {
                Some(Value::StringValue(name)) => Some(name.as_str()),
                _ => None,
            })
            .collect(),
        _ => return None,
    };
    (!networks.is_empty()).then_some(networks)
}

/// The mode of TLS that the DestinationRule sets, if any: other than its other
/// blocks it is taken from the rule where the settings of the port have none.
fn tls_mode(wanted: &Wanted<'_>) -> Option<TlsMode> {
    let of = |policy: Option<&TrafficPolicy>| {
        let policy = policy?;
        let own = policy.port_level_settings.iter().find(|settings| {
            let number = settings.port.as_ref().map(|port| port.number);
            number == Some(u32::from(wanted.port.number)) && settings.tls.is_some()
        });
        own.and_then(|settings| settings.tls.as_ref()).or(policy.tls.as_ref()).map(|tls| tls.mode())
    };
    of(wanted.subset.and_then(|subset| subset.traffic_policy.as_ref()))
        .or_else(|| of(wanted.rule.and_then(|rule| rule.policy.as_ref())))
}
