//! Requests sent on to a service: where to, how often, and in which form.

use std::sync::Arc;

use names::{ClusterName, Hostname};
use prost_types::Duration;
use proto::Any;
use proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, MaxStreamDuration, RequestMirrorPolicy,
};
use proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use proto::envoy::config::route::v3::{Route, RouteAction, WeightedCluster};
use proto::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use proto::envoy::r#type::v3::FractionalPercent;
use proto::istio::networking::v1alpha3::{Destination, HttpRewrite, HttpRoute, HttpRouteDestination};

use super::header::Operations;
use super::rule::Context;
use super::{retry, share};
use crate::generate::filter::alpn::{self, Upstream};
use crate::generate::filter::session;
use crate::generate::message::seconds;
use crate::generate::{hash, http};
use crate::snapshot::Service;
use crate::snapshot::virtual_service::MESH_GATEWAY;

/// What a rule does with requests that it sends on; headers of the only
/// destination go to the route. `authority` is the host that the rule sets.
pub(super) fn action(
    context: Context<'_>,
    rule: &HttpRoute,
    authority: Option<String>,
    route: &mut Route,
) -> RouteAction {
    let mut action = RouteAction::default();
    set_timeout(&mut action, rule.timeout.map(Duration::from), context.scope.proxy.is_proxyless);
    let mut authority = authority;
    if let Some(rewrite) = &rule.rewrite {
        rewrite_path(&mut action, rewrite);
        action.append_x_forwarded_host = http::proxy_headers::of(context.scope).has_forwarded_host();
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    action.request_mirror_policies = mirrors(context, rule);
    let is_hashed = match &rule.route[..] {
        [only] => single(context, only, &mut action, route),
        several => {
            weighted(context, several, &mut action, route);
            false
        }
    };
    let mesh = &context.scope.snapshot.mesh;
    let retries = rule.retries.as_ref().or(mesh.default_http_retry_policy.as_ref());
    action.retry_policy = retry::policy(retries, is_hashed);
    action
}

/// Sets the longest time of a request; none is set without one. The library of
/// gRPC reads another field than Envoy.
pub(super) fn set_timeout(action: &mut RouteAction, timeout: Option<Duration>, is_proxyless: bool) {
    action.timeout = timeout.or(seconds(0));
    if is_proxyless {
        action.max_stream_duration =
            Some(MaxStreamDuration { max_stream_duration: action.timeout, ..MaxStreamDuration::default() });
    } else {
        action.max_grpc_timeout = action.timeout;
    }
}

fn rewrite_path(action: &mut RouteAction, rewrite: &HttpRewrite) {
    match &rewrite.uri_regex_rewrite {
        Some(regex) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(RegexMatcher { regex: regex.r#match.clone(), ..RegexMatcher::default() }),
                substitution: regex.rewrite.clone(),
            });
        }
        None => action.prefix_rewrite.clone_from(&rewrite.uri),
    }
}

/// Sends everything to one destination; returns whether it is chosen by a hash.
fn single(
    context: Context<'_>,
    target: &HttpRouteDestination,
    action: &mut RouteAction,
    route: &mut Route,
) -> bool {
    let operations = Operations::new(target.headers.as_ref());
    route.request_headers_to_add.extend(operations.request_add);
    route.request_headers_to_remove.extend(operations.request_remove);
    route.response_headers_to_add.extend(operations.response_add);
    route.response_headers_to_remove.extend(operations.response_remove);
    // The host that the rule sets stays, as it does with several destinations.
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = operations.authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    let Some(destination) = &target.destination else { return false };
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster(context, destination)));
    action.hash_policy = hashes(context, destination);
    if let Some(upstream) = takes_istio_mtls(context, destination) {
        alpn::announce(context.scope, &mut route.typed_per_filter_config, upstream);
    }
    !action.hash_policy.is_empty()
}

