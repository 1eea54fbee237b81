//! What a route does with a request.

use std::collections::BTreeMap;

use names::{ClusterName, Hostname};
use prost_types::Duration;
use proto::Any;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::envoy::config::core::v3::{DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent};
use proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proto::envoy::config::route::v3::route::Action;
use proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster,
};
use proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use proto::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use proto::envoy::r#type::v3::FractionalPercent;
use proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use proto::istio::networking::v1alpha3::headers::HeaderOperations;
use proto::istio::networking::v1alpha3::http_body::Specifier as Body;
use proto::istio::networking::v1alpha3::http_fault_injection::abort::ErrorType;
use proto::istio::networking::v1alpha3::http_fault_injection::delay::HttpDelayType;
use proto::istio::networking::v1alpha3::http_redirect::{RedirectPort, RedirectPortSelection};
use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{
    Destination, HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRoute, HttpRouteDestination, Percent,
};

use super::{decorator, matching, retry};
use crate::generate::message::{api_path, metadata, seconds, structure};
use crate::scope::Scope;
use crate::snapshot::virtual_service::Entry;

/// Where a rule stands and for which host and port it is translated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) entry: &'a Entry,
    pub(super) host: &'a Hostname,
    pub(super) port: u16,
}

/// Whether a rule leads anywhere. One that delegates does not yet, and a route
/// without a destination makes Envoy refuse all others.
pub(super) fn can_act(rule: &HttpRoute) -> bool {
    let leads = match &rule.route[..] {
        [only] => only.destination.is_some(),
        several => several.iter().any(|target| target.weight > 0 && target.destination.is_some()),
    };
    leads || rule.redirect.is_some() || rule.direct_response.is_some()
}

/// The route of one match of a rule.
pub(super) fn route(context: Context<'_>, rule: &HttpRoute, matcher: Option<&HttpMatchRequest>) -> Route {
    let Entry { namespace, name, .. } = context.entry;
    let path = api_path("networking.istio.io", "virtual-service", namespace, name);
    let mut route = Route {
        name: names(rule, matcher),
        r#match: Some(matching::route_match(matcher)),
        metadata: Some(metadata([("istio", structure([("config", path)]))])),
        stat_prefix: matcher.map(|matcher| matcher.stat_prefix.clone()).unwrap_or_default(),
        ..Route::default()
    };
    let rewritten = set_headers(&mut route, rule);
    if let Some(redirect) = &rule.redirect {
        route.action = Some(Action::Redirect(self::redirect(redirect, context.port)));
    } else if let Some(response) = &rule.direct_response {
        let body = response.body.as_ref().and_then(|body| body.specifier.as_ref());
        let specifier = body.map(|body| match body {
            Body::String(text) => Specifier::InlineString(text.clone()),
            Body::Bytes(bytes) => Specifier::InlineBytes(bytes.clone().into()),
        });
        route.action = Some(Action::DirectResponse(DirectResponseAction {
            status: response.status,
            body: specifier
                .map(|specifier| DataSource { specifier: Some(specifier), ..DataSource::default() }),
            ..DirectResponseAction::default()
        }));
    } else {
        route.decorator = Some(operation(context, rule, matcher));
        let action = forward(context, rule, rewritten, &mut route);
        route.action = Some(Action::Route(action));
    }
    if let Some(fault) = &rule.fault {
        route
            .typed_per_filter_config
            .insert("envoy.filters.http.fault".into(), Any::pack(&self::fault(fault)));
    }
    route
}

fn names(rule: &HttpRoute, matcher: Option<&HttpMatchRequest>) -> String {
    match matcher.map(|matcher| matcher.name.as_str()) {
        Some(name) if !name.is_empty() && !rule.name.is_empty() => format!("{}.{name}", rule.name),
        Some(name) if !name.is_empty() => name.into(),
        _ => rule.name.clone(),
    }
}

/// Names the request in traces by its first destination.
fn operation(
    context: Context<'_>,
    rule: &HttpRoute,
    matcher: Option<&HttpMatchRequest>,
) -> proto::envoy::config::route::v3::Decorator {
    let uri = matcher.and_then(|matcher| matcher.uri.as_ref()).and_then(|uri| uri.match_type.as_ref());
    let path = match uri {
        None => "/*".to_owned(),
        Some(MatchType::Exact(path)) => path.clone(),
        Some(MatchType::Prefix(prefix)) => format!("{prefix}*"),
        Some(MatchType::Regex(pattern)) => pattern.clone(),
    };
    let first = rule.route.first().and_then(|target| target.destination.as_ref());
    let (host, port) = first.map_or_else(
        || (context.host.clone(), context.port),
        |first| (host(context, first), port(context, first)),
    );
    decorator(host.as_str(), port, &path).unwrap_or_default()
}

