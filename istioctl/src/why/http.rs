//! The way of a request through one Envoy: the filters of requests, and its route.

use std::collections::BTreeMap;

use proto::Any;
use proto::envoy::config::core::v3::data_source::Specifier as DataSpecifier;
use proto::envoy::config::core::v3::substitution_format_string::Format;
use proto::envoy::config::route::v3::{FilterConfig, Route, RouteConfiguration, VirtualHost};
use proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use proto::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, Value as StateValue,
};
use proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use proto::envoy::extensions::filters::http::fault::v3::{HttpFault, fault_abort};
use proto::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication;
use proto::envoy::extensions::filters::http::lua::v3::Lua;
use proto::envoy::extensions::filters::http::rbac::v3::{Rbac as HttpRbac, RbacPerRoute};
use proto::envoy::extensions::filters::http::set_filter_state::v3::Config as SetFilterState;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use serde_json::{Value, json};

use super::connection::Payload;
use super::explanation::{Refusal, Trail, Way};
use super::filter::{self, Known};
use super::matching::{header, share, string};
use super::message::{kind, unpack};
use super::outgoing::Status;
use super::proxy::object;
use super::rbac::Facts;
use super::request::{Header, Request};
use super::route::{self, Found};
use super::summary::percent;
use super::token::{self, Outcome};
use super::tri::Tri;
use super::walk::{Hop, No, Walk, facts};

const RBAC: &str = "envoy.filters.http.rbac";
const JWT: &str = "envoy.filters.http.jwt_authn";
const CORS: &str = "envoy.filters.http.cors";
/// Key of what is offered to the server in TLS.
const PROTOCOLS: &str = "envoy.network.application_protocols";

/// A request on its way through one Envoy.
#[derive(Clone)]
pub(super) struct Passage<'a, 'r> {
    pub(super) hop: Hop<'a>,
    pub(super) request: Request,
    /// What filters said of it.
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) routes: &'r RouteConfiguration,
    /// Whether what is offered to the server in TLS may be set, by which filter.
    pub(super) announces: Option<String>,
    /// Whether Istio's own filter does that.
    pub(super) has_istio_alpn: bool,
}

impl<'a> Walk<'a> {
    /// A request comes to a connection manager.
    pub(super) fn requests(self, mut hop: Hop<'a>, manager: &HttpConnectionManager, mut trail: Trail) -> Way {
        let name = hop.proxy.name.clone();
        let payload = std::mem::replace(&mut hop.connection.payload, Payload::Bytes);
        let mut request = match payload {
            Payload::Http(request) if hop.connection.tls.is_none() => request,
            other => {
                let is_tls = hop.connection.tls.is_some() || matches!(other, Payload::Tls { .. });
                let (what, no) = if is_tls { ("TLS", No::Tls) } else { ("no HTTP", No::Close("DPE")) };
                let refusal = Refusal {
                    text: format!("takes requests of HTTP in plaintext, this is {what}"),
                    change: format!(
                        "give port {} of the service the right protocol (appProtocol, or the first part of the port's name)",
                        hop.connection.port
                    ),
                    ..Refusal::default()
                };
                return self.no(hop.proxy, hop.via, trail, "HTTP", no, refusal);
            }
        };
        if let Err(status) = request.normalize(manager) {
            let refusal = Refusal {
                text: format!("the path {} has escaped slashes", request.path),
                change: "write the path without %2F and %5C".into(),
                ..Refusal::default()
            };
            return self.answer_no(&hop, &request, trail, "HTTP", (status, "-"), refusal);
        }
        let scheme = if hop.ended.is_some() || request.scheme == "https" { "https" } else { "http" };
        request.make("x-forwarded-proto", Some(scheme));
        request.make("x-request-id", None);
        let routes = match &manager.route_specifier {
            Some(RouteSpecifier::RouteConfig(own)) => own,
            Some(RouteSpecifier::Rds(rds)) => {
                match hop.proxy.routes.get(&rds.route_config_name).map(|own| own.get()) {
                    Some(Ok(routes)) => routes,
                    Some(Err(why)) => {
                        return trail
                            .give_up(format!("route configuration {}: {why}", rds.route_config_name));
                    }
                    None => {
                        let refusal = Refusal {
                            text: format!(
                                "route configuration {} has not come from istiod",
                                rds.route_config_name
                            ),
                            change: format!("look at `istioctl proxy-status {name}` and istiod's log"),
                            ..Refusal::default()
                        };
                        return self.answer_no(&hop, &request, trail, "route", (404, "NR"), refusal);
                    }
                }
            }
            _ => return trail.give_up("routes chosen by scope".into()),
        };
        if hop.via == super::walk::Via::First {
            let config = if routes.name.is_empty() { "its own".to_owned() } else { routes.name.clone() };
            trail.pass(
                &name,
                "HTTP",
                format!("{} {}{}, routes {config}", request.method, request.authority, request.path),
            );
        }
        let metadata = hop.metadata.clone();
        let passage = Passage { hop, request, metadata, routes, announces: None, has_istio_alpn: false };
        self.pass_filters(passage, &manager.http_filters, trail)
    }

