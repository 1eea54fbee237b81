//! Sessions that persist: the requests of one go to one endpoint, also while that
//! endpoint drains. The filter stands empty in every chain; virtual hosts and
//! routes say for which service it acts, and by which cookie or header.

use std::collections::BTreeMap;

use proto::Any;
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use proto::envoy::r#type::http::v3::Cookie;

use super::{Direction, Place};
use crate::generate::http;
use crate::scope::Scope;
use crate::snapshot::Service;

/// Name of the filter, and key of what routes set for it.
const FILTER: &str = "envoy.filters.http.stateful_session";

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Option<HttpFilter> {
    let is_on = scope.snapshot.settings.features.persistent_sessions && place.direction != Direction::Inbound;
    is_on.then(|| http::filter(FILTER, &StatefulSession::default()))
}

/// The filter of a service that an application calls which speaks xDS itself.
pub(in crate::generate) fn proxyless(scope: Scope<'_>, service: &Service) -> Option<HttpFilter> {
    Some(http::filter(FILTER, &of_service(scope, service)?))
}

/// How sessions of a service are told apart, in the form of a filter's settings
/// for a route; `None` for a service without.
pub(in crate::generate) fn for_route(scope: Scope<'_>, service: &Service) -> Option<Any> {
    let session = of_service(scope, service)?;
    Some(Any::pack(&StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) }))
}

/// Sets it on a route or virtual host.
pub(in crate::generate) fn set(settings: &mut BTreeMap<String, Any>, session: Option<Any>) {
    settings.extend(session.map(|session| (FILTER.to_owned(), session)));
}

fn of_service(scope: Scope<'_>, service: &Service) -> Option<StatefulSession> {
    let features = &scope.snapshot.settings.features;
    if !features.persistent_sessions {
        return None;
    }
    let labels = &features.session_labels;
    let state = match (labels.cookie(&service.labels), labels.header(&service.labels)) {
        (Some(cookie), _) => {
            let (name, path) = cookie.split_once(':').unwrap_or((cookie, "/"));
            // Envoy refuses all routes for a cookie without a name.
            if name.is_empty() {
                return None;
            }
            // Without a time to live it ends with the client's own session.
            let cookie = Cookie { name: name.into(), path: path.into(), ..Cookie::default() };
            let state = CookieBasedSessionState { cookie: Some(cookie) };
            ("envoy.http.stateful_session.cookie", Any::pack(&state))
        }
        (None, Some(header)) => {
            let state = HeaderBasedSessionState { name: header.into() };
            ("envoy.http.stateful_session.header", Any::pack(&state))
        }
        (None, None) => return None,
    };
    let session_state = TypedExtensionConfig { name: state.0.into(), typed_config: Some(state.1) };
    Some(StatefulSession { session_state: Some(session_state), ..StatefulSession::default() })
}
