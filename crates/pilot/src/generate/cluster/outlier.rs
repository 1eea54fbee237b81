//! Outlier detection: servers that fail are left out for a while.

use proto::envoy::config::cluster::v3::OutlierDetection as ApiOutlier;
use proto::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use proto::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use proto::envoy::config::route::v3::HeaderMatcher;
use proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use proto::envoy::extensions::upstreams::http::v3::http_protocol_options::OutlierDetection as HttpOutlier;
use proto::envoy::r#type::matcher::v3::StringMatcher;
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::v3::Percent;
use proto::istio::networking::v1alpha3::OutlierDetection;

use super::draft::Draft;
use crate::generate::message::time_over_zero;

/// Applies it. `sends_unhealthy`: servers that are not ready are among the
/// endpoints for a reason, so they must never get requests in a panic.
pub(super) fn apply(draft: &mut Draft, outlier: &OutlierDetection, sends_unhealthy: bool) {
    let percent = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
    let mut made = ApiOutlier {
        interval: time_over_zero(outlier.interval),
        base_ejection_time: time_over_zero(outlier.base_ejection_time),
        max_ejection_percent: percent(outlier.max_ejection_percent),
        // Rates of success are never looked at, as in Istio.
        enforcing_success_rate: Some(0),
        ..ApiOutlier::default()
    };
    // Zero switches a rule off; Envoy wants that said twice.
    let enforcing = |number: u32| Some(if number > 0 { 100 } else { 0 });
    if let Some(number) = &outlier.consecutive_5xx_errors {
        made.consecutive_5xx = Some(number.value);
        made.enforcing_consecutive_5xx = enforcing(number.value);
    }
    if let Some(number) = &outlier.consecutive_gateway_errors {
        made.consecutive_gateway_failure = Some(number.value);
        made.enforcing_consecutive_gateway_failure = enforcing(number.value);
    }
    if outlier.split_external_local_origin_errors {
        made.split_external_local_origin_errors = true;
        let number = outlier.consecutive_local_origin_failures.as_ref().map_or(0, |number| number.value);
        if number > 0 {
            made.consecutive_local_origin_failure = Some(number);
            made.enforcing_consecutive_local_origin_failure = Some(100);
        }
        made.enforcing_local_origin_success_rate = Some(0);
    }
    draft.cluster.outlier_detection = Some(made);
    // Envoy's own default sends requests to all servers when half of them fail.
    if let Ok(health) = u32::try_from(outlier.min_health_percent) {
        let value = if sends_unhealthy { 0.0 } else { f64::from(health) };
        draft.cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold =
            Some(Percent { value });
    }
    if !outlier.outlier_detection_http_error_codes.is_empty() {
        draft.options().outlier_detection =
            Some(HttpOutlier { error_matcher: Some(codes(&outlier.outlier_detection_http_error_codes)) });
    }
}

/// Only these codes are failures.
fn codes(codes: &[u32]) -> MatchPredicate {
    let code = |code: &u32| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".into(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(code.to_string())),
                    ..StringMatcher::default()
                })),
                ..HeaderMatcher::default()
            }],
        })),
    };
    let mut rules: Vec<MatchPredicate> = codes.iter().map(code).collect();
    if rules.len() == 1 {
        return rules.remove(0);
    }
    MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
}
