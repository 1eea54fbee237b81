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

/// Failures in which the request was not processed, or the server asks to try again.
const DEFAULT_CONDITIONS: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const STATUS_CODES: &str = "retriable-status-codes";
const DEFAULT_RETRIES: u32 = 2;
/// After how many retries other priorities are looked at.
const PRIORITY_FREQUENCY: i32 = 2;

/// Statuses that HTTP names; other numbers are taken for conditions, as in Istio.
const STATUSES: [std::ops::RangeInclusive<u32>; 13] = [
    100..=103,
    200..=208,
    226..=226,
    300..=305,
    307..=308,
    400..=418,
    421..=426,
    428..=429,
    431..=431,
    451..=451,
    500..=508,
    510..=510,
    511..=511,
];

/// The policy of a route, of one without any the default; `None` for no retries.
/// Where a hash chooses the server, it does so again for a retry.
pub(super) fn policy(retries: Option<&HttpRetry>, is_hashed: bool) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        retry_on: DEFAULT_CONDITIONS.into(),
        num_retries: Some(DEFAULT_RETRIES),
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    };
    if !is_hashed {
        policy.retry_host_predicate.push(previous_hosts());
    }
    let Some(retries) = retries else { return Some(policy) };
    policy.num_retries = Some(u32::try_from(retries.attempts).ok().filter(|count| *count > 0)?);
    if !retries.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retries.retry_on);
    }
    policy.per_try_timeout = retries.per_try_timeout.map(Duration::from);
    if let Some(ignore) = &retries.retry_ignore_previous_hosts {
        policy.retry_host_predicate = if ignore.value { vec![previous_hosts()] } else { Vec::new() };
    }
    if retries.retry_remote_localities.as_ref().is_some_and(|remote| remote.value) {
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".into(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(Any::pack(
                &PreviousPrioritiesConfig { update_frequency: PRIORITY_FREQUENCY },
            ))),
        });
    }
    policy.retry_back_off = back_off(retries);
    Some(policy)
}

/// The policy towards the proxy's own workload, of which there is only one
/// server: which servers to take does not matter.
pub(super) fn inbound(retries: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        // Safe at any method: the request has not reached the workload.
        retry_on: "reset-before-request".into(),
        num_retries: Some(DEFAULT_RETRIES),
        ..RetryPolicy::default()
    };
    let Some(retries) = retries else { return Some(policy) };
    policy.num_retries = Some(u32::try_from(retries.attempts).ok().filter(|count| *count > 0)?);
    if !retries.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retries.retry_on);
    }
    policy.retry_back_off = back_off(retries);
    Some(policy)
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(Any::pack(
            &PreviousHostsPredicate::default(),
        ))),
    }
}

fn back_off(retries: &HttpRetry) -> Option<RetryBackOff> {
    let interval = retries.backoff?;
    Some(RetryBackOff { base_interval: Some(interval.into()), max_interval: None })
}

/// Splits status codes from the named conditions.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let (mut names, mut codes) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if STATUSES.iter().any(|range| range.contains(&code)) => codes.push(code),
            _ => names.push(part),
        }
    }
    let mut names = names.join(",");
    if !codes.is_empty() && !names.contains(STATUS_CODES) {
        // With codes alone it begins with a comma, as Istio's does; Envoy skips it.
        names.push(',');
        names.push_str(STATUS_CODES);
    }
    (names, codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_codes_are_told_apart() {
        assert_eq!(conditions("5xx, 503,reset"), ("5xx,reset,retriable-status-codes".into(), vec![503]));
        assert_eq!(conditions("reset,599"), ("reset,599".into(), vec![]));
        assert_eq!(conditions("503"), (",retriable-status-codes".into(), vec![503]));
        assert_eq!(conditions("retriable-status-codes,503").0, "retriable-status-codes");
    }

    #[test]
    fn a_hash_is_not_led_away_from_its_server() {
        assert!(policy(None, false).unwrap().retry_host_predicate.len() == 1);
        assert!(policy(None, true).unwrap().retry_host_predicate.is_empty());
        assert!(policy(Some(&HttpRetry::default()), false).is_none());
    }
}
