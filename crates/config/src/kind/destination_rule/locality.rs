//! Rules of `loadBalancer` on localities.

use proto::istio::networking::v1alpha3::LoadBalancerSettings;
use proto::istio::networking::v1alpha3::locality_load_balancer_setting::Distribute;

use crate::validate::Checker;

/// Labels that say where a workload runs.
const PLACES: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// `has_outlier_detection`: without it Envoy never finds out that it should fail over.
pub(super) fn check(
    at: &str,
    settings: &LoadBalancerSettings,
    has_outlier_detection: bool,
    checker: &mut Checker,
) {
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        checker.error(at, "localityLbSetting and zoneAwareLbSetting exclude each other: keep one");
    }
    if let Some(setting) = &settings.locality_lb_setting {
        let at = format!("{at}.localityLbSetting");
        if !setting.distribute.is_empty() && !setting.failover.is_empty() {
            checker.error(&at, "distribute and failover exclude each other: keep one");
        }
        let place = setting.failover_priority.iter().find(|label| PLACES.contains(&label.as_str()));
        if let Some(place) = place.filter(|_| !setting.failover.is_empty()) {
            let message = format!("{place} says what failover says already: keep one");
            checker.error(format!("{at}.failoverPriority"), message);
        }
        for (index, distribute) in setting.distribute.iter().enumerate() {
            weights(&format!("{at}.distribute[{index}]"), distribute, checker);
        }
        overlap(&at, setting.distribute.iter().map(|distribute| distribute.from.as_str()), checker);
        let pairs = setting.failover.iter().map(|pair| (pair.from.as_str(), pair.to.as_str()));
        failover(&at, pairs, !setting.failover_priority.is_empty(), has_outlier_detection, checker);
    }
    if let Some(setting) = &settings.zone_aware_lb_setting {
        let at = format!("{at}.zoneAwareLbSetting");
        for (index, label) in setting.failover_priority.iter().enumerate() {
            if PLACES.contains(&label.as_str()) {
                let message = format!("{label} is looked at by itself: take it out");
                checker.error(format!("{at}.failoverPriority[{index}]"), message);
            }
        }
        let pairs = setting.failover.iter().map(|pair| (pair.from.as_str(), pair.to.as_str()));
        failover(&at, pairs, !setting.failover_priority.is_empty(), has_outlier_detection, checker);
        if setting.enabled.as_ref().is_none_or(|enabled| enabled.value) {
            let message =
                "needs an Envoy whose bootstrap names its own cluster; others balance by priority only";
            checker.warn(&at, message);
        }
    }
}

fn failover<'a>(
    at: &str,
    pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    has_priority: bool,
    has_outlier_detection: bool,
    checker: &mut Checker,
) {
    if (has_priority || pairs.len() > 0) && !has_outlier_detection {
        checker.warn(at, "has no effect without outlierDetection: nobody finds out that servers fail");
    }
    for (index, (from, to)) in pairs.enumerate() {
        let at = format!("{at}.failover[{index}]");
        if from == to {
            checker.error(&at, format!("{from:?} cannot fail over to itself: name another region"));
        }
        for (name, region) in [("from", from), ("to", to)] {
            if region.contains(['/', '*']) {
                let message = format!("{region:?} is not a region: name one without a zone or *");
                checker.error(format!("{at}.{name}"), message);
            }
        }
    }
}

fn weights(at: &str, distribute: &Distribute, checker: &mut Checker) {
    let mut total = 0u64;
    for (locality, weight) in &distribute.to {
        total += u64::from(*weight);
        if !(1..=100).contains(weight) {
            checker
                .error(format!("{at}.to.{locality}"), format!("{weight} is not a weight: expected 1 to 100"));
        }
    }
    if total != 100 {
        checker.error(format!("{at}.to"), format!("the weights make {total} together: they must make 100"));
    }
    overlap(&format!("{at}.to"), distribute.to.keys().map(String::as_str), checker);
}

/// Localities that are no localities, or of which one is a part of another.
fn overlap<'a>(at: &str, localities: impl Iterator<Item = &'a str>, checker: &mut Checker) {
    let mut known: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in localities {
        let stars = text.matches('*').count();
        if stars > 1 || (stars == 1 && !text.ends_with('*')) {
            checker.error(at, format!("{text:?} is not a locality: only its end may be *"));
            continue;
        }
        let mut parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            let message =
                format!("{text:?} is not a locality: expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE");
            checker.error(at, message);
            continue;
        }
        if parts.last() == Some(&"*") {
            parts.pop();
        }
        // Of two that one begins the other, the longer is a part of the shorter.
        // `*` may be the last: the rest, as the first that fits is used.
        let is_rest = parts.is_empty();
        let is_part = |other: &Vec<&str>| {
            let begins = other.iter().zip(&parts).all(|(one, other)| one == other);
            begins && (!is_rest || other.is_empty())
        };
        if let Some((other, _)) = known.iter().find(|(_, other)| is_part(other)) {
            checker.error(at, format!("{text:?} and {other:?} have places in common: name each once"));
        }
        known.push((text, parts));
    }
}
