//! The routes to services that no VirtualService speaks of. They differ in a few
//! words, so one is made and changed for each.

use std::fmt::Write as _;

use bytes::Bytes;
use names::ClusterName;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::envoy::config::route::v3::{Decorator, Route, RouteAction};

use super::encoded::encoded;
use super::{everything, retry};
use crate::generate::filter::alpn::{self, Upstream};
use crate::generate::hash;
use crate::generate::message::seconds;
use crate::scope::Scope;
use crate::snapshot::Service;

/// Makes routes of services to one port after the other.
pub(super) struct Defaults<'a> {
    scope: Scope<'a>,
    /// The one of the last service, and what it announces.
    route: Route,
    announces: Option<Upstream>,
}

impl<'a> Defaults<'a> {
    pub(super) fn new(scope: Scope<'a>) -> Self {
        let action = RouteAction {
            timeout: seconds(0),
            max_grpc_timeout: seconds(0),
            retry_policy: retry::policy(scope.snapshot.mesh.default_http_retry_policy.as_ref(), false),
            cluster_specifier: Some(ClusterSpecifier::Cluster(String::new())),
            ..RouteAction::default()
        };
        let route = Route {
            name: "default".into(),
            r#match: Some(everything()),
            decorator: Some(Decorator::default()),
            action: Some(Action::Route(action)),
            ..Route::default()
        };
        Self { scope, route, announces: None }
    }

    /// The route to a port of a service.
    pub(super) fn route(&mut self, service: &Service, port: u16) -> Bytes {
        let host = &service.host;
        // Writing to a text does not fail.
        if let Some(decorator) = &mut self.route.decorator {
            decorator.operation.clear();
            write!(decorator.operation, "{host}:{port}/*").ok();
        }
        if let Some(Action::Route(action)) = &mut self.route.action {
            action.hash_policy = hash::http(self.scope, service, Some(port), "");
            if let Some(ClusterSpecifier::Cluster(name)) = &mut action.cluster_specifier {
                name.clear();
                write!(name, "{}", ClusterName::outbound(port, "", host)).ok();
            }
        }
        let announces = alpn::takes_istio_mtls(self.scope, service, port, "");
        if announces != self.announces {
            self.announces = announces;
            self.route.typed_per_filter_config.clear();
            if let Some(upstream) = announces {
                alpn::announce(self.scope, &mut self.route.typed_per_filter_config, upstream);
            }
        }
        encoded(&self.route)
    }
}
