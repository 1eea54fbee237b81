//! Route configurations (RDS, and those inside inbound listeners).

mod action;
mod matching;
mod retry;
mod virtual_host;

use std::collections::BTreeMap;
use std::sync::Arc;

use names::{ClusterName, Hostname, cluster_name};
use prost_types::Duration;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::envoy::config::route::v3::{
    Decorator, DirectResponseAction, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch,
    VirtualHost, route_match,
};

use super::message::seconds;
use crate::protocol::Protocol;
use crate::scope::Scope;
use crate::snapshot::Service;

/// Largest body of a direct response, bytes.
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// Route configurations of all outbound HTTP listeners whose name is wanted.
pub(super) fn outbound(scope: Scope<'_>, is_wanted: &dyn Fn(&str) -> bool) -> Vec<RouteConfiguration> {
    let mut shared: BTreeMap<u16, Vec<&Arc<Service>>> = BTreeMap::new();
    let mut made = Vec::new();
    for service in scope.services() {
        for port in &service.ports {
            // A port that may carry HTTP is also reached by way of the listener
            // that all HTTP services of its number share.
            if port.protocol.is_http() || port.protocol == Protocol::Auto {
                shared.entry(port.number).or_default().push(service);
            }
            let name = format!("{}:{}", service.host, port.number);
            if port.protocol == Protocol::Auto && is_wanted(&name) {
                // The listener is the service's own: whatever name a request bears, it is meant.
                made.push(of_service(scope, &name, service, port.number));
            }
        }
    }
    for (port, services) in shared {
        let name = port.to_string();
        if is_wanted(&name) {
            made.push(configuration(name, finish(scope, virtual_host::of_port(scope, port, &services))));
        }
    }
    made
}

/// The routes of one port of a service, for requests that name it in any way.
pub(super) fn of_service(scope: Scope<'_>, name: &str, service: &Service, port: u16) -> RouteConfiguration {
    let mut hosts = virtual_host::of_service(scope, service, port);
    hosts.iter_mut().for_each(|host| host.domains = vec!["*".into()]);
    configuration(name.to_owned(), hosts)
}

fn configuration(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        // Routes and clusters come on one stream, clusters first; a missing one must not void all routes.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// Adds where requests go that no service takes.
fn finish(scope: Scope<'_>, mut hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    let (name, action) = if scope.allows_any_outbound() {
        let route = RouteAction {
            timeout: seconds(0),
            max_grpc_timeout: seconds(0),
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster_name::PASSTHROUGH.into())),
            ..RouteAction::default()
        };
        ("allow_any", Action::Route(route))
    } else {
        ("block_all", Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() }))
    };
    hosts.push(VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Route {
            name: name.into(),
            r#match: Some(everything()),
            action: Some(action),
            ..Route::default()
        }],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    });
    hosts
}

pub(super) fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
        ..RouteMatch::default()
    }
}

/// Names the request in traces: the service and its port, then the path.
fn decorator(host: &str, port: u16, path: &str) -> Option<Decorator> {
    Some(Decorator { operation: format!("{host}:{port}{path}"), propagate: None })
}

/// The route to a service that no VirtualService speaks of.
fn default_route(scope: Scope<'_>, host: &Hostname, port: u16) -> Route {
    let action = RouteAction {
        timeout: seconds(0),
        max_grpc_timeout: seconds(0),
        retry_policy: retry::default_policy(scope),
        cluster_specifier: Some(ClusterSpecifier::Cluster(ClusterName::outbound(port, "", host).to_string())),
        ..RouteAction::default()
    };
    Route {
        name: "default".into(),
        r#match: Some(everything()),
        decorator: decorator(host.as_str(), port, "/*"),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// Routes of requests to the proxy's own workload.
pub(super) fn inbound(
    _: Scope<'_>,
    service: Option<&Service>,
    cluster: &str,
    port: u16,
) -> RouteConfiguration {
    let zero = || Some(Duration::default());
    let action = RouteAction {
        timeout: zero(),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: zero(),
            grpc_timeout_header_max: zero(),
            ..MaxStreamDuration::default()
        }),
        // Safe at any method: the request has not reached the workload.
        retry_policy: Some(RetryPolicy {
            retry_on: "reset-before-request".into(),
            num_retries: Some(2),
            ..RetryPolicy::default()
        }),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..RouteAction::default()
    };
    let host = service.map_or("", |service| service.host.as_str());
    RouteConfiguration {
        name: cluster.into(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".into()],
            routes: vec![Route {
                name: "default".into(),
                r#match: Some(everything()),
                decorator: decorator(host, port, "/*"),
                action: Some(Action::Route(action)),
                ..Route::default()
            }],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    }
}
