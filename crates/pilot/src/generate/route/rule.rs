//! From rules of a VirtualService to routes, for sidecars and gateways alike.

use proto::Any;
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use proto::envoy::config::route::v3::route_match::PathSpecifier;
use proto::envoy::config::route::v3::{Decorator, Route, RouteMatch};
use proto::istio::networking::v1alpha3::{HttpMatchRequest, HttpRoute};

use super::header::Operations;
use super::{cors, fault, forward, matching, reply};
use crate::generate::filter::session;
use crate::generate::message::{api_path, metadata, structure};
use crate::scope::Scope;
use crate::snapshot::virtual_service::Entry;

/// Where rules are translated for.
#[derive(Clone, Copy, Debug)]
pub(in crate::generate) struct Context<'a> {
    pub(in crate::generate) scope: Scope<'a>,
    /// The VirtualService.
    pub(in crate::generate) entry: &'a Entry,
    /// `mesh` for sidecars, else the gateway as `NAMESPACE/NAME`.
    pub(in crate::generate) gateway: &'a str,
    /// Port that requests come to: of the service, or of the gateway's server;
    /// 0 where they name it themselves (HTTP proxy, Unix socket).
    pub(in crate::generate) port: u16,
    /// Whether they come inside TLS that the gateway ends.
    pub(in crate::generate) is_tls: bool,
}

/// The routes of a VirtualService, as far as they can be reached; none where no
/// rule applies.
pub(in crate::generate) fn routes(context: Context<'_>) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in context.entry.spec.http.iter().filter(|rule| can_act(rule)) {
        if rule.r#match.is_empty() {
            routes.extend(route(context, rule, None));
            break;
        }
        for matcher in rule.r#match.iter().filter(|matcher| matching::applies(matcher, context)) {
            let Some(route) = route(context, rule, Some(matcher)) else { continue };
            let is_last = is_everything(&route);
            routes.push(route);
            // Nothing gets past a route that takes everything.
            if is_last {
                return routes;
            }
        }
    }
    routes
}

/// Whether a route takes every request.
pub(in crate::generate) fn is_everything(route: &Route) -> bool {
    route.r#match.as_ref().is_some_and(matching::is_everything)
}

/// Whether a rule leads anywhere: a route without a destination makes Envoy
/// refuse all others.
fn can_act(rule: &HttpRoute) -> bool {
    let leads = match &rule.route[..] {
        [only] => only.destination.is_some(),
        several => several.iter().any(|target| target.weight > 0 && target.destination.is_some()),
    };
    leads || rule.redirect.is_some() || rule.direct_response.is_some()
}

/// The route of one match of a rule.
fn route(context: Context<'_>, rule: &HttpRoute, matcher: Option<&HttpMatchRequest>) -> Option<Route> {
    let Entry { namespace, name, .. } = context.entry;
    let path = api_path("networking.istio.io", "virtual-service", namespace, name);
    let operations = Operations::new(rule.headers.as_ref());
    let mut route = Route {
        name: match matcher.map(|matcher| &matcher.name).filter(|name| !name.is_empty()) {
            Some(name) => format!("{}.{name}", rule.name),
            None => rule.name.clone(),
        },
        r#match: Some(matching::route_match(matcher)),
        metadata: Some(metadata([("istio", structure([("config", path)]))])),
        stat_prefix: matcher.map(|matcher| matcher.stat_prefix.clone()).unwrap_or_default(),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations.response_add,
        response_headers_to_remove: operations.response_remove,
        ..Route::default()
    };
    let mut destination = None;
    if let Some(redirect) = &rule.redirect {
        route.action = Some(Action::Redirect(reply::redirect(redirect, context.port, context.is_tls)?));
    } else if let Some(response) = &rule.direct_response {
        route.action = Some(Action::DirectResponse(reply::direct(response)));
    } else {
        let action = forward::action(context, rule, operations.authority, &mut route);
        if let Some(ClusterSpecifier::Cluster(_)) = &action.cluster_specifier {
            destination = rule.route.first().and_then(|target| target.destination.as_ref());
        }
        route.action = Some(Action::Route(action));
        session::set(&mut route.typed_per_filter_config, forward::session(context, rule));
    }
    // Traces name the destination, or the VirtualService where there are several or none.
    let operation = match destination {
        Some(destination) => {
            format!("{}:{}", forward::host(context, destination), forward::port(context, destination))
        }
        None => format!("{name}:{}", context.port),
    };
    let path = route.r#match.as_ref().map(path_of).unwrap_or_default();
    route.decorator = Some(Decorator { operation: operation + &path, propagate: None });
    if let Some(fault) = rule.fault.as_ref().and_then(fault::fault) {
        route.typed_per_filter_config.insert("envoy.filters.http.fault".into(), Any::pack(&fault));
    }
    // The library of gRPC refuses what is set for a filter that it does not know.
    if let Some(cors) = rule.cors_policy.as_ref().filter(|_| !context.scope.proxy.is_proxyless) {
        route
            .typed_per_filter_config
            .insert("envoy.filters.http.cors".into(), Any::pack(&cors::policy(cors)));
    }
    Some(route)
}

fn path_of(matcher: &RouteMatch) -> String {
    match &matcher.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex.clone(),
        _ => "/*".into(),
    }
}