fn host(context: Context<'_>, destination: &Destination) -> Hostname {
    Hostname::resolve(&destination.host, &context.entry.namespace, &context.scope.snapshot.domain)
}

/// The port of a destination: as given, else the only one of the service, else
/// the one that the request came to.
fn port(context: Context<'_>, destination: &Destination) -> u16 {
    let given = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
    given.unwrap_or_else(|| {
        let service = context.scope.snapshot.service(&host(context, destination));
        match service.map(|service| &service.ports[..]) {
            Some([only]) => only.number,
            _ => context.port,
        }
    })
}

fn cluster(context: Context<'_>, destination: &Destination) -> String {
    let host = host(context, destination);
    ClusterName::outbound(port(context, destination), &destination.subset, &host).to_string()
}

fn forward(
    context: Context<'_>,
    rule: &HttpRoute,
    host_rewrite: Option<String>,
    route: &mut Route,
) -> RouteAction {
    let timeout = rule.timeout.map(Duration::from).or(seconds(0));
    let mut action = RouteAction {
        timeout,
        max_grpc_timeout: timeout,
        retry_policy: match &rule.retries {
            Some(retries) => retry::policy(retries),
            None => retry::default_policy(context.scope),
        },
        host_rewrite_specifier: host_rewrite.map(HostRewriteSpecifier::HostRewriteLiteral),
        ..RouteAction::default()
    };
    if let Some(rewrite) = &rule.rewrite {
        action.prefix_rewrite.clone_from(&rewrite.uri);
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(RegexMatcher { regex: regex.r#match.clone(), ..RegexMatcher::default() }),
                substitution: regex.rewrite.clone(),
            });
        }
        if !rewrite.authority.is_empty() {
            action.host_rewrite_specifier =
                Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone()));
        }
    }
    action.request_mirror_policies = mirrors(context, rule);
    match &rule.route[..] {
        [only] => {
            if let Some(destination) = &only.destination {
                action.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster(context, destination)));
            }
            if let Some(rewrite) = add_headers(route, only) {
                action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite));
            }
        }
        several => {
            let clusters = several
                .iter()
                .filter(|target| target.weight > 0)
                .filter_map(|target| weighted(context, target))
                .collect();
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters,
                ..WeightedCluster::default()
            }));
        }
    }
    action
}

fn weighted(context: Context<'_>, target: &HttpRouteDestination) -> Option<ClusterWeight> {
    let destination = target.destination.as_ref()?;
    let mut carrier = Route::default();
    let host = add_headers(&mut carrier, target);
    Some(ClusterWeight {
        name: cluster(context, destination),
        weight: u32::try_from(target.weight).ok(),
        request_headers_to_add: carrier.request_headers_to_add,
        request_headers_to_remove: carrier.request_headers_to_remove,
        response_headers_to_add: carrier.response_headers_to_add,
        response_headers_to_remove: carrier.response_headers_to_remove,
        host_rewrite_specifier: host.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..ClusterWeight::default()
    })
}

/// Applies the header operations of a rule; returns the host they set.
fn set_headers(route: &mut Route, rule: &HttpRoute) -> Option<String> {
    let headers = rule.headers.as_ref()?;
    operations(route, headers.request.as_ref(), headers.response.as_ref())
}

fn add_headers(route: &mut Route, target: &HttpRouteDestination) -> Option<String> {
    let headers = target.headers.as_ref()?;
    operations(route, headers.request.as_ref(), headers.response.as_ref())
}

fn operations(
    route: &mut Route,
    request: Option<&HeaderOperations>,
    response: Option<&HeaderOperations>,
) -> Option<String> {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let mut host = None;
    if let Some(request) = request {
        host = request.set.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
        route.request_headers_to_add.extend(headers(
            &request.set,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
            is_host,
        ));
        route.request_headers_to_add.extend(headers(
            &request.add,
            HeaderAppendAction::AppendIfExistsOrAdd,
            is_host,
        ));
        route.request_headers_to_remove.extend(request.remove.iter().cloned());
    }
    if let Some(response) = response {
        let none = |_: &str| false;
        route.response_headers_to_add.extend(headers(
            &response.set,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
            none,
        ));
        route.response_headers_to_add.extend(headers(
            &response.add,
            HeaderAppendAction::AppendIfExistsOrAdd,
            none,
        ));
        route.response_headers_to_remove.extend(response.remove.iter().cloned());
    }
    host
}

