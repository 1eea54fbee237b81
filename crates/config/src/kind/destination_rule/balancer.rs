//! Rules of `loadBalancer` but those on localities.

use std::collections::BTreeSet;

use proto::istio::networking::v1alpha3::LoadBalancerSettings;
use proto::istio::networking::v1alpha3::load_balancer_settings::consistent_hash_lb::{
    HashAlgorithm, HashKey, HttpCookie,
};
use proto::istio::networking::v1alpha3::load_balancer_settings::{
    BackendUtilizationLb, ConsistentHashLb, LbPolicy, SimpleLb,
};

use crate::validate::{Checker, is_header_name};

/// The largest ring that Envoy makes.
const RING_LIMIT: u64 = 8 << 20;
/// The largest table of Maglev's that Envoy makes.
const TABLE_LIMIT: u64 = 5_000_011;

pub(super) fn check(at: &str, settings: &LoadBalancerSettings, checker: &mut Checker) {
    checker.duration(&format!("{at}.warmupDurationSecs"), settings.warmup_duration_secs.as_ref());
    if let Some(warmup) = &settings.warmup {
        let at = format!("{at}.warmup");
        match &warmup.duration {
            Some(duration) => checker.duration(&format!("{at}.duration"), Some(duration)),
            None => checker.error(format!("{at}.duration"), "is missing: say how long new endpoints warm up"),
        }
        if let Some(percent) = warmup.minimum_percent.as_ref().map(|percent| percent.value)
            && !(0.0..=100.0).contains(&percent)
        {
            let message = format!("{percent} is not a percentage: expected 0 to 100");
            checker.error(format!("{at}.minimumPercent"), message);
        }
        if let Some(aggression) = warmup.aggression.as_ref().map(|aggression| aggression.value)
            && !(aggression > 0.0 && aggression.is_finite())
        {
            checker.error(format!("{at}.aggression"), format!("{aggression} must be greater than 0"));
        }
    }
    let warms_up = settings.warmup.is_some() || settings.warmup_duration_secs.is_some();
    let ignores_warmup = match settings.lb_policy {
        Some(LbPolicy::Simple(simple)) => {
            matches!(SimpleLb::try_from(simple), Ok(SimpleLb::Random | SimpleLb::Passthrough))
        }
        Some(LbPolicy::ConsistentHash(_)) => true,
        _ => false,
    };
    if warms_up && ignores_warmup {
        let field = if settings.warmup.is_some() { "warmup" } else { "warmupDurationSecs" };
        let message = "has no effect: only LEAST_REQUEST and ROUND_ROBIN warm up endpoints";
        checker.warn(format!("{at}.{field}"), message);
    }
    if let Some(LbPolicy::ConsistentHash(hash)) = &settings.lb_policy {
        consistent_hash(&format!("{at}.consistentHash"), hash, checker);
    }
    if let Some(LbPolicy::BackendUtilization(load)) = &settings.lb_policy {
        utilization(&format!("{at}.backendUtilization"), load, checker);
        if settings.zone_aware_lb_setting.is_some() {
            let message = "has no effect with backendUtilization: use localityLbSetting";
            checker.warn(format!("{at}.zoneAwareLbSetting"), message);
        }
    }
}

fn utilization(at: &str, load: &BackendUtilizationLb, checker: &mut Checker) {
    for (name, duration) in [
        ("weightStabilizationPeriod", &load.weight_stabilization_period),
        ("weightExpirationPeriod", &load.weight_expiration_period),
        ("weightUpdatePeriod", &load.weight_update_period),
    ] {
        checker.duration(&format!("{at}.{name}"), duration.as_ref());
    }
    for (index, name) in load.metric_names_for_computing_utilization.iter().enumerate() {
        if name.is_empty() {
            let field = format!("{at}.metricNamesForComputingUtilization[{index}]");
            checker.error(field, "is empty: name a metric such as cpu_utilization or named_metrics.NAME");
        }
    }
}

fn consistent_hash(at: &str, hash: &ConsistentHashLb, checker: &mut Checker) {
    match &hash.hash_key {
        None => checker.warn(at, "names nothing to hash by: requests go to any endpoint"),
        Some(HashKey::HttpHeaderName(name)) => {
            if !is_header_name(name) {
                checker
                    .error(format!("{at}.httpHeaderName"), format!("{name:?} is not the name of a header"));
            }
        }
        Some(HashKey::HttpQueryParameterName(name)) => {
            if name.is_empty() {
                checker.error(format!("{at}.httpQueryParameterName"), "is empty: name a parameter");
            }
        }
        Some(HashKey::HttpCookie(own)) => cookie(&format!("{at}.httpCookie"), own, checker),
        Some(HashKey::UseSourceIp(_)) => {}
    }
    if hash.minimum_ring_size != 0 {
        let field = format!("{at}.minimumRingSize");
        checker.warn(&field, "is deprecated: use ringHash.minimumRingSize");
        if hash.hash_algorithm.is_some() {
            checker.error(&field, "stands beside ringHash or maglev: keep one");
        }
        ring(&field, hash.minimum_ring_size, checker);
    }
    match &hash.hash_algorithm {
        Some(HashAlgorithm::RingHash(own)) => {
            ring(&format!("{at}.ringHash.minimumRingSize"), own.minimum_ring_size, checker);
        }
        Some(HashAlgorithm::Maglev(own)) => {
            let field = format!("{at}.maglev.tableSize");
            let size = own.table_size;
            if size == 0 {
                checker.error(field, "is missing: give a prime number such as 65537");
            } else if size >= TABLE_LIMIT {
                checker.error(field, format!("{size} is too large: it must be less than {TABLE_LIMIT}"));
            } else if !is_prime(size) {
                checker.error(field, format!("{size} is not a prime number: write one such as 65537"));
            }
        }
        None => {}
    }
}

fn ring(field: &str, size: u64, checker: &mut Checker) {
    if size > RING_LIMIT {
        checker.error(field, format!("{size} is too large: the most is {RING_LIMIT}"));
    }
}

fn cookie(at: &str, cookie: &HttpCookie, checker: &mut Checker) {
    if cookie.name.is_empty() {
        checker.error(format!("{at}.name"), "is missing: name the cookie");
    }
    if cookie.ttl.is_some_and(|ttl| ttl.as_nanos() < 0) {
        checker.error(format!("{at}.ttl"), "must not be negative");
    }
    let is_text = |text: &str| !text.contains(['\0', '\r', '\n']);
    if !is_text(&cookie.path) {
        checker.error(format!("{at}.path"), "holds a line break or a null character");
    }
    let mut names = BTreeSet::new();
    for (index, attribute) in cookie.attributes.iter().enumerate() {
        let at = format!("{at}.attributes[{index}]");
        if attribute.name.is_empty() {
            checker.error(format!("{at}.name"), "is missing: name the attribute");
        } else if !names.insert(&attribute.name) {
            checker.error(format!("{at}.name"), format!("there are two attributes {:?}", attribute.name));
        }
        if !is_text(&attribute.name) || !is_text(&attribute.value) {
            checker.error(at, "holds a line break or a null character");
        }
    }
}

fn is_prime(number: u64) -> bool {
    number > 1
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}
