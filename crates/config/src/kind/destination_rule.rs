//! Rules of `DestinationRule`. A cluster that Envoy does not understand is
//! refused as a whole, so what it cannot take must not get through.

mod balancer;
mod locality;
pub(super) mod pool;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeSet;

use proto::istio::networking::v1alpha3::traffic_policy::{
    PortTrafficPolicy, ProxyProtocol, RetryBudget, TunnelSettings, proxy_protocol,
};
use proto::istio::networking::v1alpha3::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection,
    TrafficPolicy,
};

use crate::validate::Checker;

pub(super) fn check(rule: &DestinationRule, checker: &mut Checker) {
    checker.host("host", &rule.host);
    checker.export_to(&rule.export_to);
    let selects = rule.workload_selector.is_some();
    if let Some(selector) = &rule.workload_selector {
        if selector.match_labels.is_empty() {
            checker.warn("workloadSelector", "has no labels: it selects all workloads of the namespace");
        }
        for (key, value) in &selector.match_labels {
            let field = format!("workloadSelector.matchLabels.{key}");
            if key.is_empty() || key.contains('*') || value.contains('*') {
                checker.error(field, format!("{key:?}: {value:?} is not a label: wildcards are not known"));
            }
        }
        let is_private = rule.export_to.len() <= 1 && rule.export_to.first().is_none_or(|to| to != "*");
        if !is_private {
            let message = "a rule that selects workloads is for its own namespace only: write [\".\"]";
            checker.error("exportTo", message);
        }
    }
    if let Some(policy) = &rule.traffic_policy {
        traffic_policy("trafficPolicy", policy, selects, checker);
    }
    let mut names = BTreeSet::new();
    for (index, subset) in rule.subsets.iter().enumerate() {
        let at = format!("subsets[{index}]");
        if subset.name.is_empty() {
            checker.error(format!("{at}.name"), "is missing: routes refer to a subset by its name");
        } else if names.insert(&subset.name) {
            checker.subset(&format!("{at}.name"), &subset.name);
        } else {
            checker.error(format!("{at}.name"), format!("there are two subsets {:?}", subset.name));
        }
        for (key, value) in &subset.labels {
            checker.label(&format!("{at}.labels.{key}"), key, value);
        }
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(&format!("{at}.trafficPolicy"), policy, selects, checker);
        }
    }
}

/// One level of policies. `selects`: the rule is for some workloads only.
fn traffic_policy(at: &str, policy: &TrafficPolicy, selects: bool, checker: &mut Checker) {
    if *policy == TrafficPolicy::default() {
        checker.error(at, "has no settings: give at least one, or leave it out");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        checker.error(at, "tunnel and proxyProtocol exclude each other: keep one");
    }
    if let Some(settings) = &policy.tunnel {
        tunnel(&format!("{at}.tunnel"), settings, checker);
    }
    if let Some(protocol) = &policy.proxy_protocol {
        proxy_protocol(&format!("{at}.proxyProtocol"), *protocol, checker);
    }
    if let Some(budget) = &policy.retry_budget {
        retry_budget(&format!("{at}.retryBudget"), budget, checker);
    }
    let blocks = Blocks {
        balancer: policy.load_balancer.as_ref(),
        pool: policy.connection_pool.as_ref(),
        outlier: policy.outlier_detection.as_ref(),
        tls: policy.tls.as_ref(),
    };
    blocks.check(at, selects, checker);
    let mut ports = BTreeSet::new();
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{index}]");
        let PortTrafficPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = port;
        match port {
            Some(port) => {
                checker.port(&format!("{at}.port.number"), port.number);
                if !ports.insert(port.number) {
                    let message =
                        format!("there are settings for {} already: only the first count", port.number);
                    checker.warn(format!("{at}.port.number"), message);
                }
            }
            None => checker.error(format!("{at}.port"), "is missing: say which port the settings are for"),
        }
        let blocks = Blocks {
            balancer: load_balancer.as_ref(),
            pool: connection_pool.as_ref(),
            outlier: outlier_detection.as_ref(),
            tls: tls.as_ref(),
        };
        if blocks.is_empty() {
            checker.error(&at, "has no settings: give at least one");
        }
        blocks.check(&at, selects, checker);
    }
}

