//! Rules of `DestinationRule`.

use std::collections::BTreeSet;

use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;
use proto::istio::networking::v1alpha3::load_balancer_settings::LbPolicy;
use proto::istio::networking::v1alpha3::traffic_policy::PortTrafficPolicy;
use proto::istio::networking::v1alpha3::{
    ClientTlsSettings, ConnectionPoolSettings, DestinationRule, LoadBalancerSettings, OutlierDetection,
    TrafficPolicy,
};

use crate::validate::Checker;

pub(super) fn check(rule: &DestinationRule, checker: &mut Checker) {
    checker.host("host", &rule.host);
    checker.export_to(&rule.export_to);
    let selects = rule.workload_selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if selects {
        checker.warn("workloadSelector", "is not supported yet: the whole rule has no effect");
    }
    if let Some(policy) = &rule.traffic_policy {
        traffic_policy("trafficPolicy", policy, checker);
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
            traffic_policy(&format!("{at}.trafficPolicy"), policy, checker);
        }
    }
}

fn traffic_policy(at: &str, policy: &TrafficPolicy, checker: &mut Checker) {
    checker.not_yet(&format!("{at}.tunnel"), policy.tunnel.is_some());
    checker.not_yet(&format!("{at}.proxyProtocol"), policy.proxy_protocol.is_some());
    checker.not_yet(&format!("{at}.retryBudget"), policy.retry_budget.is_some());
    blocks(
        at,
        policy.load_balancer.as_ref(),
        policy.connection_pool.as_ref(),
        policy.outlier_detection.as_ref(),
        policy.tls.as_ref(),
        checker,
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{index}]");
        let PortTrafficPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = port;
        match port {
            Some(port) => checker.port(&format!("{at}.port.number"), port.number),
            None => checker.error(format!("{at}.port"), "is missing: say which port the settings are for"),
        }
        let is_empty = load_balancer.is_none()
            && connection_pool.is_none()
            && outlier_detection.is_none()
            && tls.is_none();
        if is_empty {
            checker.error(&at, "has no settings: give at least one");
        }
        blocks(
            &at,
            load_balancer.as_ref(),
            connection_pool.as_ref(),
            outlier_detection.as_ref(),
            tls.as_ref(),
            checker,
        );
    }
}

fn blocks(
    at: &str,
    balancer: Option<&LoadBalancerSettings>,
    pool: Option<&ConnectionPoolSettings>,
    outlier: Option<&OutlierDetection>,
    tls: Option<&ClientTlsSettings>,
    checker: &mut Checker,
) {
    if let Some(balancer) = balancer {
        let at = format!("{at}.loadBalancer");
        checker.duration(&format!("{at}.warmupDurationSecs"), balancer.warmup_duration_secs.as_ref());
        checker.not_yet(&format!("{at}.warmupDurationSecs"), balancer.warmup_duration_secs.is_some());
        checker.not_yet(&format!("{at}.warmup"), balancer.warmup.is_some());
        checker.not_yet(&format!("{at}.localityLbSetting"), balancer.locality_lb_setting.is_some());
        let hashes = matches!(balancer.lb_policy, Some(LbPolicy::ConsistentHash(_)));
        checker.not_yet(&format!("{at}.consistentHash"), hashes);
    }
    if let Some(pool) = pool {
        connection_pool(&format!("{at}.connectionPool"), pool, checker);
    }
    if let Some(outlier) = outlier {
        let at = format!("{at}.outlierDetection");
        if outlier.consecutive_local_origin_failures.is_some() && !outlier.split_external_local_origin_errors
        {
            let message = "needs splitExternalLocalOriginErrors: true";
            checker.error(format!("{at}.consecutiveLocalOriginFailures"), message);
        }
        checker.duration(&format!("{at}.interval"), outlier.interval.as_ref());
        checker.duration(&format!("{at}.baseEjectionTime"), outlier.base_ejection_time.as_ref());
        for (name, percent) in [
            ("maxEjectionPercent", outlier.max_ejection_percent),
            ("minHealthPercent", outlier.min_health_percent),
        ] {
            if !(0..=100).contains(&percent) {
                checker.error(
                    format!("{at}.{name}"),
                    format!("{percent} is not a percentage: expected 0 to 100"),
                );
            }
        }
    }
    if let Some(tls) = tls {
        client_tls(&format!("{at}.tls"), tls, checker);
    }
}

fn client_tls(at: &str, tls: &ClientTlsSettings, checker: &mut Checker) {
    if matches!(tls.mode(), TlsMode::Simple | TlsMode::Mutual) {
        // Never plaintext where TLS was asked for.
        let message =
            "is not supported yet: use ISTIO_MUTUAL for workloads of the mesh, or let the application do TLS";
        checker.error(format!("{at}.mode"), format!("{} {message}", tls.mode().as_str_name()));
    }
    if tls.mode() == TlsMode::Mutual && tls.credential_name.is_empty() {
        if tls.client_certificate.is_empty() {
            checker.error(
                format!("{at}.clientCertificate"),
                "is missing: mode MUTUAL needs a client certificate",
            );
        }
        if tls.private_key.is_empty() {
            checker.error(format!("{at}.privateKey"), "is missing: mode MUTUAL needs a private key");
        }
    }
}

fn connection_pool(at: &str, pool: &ConnectionPoolSettings, checker: &mut Checker) {
    if pool.tcp.is_none() && pool.http.is_none() {
        checker.error(at, "is empty: give tcp or http settings");
    }
    if let Some(tcp) = &pool.tcp {
        checker.not_negative(&format!("{at}.tcp.maxConnections"), tcp.max_connections);
        checker.duration(&format!("{at}.tcp.connectTimeout"), tcp.connect_timeout.as_ref());
        checker.not_yet(&format!("{at}.tcp.idleTimeout"), tcp.idle_timeout.is_some());
        checker.duration(&format!("{at}.tcp.maxConnectionDuration"), tcp.max_connection_duration.as_ref());
    }
    if let Some(http) = &pool.http {
        for (name, number) in [
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ] {
            checker.not_negative(&format!("{at}.http.{name}"), number);
        }
        checker.duration(&format!("{at}.http.idleTimeout"), http.idle_timeout.as_ref());
    }
}