    /// The request passes the filters that are left.
    fn pass_filters(self, mut passage: Passage<'a, '_>, filters: &[HttpFilter], mut trail: Trail) -> Way {
        for (index, own) in filters.iter().enumerate() {
            let any = match &own.config_type {
                Some(http_filter::ConfigType::TypedConfig(any)) => Some(any.clone()),
                Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                    passage.hop.proxy.extensions.get(&own.name).cloned()
                }
                None => None,
            };
            let of_route = passage.of_route(&own.name);
            let is_off = match &of_route {
                Some(any) => unpack::<FilterConfig>(any).map_or(own.disabled, |config| config.disabled),
                None => own.disabled,
            };
            if is_off {
                continue;
            }
            let Some(any) = any else {
                trail.unsure(
                    &passage.hop.proxy.name,
                    "filter",
                    format!("{}: its settings are not known", own.name),
                );
                continue;
            };
            let full = kind(&any);
            if full.ends_with(".router.v3.Router") {
                break;
            }
            if let Some(config) = unpack::<HttpRbac>(&any) {
                let config = match of_route.as_ref().and_then(unpack::<RbacPerRoute>) {
                    Some(own) => own.rbac.unwrap_or_default(),
                    None => config,
                };
                match passage.policies(&config, &mut trail) {
                    Ok(()) => {}
                    Err(refusal) => {
                        return self.answer_no(
                            &passage.hop,
                            &passage.request,
                            trail,
                            "policy",
                            (403, "-"),
                            *refusal,
                        );
                    }
                }
            } else if let Some(config) = unpack::<JwtAuthentication>(&any) {
                if let Err((status, refusal)) = passage.token(&config, &mut trail) {
                    return self.answer_no(
                        &passage.hop,
                        &passage.request,
                        trail,
                        "token",
                        (status, "UAEX"),
                        *refusal,
                    );
                }
            } else if let Some(config) = unpack::<HttpFault>(&any) {
                let config = of_route.as_ref().and_then(unpack::<HttpFault>).unwrap_or(config);
                let (abort, text) = passage.fault(&config, &mut trail);
                if let Some(((status, flag), part)) = abort {
                    let refusal = Refusal {
                        text,
                        object: passage.route_object(),
                        change: "remove the fault of the route".into(),
                        ..Refusal::default()
                    };
                    let no = |trail: Trail| {
                        self.answer_no(
                            &passage.hop,
                            &passage.request,
                            trail,
                            "fault",
                            (status, flag),
                            refusal.clone(),
                        )
                    };
                    if part >= 1.0 {
                        return no(trail);
                    }
                    let aborted = no(trail.fork(part, "are aborted on purpose".into()));
                    let rest = trail.fork(1.0 - part, "go on".into());
                    let rest = self.pass_filters(passage.clone(), &filters[index + 1..], rest);
                    return trail.split(vec![aborted, rest]);
                }
            } else if full.ends_with(".cors.v3.Cors") {
                if passage.is_preflight_answered() {
                    let name = passage.hop.proxy.name.clone();
                    let object = passage.route_object();
                    return trail.answer(
                        &name,
                        "CORS",
                        "the preflight is answered by Envoy".into(),
                        object,
                        200,
                        "-",
                    );
                }
            } else if full.ends_with(".set_filter_state.v3.Config") {
                passage.announces = Some(own.name.clone());
            } else if let Some(config) = unpack::<Lua>(&any)
                && config.default_source_code.is_none()
                && config.inline_code.is_empty()
                && of_route.is_none()
            {
                // No code, so nothing is done.
            } else {
                passage.has_istio_alpn |= own.name == "istio.alpn";
                match filter::http(&full, &own.name) {
                    Known::Harmless => {}
                    Known::Asks if filter::is_asked_http(&any, &passage.metadata) == Tri::No => {}
                    Known::Asks => {
                        let text = format!("{}: asks {}", own.name, filter::asks_http(&any));
                        trail.unsure(&passage.hop.proxy.name, "filter", text);
                    }
                    _ => {
                        trail.unsure(&passage.hop.proxy.name, "filter", format!("{} ({full})", own.name));
                    }
                }
            }
        }
        self.route(&passage, trail)
    }

    /// Refuses a request with an answer; a call of gRPC gets a status of its own.
    pub(super) fn answer_no(
        self,
        hop: &Hop<'_>,
        request: &Request,
        trail: Trail,
        what: &'static str,
        (status, flag): (u16, &'static str),
        mut refusal: Refusal,
    ) -> Way {
        let mut seen = status;
        if request.is_grpc() {
            refusal.text += &format!(" (grpc-status {})", grpc_status(status));
            seen = 200;
        }
        self.no(hop.proxy, hop.via, trail, what, No::Answer(seen, flag), refusal)
    }
}