/// What both a level and a port of it have.
struct Blocks<'a> {
    balancer: Option<&'a LoadBalancerSettings>,
    pool: Option<&'a ConnectionPoolSettings>,
    outlier: Option<&'a OutlierDetection>,
    tls: Option<&'a ClientTlsSettings>,
}

impl Blocks<'_> {
    fn is_empty(&self) -> bool {
        self.balancer.is_none() && self.pool.is_none() && self.outlier.is_none() && self.tls.is_none()
    }

    fn check(&self, at: &str, selects: bool, checker: &mut Checker) {
        if let Some(settings) = self.balancer {
            let at = format!("{at}.loadBalancer");
            balancer::check(&at, settings, checker);
            locality::check(&at, settings, self.outlier.is_some(), checker);
        }
        if let Some(settings) = self.pool {
            pool::check(&format!("{at}.connectionPool"), settings, checker);
        }
        if let Some(outlier) = self.outlier {
            outlier_detection(&format!("{at}.outlierDetection"), outlier, checker);
        }
        if let Some(settings) = self.tls {
            tls::check(&format!("{at}.tls"), settings, selects, checker);
        }
    }
}

fn outlier_detection(at: &str, outlier: &OutlierDetection, checker: &mut Checker) {
    let local = outlier.consecutive_local_origin_failures.as_ref().map_or(0, |number| number.value);
    if local > 0 && !outlier.split_external_local_origin_errors {
        let message = "needs splitExternalLocalOriginErrors: true";
        checker.error(format!("{at}.consecutiveLocalOriginFailures"), message);
    }
    if outlier.consecutive_errors != 0 {
        let message = "has no effect: use consecutive5xxErrors or consecutiveGatewayErrors";
        checker.warn(format!("{at}.consecutiveErrors"), message);
    }
    checker.duration(&format!("{at}.interval"), outlier.interval.as_ref());
    checker.duration(&format!("{at}.baseEjectionTime"), outlier.base_ejection_time.as_ref());
    for (name, percent) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if !(0..=100).contains(&percent) {
            let message = format!("{percent} is not a percentage: expected 0 to 100");
            checker.error(format!("{at}.{name}"), message);
        }
    }
    for (index, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..600).contains(code) {
            let field = format!("{at}.outlierDetectionHttpErrorCodes[{index}]");
            checker.error(field, format!("{code} is not a code of HTTP: expected 100 to 599"));
        }
    }
}

fn tunnel(at: &str, settings: &TunnelSettings, checker: &mut Checker) {
    if !settings.protocol.is_empty() {
        checker.one_of(&format!("{at}.protocol"), &settings.protocol, &["CONNECT", "POST"]);
    }
    let host = &settings.target_host;
    if host.parse::<std::net::IpAddr>().is_err() {
        checker.host(&format!("{at}.targetHost"), host);
        if host.starts_with('*') {
            checker.error(format!("{at}.targetHost"), format!("{host:?} is a wildcard: name one host"));
        }
    }
    checker.port(&format!("{at}.targetPort"), settings.target_port);
}

fn proxy_protocol(at: &str, protocol: ProxyProtocol, checker: &mut Checker) {
    if proxy_protocol::Version::try_from(protocol.version).is_err() {
        checker.error(format!("{at}.version"), format!("{} is unknown: expected V1 or V2", protocol.version));
    }
}

fn retry_budget(at: &str, budget: &RetryBudget, checker: &mut Checker) {
    if let Some(percent) = budget.percent.as_ref().map(|percent| percent.value)
        && !(0.0..=100.0).contains(&percent)
    {
        let message = format!("{percent} is not a percentage: expected 0 to 100");
        checker.error(format!("{at}.percent"), message);
    }
    checker.duration(&format!("{at}.budgetInterval"), budget.budget_interval.as_ref());
}
