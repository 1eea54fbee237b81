//! Answers that Envoy gives itself.

use proto::envoy::config::core::v3::DataSource;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use proto::envoy::config::route::v3::{DirectResponseAction, RedirectAction};
use proto::istio::networking::v1alpha3::http_body::Specifier as Body;
use proto::istio::networking::v1alpha3::http_redirect::{RedirectPort, RedirectPortSelection};
use proto::istio::networking::v1alpha3::{HttpDirectResponse, HttpRedirect};

/// A redirect at a port that requests come to; `None` for a status that is no redirect.
pub(super) fn redirect(redirect: &HttpRedirect, port: u16, is_tls: bool) -> Option<RedirectAction> {
    let code = match redirect.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = if redirect.prefix_rewrite.is_empty() {
        PathRewriteSpecifier::PathRedirect(redirect.uri.clone())
    } else {
        PathRewriteSpecifier::PrefixRewrite(redirect.prefix_rewrite.clone())
    };
    let scheme = &redirect.scheme;
    Some(RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: target_port(redirect, port, is_tls),
        response_code: code.into(),
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(scheme.clone())),
        path_rewrite_specifier: Some(path),
        ..RedirectAction::default()
    })
}

/// The port in the location; 0 leaves it out, as that of the scheme may be.
fn target_port(redirect: &HttpRedirect, port: u16, is_tls: bool) -> u32 {
    let port = match &redirect.redirect_port {
        Some(RedirectPort::Port(port)) => *port,
        Some(RedirectPort::DerivePort(derive))
            if *derive == RedirectPortSelection::FromRequestPort as i32 =>
        {
            port.into()
        }
        Some(RedirectPort::DerivePort(_)) | None => 0,
    };
    let scheme = match redirect.scheme.as_str() {
        "" if is_tls => "https",
        "" => "http",
        scheme => scheme,
    };
    if matches!((scheme, port), ("http", 80) | ("https", 443)) { 0 } else { port }
}

/// A fixed answer.
pub(super) fn direct(response: &HttpDirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().and_then(|body| body.specifier.as_ref()).map(|body| match body {
        Body::String(text) => Specifier::InlineString(text.clone()),
        Body::Bytes(bytes) => Specifier::InlineBytes(bytes.clone().into()),
    });
    DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| DataSource { specifier: Some(specifier), ..DataSource::default() }),
        ..DirectResponseAction::default()
    }
}
