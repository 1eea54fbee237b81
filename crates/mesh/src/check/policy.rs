//! Rules of what the mesh configuration says of all connections and requests:
//! `defaultTrafficPolicy`, `defaultInboundHttpRetryPolicy`, `zoneAwareLbSetting`.

use std::collections::{BTreeMap, BTreeSet};

use proto::istio::mesh::v1alpha1::mesh_config::DefaultTrafficPolicy;
use proto::istio::networking::v1alpha3::connection_pool_settings::http_settings::H2UpgradePolicy;
use proto::istio::networking::v1alpha3::{
    ConnectionPoolSettings, HttpRetry, OutlierDetection, ZoneAwareLoadBalancerSetting,
};
use proto::wkt::Duration;

use super::{MILLISECOND, PLACES, nanos};

/// What a request may be repeated for, besides the numbers of statuses.
const RETRY_ON: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// A time that Envoy can take: at least a millisecond, and nothing finer.
fn time(field: &str, duration: Option<&Duration>) -> Result<(), String> {
    let Some(duration) = duration else { return Ok(()) };
    let nanos = nanos(Some(duration));
    if nanos < MILLISECOND || nanos % MILLISECOND != 0 {
        return Err(format!("{field}: expected 1ms or more, in whole milliseconds"));
    }
    Ok(())
}

fn count(field: &str, number: i32) -> Result<(), String> {
    if number < 0 { Err(format!("{field}: {number} is less than 0")) } else { Ok(()) }
}

pub(super) fn traffic(policy: &DefaultTrafficPolicy) -> Result<(), String> {
    if let Some(pool) = &policy.connection_pool {
        self::pool(pool).map_err(|error| format!("connectionPool{error}"))?;
    }
    policy.outlier_detection.as_ref().map_or(Ok(()), outlier)
}

fn pool(pool: &ConnectionPoolSettings) -> Result<(), String> {
    if pool.http.is_none() && pool.tcp.is_none() {
        return Err(": has neither http nor tcp: leave it out, or set one of them".to_owned());
    }
    if let Some(http) = &pool.http {
        for (field, number) in [
            (".http.http1MaxPendingRequests", http.http1_max_pending_requests),
            (".http.http2MaxRequests", http.http2_max_requests),
            (".http.maxRequestsPerConnection", http.max_requests_per_connection),
            (".http.maxRetries", http.max_retries),
            (".http.maxConcurrentStreams", http.max_concurrent_streams),
        ] {
            count(field, number)?;
        }
        time(".http.idleTimeout", http.idle_timeout.as_ref())?;
        if http.use_client_protocol && http.h2_upgrade_policy() == H2UpgradePolicy::Upgrade {
            return Err(".http.useClientProtocol: excludes h2UpgradePolicy UPGRADE: keep one".to_owned());
        }
    }
    if let Some(tcp) = &pool.tcp {
        count(".tcp.maxConnections", tcp.max_connections)?;
        time(".tcp.connectTimeout", tcp.connect_timeout.as_ref())?;
        time(".tcp.maxConnectionDuration", tcp.max_connection_duration.as_ref())?;
        // Zero is none.
        let idle = tcp.idle_timeout.as_ref().filter(|idle| nanos(Some(idle)) / MILLISECOND != 0);
        time(".tcp.idleTimeout", idle)?;
        if let Some(keepalive) = &tcp.tcp_keepalive {
            time(".tcp.tcpKeepalive.time", keepalive.time.as_ref())?;
            time(".tcp.tcpKeepalive.interval", keepalive.interval.as_ref())?;
        }
    }
    Ok(())
}