/// Shares requests out; destinations without a weight get none.
fn weighted(
    context: Context<'_>,
    targets: &[HttpRouteDestination],
    action: &mut RouteAction,
    route: &mut Route,
) {
    let targets = || {
        let weighs = targets.iter().filter(|target| target.weight > 0);
        weighs.filter_map(|target| Some((target, target.destination.as_ref()?)))
    };
    let mut announced = targets().map(|(_, destination)| takes_istio_mtls(context, destination));
    let first = announced.next().flatten();
    let of_all = first.filter(|_| announced.all(|other| other == first));
    if let Some(upstream) = of_all {
        alpn::announce(context.scope, &mut route.typed_per_filter_config, upstream);
    }
    let mut clusters = Vec::new();
    for (target, destination) in targets() {
        let operations = Operations::new(target.headers.as_ref());
        let mut weight = ClusterWeight {
            name: cluster(context, destination),
            weight: u32::try_from(target.weight).ok(),
            request_headers_to_add: operations.request_add,
            request_headers_to_remove: operations.request_remove,
            response_headers_to_add: operations.response_add,
            response_headers_to_remove: operations.response_remove,
            host_rewrite_specifier: operations
                .authority
                .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..ClusterWeight::default()
        };
        if of_all.is_none()
            && let Some(upstream) = takes_istio_mtls(context, destination)
        {
            alpn::announce(context.scope, &mut weight.typed_per_filter_config, upstream);
        }
        clusters.push(weight);
        action.hash_policy.extend(hashes(context, destination));
    }
    action.cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }));
}

/// How sessions of a rule's destinations are told apart: as the first of them
/// that has any does.
pub(super) fn session(context: Context<'_>, rule: &HttpRoute) -> Option<Any> {
    if !context.scope.snapshot.settings.features.persistent_sessions {
        return None;
    }
    let is_one = rule.route.len() == 1;
    let targets = rule.route.iter().filter(|target| is_one || target.weight > 0);
    let mut services = targets.filter_map(|target| service(context, target.destination.as_ref()?));
    services.find_map(|service| session::for_route(context.scope, service))
}

/// The service that a destination means: by its name, or by one that stands for
/// it (`ExternalName`).
fn service<'a>(context: Context<'a>, destination: &Destination) -> Option<&'a Arc<Service>> {
    let host = Hostname::new(&destination.host);
    context.scope.service(&host).or_else(|| context.scope.service_by_alias(&host))
}

/// The name of the service that a destination means.
pub(super) fn host(context: Context<'_>, destination: &Destination) -> Hostname {
    service(context, destination)
        .map_or_else(|| Hostname::new(&destination.host), |service| service.host.clone())
}

fn hashes(context: Context<'_>, destination: &Destination) -> Vec<HashPolicy> {
    let Some(service) = service(context, destination) else { return Vec::new() };
    let port = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    hash::http(context.scope, service, port, &destination.subset)
}

fn takes_istio_mtls(context: Context<'_>, destination: &Destination) -> Option<Upstream> {
    service(context, destination).and_then(|service| {
        alpn::takes_istio_mtls(context.scope, service, port(context, destination), &destination.subset)
    })
}

/// The port of a destination: as given, else the one that requests come to. A
/// gateway takes the only one of the service before its own.
pub(super) fn port(context: Context<'_>, destination: &Destination) -> u16 {
    if let Some(port) = &destination.port {
        return u16::try_from(port.number).unwrap_or(0);
    }
    if context.gateway == MESH_GATEWAY && context.port != 0 {
        return context.port;
    }
    match service(context, destination).map(|service| &service.ports[..]) {
        Some([only]) => only.number,
        _ => context.port,
    }
}

fn cluster(context: Context<'_>, destination: &Destination) -> String {
    let host = host(context, destination);
    ClusterName::outbound(port(context, destination), &destination.subset, &host).to_string()
}

fn mirrors(context: Context<'_>, rule: &HttpRoute) -> Vec<RequestMirrorPolicy> {
    let everything = || share::whole(100);
    let old = rule.mirror_percent.as_ref().map(|percent| share::whole(percent.value));
    let share = rule.mirror_percentage.as_ref().map(share::of).or(old).unwrap_or_else(everything);
    let first = rule.mirror.as_ref().map(|destination| (destination, share));
    let others = rule.mirrors.iter().filter_map(|mirror| {
        let share = mirror.percentage.as_ref().map_or_else(everything, share::of);
        Some((mirror.destination.as_ref()?, share))
    });
    // Without a share there is nothing to send.
    let all = first.into_iter().chain(others).filter(|(_, share)| share.numerator > 0);
    all.map(|(destination, share)| mirror(cluster(context, destination), share)).collect()
}

fn mirror(cluster: String, share: FractionalPercent) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: Some(share::fixed(share)),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}
