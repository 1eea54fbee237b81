//! Which pages of other origins may call.

use proto::envoy::extensions::filters::http::cors::v3::CorsPolicy as Policy;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::istio::networking::v1alpha3::CorsPolicy;
use proto::istio::networking::v1alpha3::cors_policy::UnmatchedPreflights;

use super::{matching, share};

/// Envoy's form.
pub(super) fn policy(cors: &CorsPolicy) -> Policy {
    let origins = if cors.allow_origins.is_empty() {
        let exact = |origin: &String| matching::string(MatchPattern::Exact(origin.clone()));
        cors.allow_origin.iter().map(exact).collect()
    } else {
        let origins = cors.allow_origins.iter().filter_map(matching::exactly);
        origins.map(matching::string).collect()
    };
    Policy {
        allow_origin_string_match: origins,
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.seconds.to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials.as_ref().map(|allow| allow.value),
        filter_enabled: Some(share::fixed(share::whole(100))),
        forward_not_matching_preflights: Some(cors.unmatched_preflights() != UnmatchedPreflights::Ignore),
        ..Policy::default()
    }
}
