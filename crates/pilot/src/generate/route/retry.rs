//! When and how a request is sent again.

use prost_types::Duration;
use proto::Any;
use proto::envoy::config::route::v3::RetryPolicy;
use proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use proto::istio::networking::v1alpha3::HttpRetry;

use crate::scope::Scope;

/// Failures in which the request was not processed, or the server asks to try again.
const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const STATUS_CODES: &str = "retriable-status-codes";
const DEFAULT_RETRIES: u32 = 2;

/// The policy of routes that name none.
pub(super) fn default_policy(scope: Scope<'_>) -> Option<RetryPolicy> {
    match &scope.snapshot.mesh.default_http_retry_policy {
        Some(retries) => policy(retries),
        None => Some(base(DEFAULT_RETRIES)),
    }
}

fn base(retries: u32) -> RetryPolicy {
    RetryPolicy {
        retry_on: DEFAULT_CONDITIONS.into(),
        num_retries: Some(retries),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".into(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(Any::pack(
                &PreviousHostsPredicate::default(),
            ))),
        }],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    }
}

/// The policy of a route; `None` for no retries.
pub(super) fn policy(retries: &HttpRetry) -> Option<RetryPolicy> {
    let count = u32::try_from(retries.attempts).ok().filter(|count| *count > 0)?;
    let mut policy = base(count);
    if !retries.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retries.retry_on);
    }
    policy.per_try_timeout = retries.per_try_timeout.map(Duration::from);
    if retries.retry_ignore_previous_hosts.as_ref().is_some_and(|ignore| !ignore.value) {
        policy.retry_host_predicate.clear();
    }
    if retries.retry_remote_localities.as_ref().is_some_and(|remote| remote.value) {
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".into(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(Any::pack(
                &PreviousPrioritiesConfig { update_frequency: i32::try_from(DEFAULT_RETRIES).unwrap_or(2) },
            ))),
        });
    }
    if let Some(backoff) = retries.backoff {
        policy.retry_back_off =
            Some(RetryBackOff { base_interval: Some(backoff.into()), max_interval: None });
    }
    Some(policy)
}

/// Splits status codes from the named conditions.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let (mut names, mut codes) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&STATUS_CODES) {
        names.push(STATUS_CODES);
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_told_apart() {
        assert_eq!(conditions("5xx, 503,reset"), ("5xx,reset,retriable-status-codes".into(), vec![503]));
        assert_eq!(conditions("reset"), ("reset".into(), vec![]));
    }
}