/// What Envoy makes of a status for a call of gRPC.
fn grpc_status(status: u16) -> u16 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

impl Passage<'_, '_> {
    /// The route that the request has now.
    pub(super) fn found(&self) -> Found<'_> {
        route::find(self.routes, &self.request, &|filter| self.metadata.get(filter).cloned())
    }

    fn current(&self) -> Option<(&VirtualHost, &Route)> {
        match self.found() {
            Found::Route(host, route) => Some((host, route)),
            _ => None,
        }
    }

    fn route_object(&self) -> Option<String> {
        self.current().and_then(|(_, route)| object(route.metadata.as_ref()))
    }

    /// A filter's settings for the request's route, the nearest of them.
    fn of_route(&self, filter: &str) -> Option<Any> {
        let (host, route) = self.current()?;
        let all = [
            &route.typed_per_filter_config,
            &host.typed_per_filter_config,
            &self.routes.typed_per_filter_config,
        ];
        all.into_iter().find_map(|own| own.get(filter)).cloned()
    }

    fn facts(&self) -> Facts<'_> {
        // Envoy believes the last address in the header where nobody says otherwise.
        let told = match self.request.header("x-forwarded-for") {
            Header::Value(value) => value.rsplit(',').next().and_then(|last| last.trim().parse().ok()),
            _ => None,
        };
        let facts = facts(&self.hop, &self.metadata);
        Facts { request: Some(&self.request), remote: told.or(facts.remote), ..facts }
    }

    fn policies(&mut self, config: &HttpRbac, trail: &mut Trail) -> Result<(), Box<Refusal>> {
        if config.matcher.is_some() {
            trail.unsure(&self.hop.proxy.name, "policy", "policies in a tree of matchers");
        }
        let rules = filter::Rules {
            rules: config.rules.as_ref(),
            shadow: config.shadow_rules.as_ref(),
            prefix: &config.shadow_rules_stat_prefix,
        };
        let marks = filter::policies(&rules, self.facts(), &self.hop.proxy.name, trail)?;
        filter::mark(&mut self.metadata, RBAC, marks);
        Ok(())
    }

    fn token(&mut self, config: &JwtAuthentication, trail: &mut Trail) -> Result<(), (u16, Box<Refusal>)> {
        let name = self.hop.proxy.name.clone();
        let wanted = token::show(&config.providers);
        let refusal = |text: String| {
            Box::new(Refusal {
                text,
                change: format!(
                    "send a token of {wanted}; or change the RequestAuthentication that asks for it"
                ),
                ..Refusal::default()
            })
        };
        match token::check(config, &self.request, self.is_preflight()) {
            Outcome::Free => {
                trail.pass(
                    &name,
                    "token",
                    format!("none is sent and none is needed; one that is sent must be of {wanted}"),
                );
                Ok(())
            }
            Outcome::Good(claims) => {
                trail.unsure(
                    &name,
                    "token",
                    format!("must be signed by its issuer and in its time: {wanted}"),
                );
                self.metadata.insert(JWT.into(), json!({ "payload": claims }));
                Ok(())
            }
            Outcome::Missing => Err((401, refusal("a token is needed and none is sent".into()))),
            Outcome::Bad(status, why) => Err((status, refusal(why))),
            Outcome::Unknown(what) => {
                trail.unsure(&name, "token", what);
                Ok(())
            }
        }
    }

    /// Status and share of the requests that are aborted on purpose, and the same in words.
    fn fault(&self, config: &HttpFault, trail: &mut Trail) -> (Option<(Status, f64)>, String) {
        let nothing = (None, String::new());
        let applies = Tri::all(config.headers.iter().map(|one| header(one, &self.request)));
        if applies != Tri::Yes || !config.downstream_nodes.is_empty() || !config.upstream_cluster.is_empty() {
            if applies != Tri::No && (config.abort.is_some() || config.delay.is_some()) {
                trail.unsure(&self.hop.proxy.name, "fault", "for some requests only");
            }
            return nothing;
        }
        if let Some(delay) = &config.delay
            && let Some(FaultDelaySecifier::FixedDelay(time)) = &delay.fault_delay_secifier
        {
            let part = delay.percentage.as_ref().map_or(0.0, share);
            if part > 0.0 {
                let text = format!("{} are delayed by {time}", percent(part));
                trail.pass(&self.hop.proxy.name, "fault", text).object = self.route_object();
            }
        }
        let Some(abort) = &config.abort else { return nothing };
        let part = abort.percentage.as_ref().map_or(0.0, share);
        let status = match &abort.error_type {
            Some(fault_abort::ErrorType::HttpStatus(status)) => u16::try_from(*status).unwrap_or(0),
            // A call gets 200 with that status.
            Some(fault_abort::ErrorType::GrpcStatus(_)) => 200,
            _ => return nothing,
        };
        if part <= 0.0 {
            return nothing;
        }
        let text = match &abort.error_type {
            Some(fault_abort::ErrorType::GrpcStatus(code)) => {
                format!("{} get grpc-status {code} on purpose", percent(part))
            }
            _ => format!("{} get {status} on purpose", percent(part)),
        };
        (Some(((status, "FI"), part)), text)
    }

    fn is_preflight(&self) -> bool {
        let has = |name: &str| self.request.header(name) != Header::Missing;
        self.request.method == "OPTIONS" && has("origin") && has("access-control-request-method")
    }

    fn is_preflight_answered(&self) -> bool {
        let policy = self.of_route(CORS).as_ref().and_then(unpack::<CorsPolicy>);
        let (Some(policy), Header::Value(origin)) = (policy, self.request.header("origin")) else {
            return false;
        };
        let fits =
            policy.allow_origin_string_match.iter().any(|matcher| string(matcher, &origin) == Tri::Yes);
        self.is_preflight() && (fits || policy.forward_not_matching_preflights == Some(false))
    }

    /// What is offered to the server in TLS, where filters or routes say so.
    pub(super) fn announced(&self, of_cluster: Option<&Any>, is_http2: bool) -> Option<Vec<String>> {
        if self.has_istio_alpn {
            let own: &[&str] = if is_http2 {
                &["istio-h2", "istio", "h2"]
            } else {
                &["istio-http/1.1", "istio", "http/1.1"]
            };
            return Some(own.iter().map(|&text| text.into()).collect());
        }
        let name = self.announces.as_ref()?;
        let any = of_cluster.cloned().or_else(|| self.of_route(name))?;
        let config = unpack::<SetFilterState>(&any)?;
        let value = config.on_request_headers.into_iter().find_map(|value| match value.key {
            Some(Key::ObjectKey(key)) if key == PROTOCOLS => value.value,
            _ => None,
        })?;
        let StateValue::FormatString(format) = value;
        let text = match format.format? {
            Format::TextFormat(text) => text,
            Format::TextFormatSource(source) => match source.specifier? {
                DataSpecifier::InlineString(text) => text,
                _ => return None,
            },
            _ => return None,
        };
        Some(text.split(',').map(str::to_owned).collect())
    }

    /// Name of the filter that announces.
    pub(super) fn announcer(&self) -> Option<&str> {
        self.announces.as_deref()
    }
}