fn headers(
    values: &BTreeMap<String, String>,
    action: HeaderAppendAction,
    skip: impl Fn(&str) -> bool,
) -> Vec<HeaderValueOption> {
    values
        .iter()
        .filter(|(name, _)| !skip(name))
        .map(|(name, value)| HeaderValueOption {
            header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..HeaderValue::default() }),
            append_action: action.into(),
            ..HeaderValueOption::default()
        })
        .collect()
}

/// `numerator / 1,000,000`; a percentage has four decimals.
fn fraction(percent: f64) -> FractionalPercent {
    // Between 0 and 100 after validation, so the product fits.
    let numerator = (percent.clamp(0.0, 100.0) * 10_000.0) as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million.into() }
}

fn whole(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }
}

fn mirrors(context: Context<'_>, rule: &HttpRoute) -> Vec<RequestMirrorPolicy> {
    let share =
        |percentage: Option<&Percent>| percentage.map_or(whole(100), |percent| fraction(percent.value));
    let one = |destination: &Destination, share: FractionalPercent| RequestMirrorPolicy {
        cluster: cluster(context, destination),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(share),
            ..RuntimeFractionalPercent::default()
        }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    };
    let mut all = Vec::new();
    if let Some(mirror) = &rule.mirror {
        let share = match (&rule.mirror_percentage, &rule.mirror_percent) {
            (Some(percentage), _) => share(Some(percentage)),
            (None, Some(percent)) => whole(percent.value),
            (None, None) => share(None),
        };
        all.push(one(mirror, share));
    }
    for mirror in &rule.mirrors {
        if let Some(destination) = &mirror.destination {
            all.push(one(destination, share(mirror.percentage.as_ref())));
        }
    }
    // Nothing to send: Envoy would still set up the mirror.
    all.retain(|policy| {
        let share = policy.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value);
        share.is_none_or(|share| share.numerator > 0)
    });
    all
}

fn redirect(redirect: &HttpRedirect, listener_port: u16) -> RedirectAction {
    let port = match &redirect.redirect_port {
        Some(RedirectPort::Port(port)) => *port,
        Some(RedirectPort::DerivePort(derive))
            if *derive == RedirectPortSelection::FromRequestPort as i32 =>
        {
            listener_port.into()
        }
        _ => 0,
    };
    let code = match redirect.redirect_code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: port,
        response_code: code.into(),
        scheme_rewrite_specifier: text(&redirect.scheme).map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: text(&redirect.uri).map(PathRewriteSpecifier::PathRedirect),
        ..RedirectAction::default()
    }
}

fn fault(fault: &HttpFaultInjection) -> HttpFault {
    let delay = fault.delay.as_ref().map(|delay| FaultDelay {
        percentage: Some(match (&delay.percentage, delay.percent) {
            (Some(percentage), _) => fraction(percentage.value),
            (None, percent) if percent > 0 => whole(u32::try_from(percent).unwrap_or(0)),
            (None, _) => FractionalPercent::default(),
        }),
        fault_delay_secifier: match &delay.http_delay_type {
            Some(HttpDelayType::FixedDelay(time)) => {
                Some(fault_delay::FaultDelaySecifier::FixedDelay((*time).into()))
            }
            _ => None,
        },
    });
    let abort = fault.abort.as_ref().map(|abort| FaultAbort {
        percentage: abort.percentage.as_ref().map(|percentage| fraction(percentage.value)),
        error_type: match &abort.error_type {
            Some(ErrorType::HttpStatus(status)) => {
                Some(fault_abort::ErrorType::HttpStatus(u32::try_from(*status).unwrap_or(500)))
            }
            Some(ErrorType::GrpcStatus(name)) => grpc_code(name).map(fault_abort::ErrorType::GrpcStatus),
            _ => None,
        },
        ..FaultAbort::default()
    });
    HttpFault { delay, abort, ..HttpFault::default() }
}

/// A gRPC status code by its name.
fn grpc_code(name: &str) -> Option<u32> {
    let codes = &config::validate::GRPC_CODES;
    codes.iter().position(|known| *known == name).and_then(|code| u32::try_from(code).ok())
}
