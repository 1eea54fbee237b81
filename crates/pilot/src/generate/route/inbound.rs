//! Routes of requests to the proxy's own workload.

use prost_types::Duration;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::envoy::config::route::v3::{Decorator, Route, RouteAction, RouteConfiguration, VirtualHost};

use super::{everything, retry};
use crate::protocol::Protocol;
use crate::scope::Scope;

/// Routes of a port of the workload, which is also that of a service.
pub(in crate::generate) fn inbound(
    scope: Scope<'_>,
    host: &str,
    protocol: Protocol,
    cluster: &str,
    port: u16,
) -> RouteConfiguration {
    let zero = || Some(Duration::default());
    // Conditions before the first response are not told from those of a stream.
    let is_grpc = matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb);
    let retries = scope.snapshot.mesh.default_inbound_http_retry_policy.as_ref();
    let action = RouteAction {
        timeout: zero(),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: zero(),
            grpc_timeout_header_max: zero(),
            ..MaxStreamDuration::default()
        }),
        retry_policy: if is_grpc { None } else { retry::inbound(retries) },
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.into())),
        ..RouteAction::default()
    };
    RouteConfiguration {
        name: cluster.into(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{port}"),
            domains: vec!["*".into()],
            routes: vec![Route {
                name: "default".into(),
                r#match: Some(everything()),
                decorator: Some(Decorator { operation: format!("{host}:{port}/*"), propagate: None }),
                action: Some(Action::Route(action)),
                ..Route::default()
            }],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    }
}