fn outlier(outlier: &OutlierDetection) -> Result<(), String> {
    time("outlierDetection.baseEjectionTime", outlier.base_ejection_time.as_ref())?;
    time("outlierDetection.interval", outlier.interval.as_ref())?;
    let local = outlier.consecutive_local_origin_failures.as_ref().map_or(0, |count| count.value);
    if local > 0 && !outlier.split_external_local_origin_errors {
        return Err(
            "outlierDetection.consecutiveLocalOriginFailures: counts with splitExternalLocalOriginErrors: true only"
                .to_owned(),
        );
    }
    for (field, percent) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if !(0..=100).contains(&percent) {
            return Err(format!("outlierDetection.{field}: {percent} is no percentage: expected 0 to 100"));
        }
    }
    Ok(())
}

pub(super) fn retry(retry: &HttpRetry) -> Result<(), String> {
    count("attempts", retry.attempts)?;
    let says_more = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some()
        || retry.backoff.is_some();
    if retry.attempts == 0 && says_more {
        return Err("attempts: 0 means that nothing is repeated: leave the other fields out".to_owned());
    }
    time("perTryTimeout", retry.per_try_timeout.as_ref())?;
    time("backoff", retry.backoff.as_ref())?;
    let is_known = |name: &str| RETRY_ON.contains(&name) || name.parse().is_ok_and(is_status);
    if retry.retry_on.is_empty() {
        return Ok(());
    }
    match retry.retry_on.split(',').find(|name| !is_known(name)) {
        Some(name) => Err(format!("retryOn: {name:?} is none of {} and no status", RETRY_ON.join(", "))),
        None => Ok(()),
    }
}

/// What a retry policy of inbound requests says and what has no effect there.
pub(super) fn without_effect(retry: &HttpRetry) -> Vec<String> {
    let set = [
        ("perTryTimeout", retry.per_try_timeout.is_some()),
        ("retryRemoteLocalities", retry.retry_remote_localities.is_some()),
        ("retryIgnorePreviousHosts", retry.retry_ignore_previous_hosts.is_some()),
    ];
    let set = set.into_iter().filter(|(_, is_set)| *is_set);
    set.map(|(field, _)| {
        format!("defaultInboundHttpRetryPolicy.{field}: has no effect on inbound requests: there is one destination")
    })
    .collect()
}

/// Whether it is a status that HTTP knows.
const fn is_status(status: u16) -> bool {
    matches!(
        status,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
            | 500..=508 | 510 | 511
    )
}

pub(super) fn zones(setting: &ZoneAwareLoadBalancerSetting) -> Result<(), String> {
    if let Some(place) = setting.failover_priority.iter().find(|label| PLACES.contains(&label.as_str())) {
        return Err(format!(
            ".failoverPriority: {place}: regions and zones are looked after anyway: leave it out"
        ));
    }
    for (index, pair) in setting.failover.iter().enumerate() {
        super::regions(&format!(".failover[{index}]"), &pair.from, &pair.to)?;
    }
    Ok(())
}

/// Localities of a list: no two may mean the same place.
pub(super) fn localities<'a>(at: &str, all: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
    let mut seen: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for locality in all {
        let wildcards = locality.matches('*').count();
        if wildcards > 1 || wildcards == 1 && !locality.ends_with('*') {
            return Err(format!("{at}: {locality:?}: only one * may be in it, at the end"));
        }
        let parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!("{at}: {locality:?}: expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE"));
        }
        let (region, zone, subzone) =
            (parts[0], parts.get(1).copied().unwrap_or("*"), parts.get(2).copied().unwrap_or("*"));
        let zones = seen.get(region);
        let overlaps = seen.contains_key("*")
            || zones.is_some_and(|zones| {
                parts.len() == 1
                    || zones.contains_key("*")
                    || zones.get(zone).is_some_and(|subzones| {
                        parts.len() == 2 || subzones.contains("*") || subzones.contains(subzone)
                    })
            });
        if overlaps {
            return Err(format!("{at}: {locality:?} overlaps with another one: keep one of them"));
        }
        seen.entry(region).or_default().entry(zone).or_default().insert(subzone);
    }
    Ok(())
}
