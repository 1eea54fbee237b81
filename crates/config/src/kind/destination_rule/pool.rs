//! Rules of `connectionPool`.

use proto::istio::networking::v1alpha3::ConnectionPoolSettings;
use proto::istio::networking::v1alpha3::connection_pool_settings::http_settings::H2UpgradePolicy;
use proto::istio::networking::v1alpha3::connection_pool_settings::{HttpSettings, TcpSettings};

use crate::validate::Checker;

pub(in crate::kind) fn check(at: &str, pool: &ConnectionPoolSettings, checker: &mut Checker) {
    if pool.tcp.is_none() && pool.http.is_none() {
        checker.error(at, "is empty: give tcp or http settings");
    }
    if let Some(settings) = &pool.tcp {
        tcp(&format!("{at}.tcp"), settings, checker);
    }
    if let Some(settings) = &pool.http {
        http(&format!("{at}.http"), settings, checker);
    }
}

fn tcp(at: &str, tcp: &TcpSettings, checker: &mut Checker) {
    checker.not_negative(&format!("{at}.maxConnections"), tcp.max_connections);
    checker.duration(&format!("{at}.connectTimeout"), tcp.connect_timeout.as_ref());
    checker.duration(&format!("{at}.maxConnectionDuration"), tcp.max_connection_duration.as_ref());
    // Zero switches the timer off.
    let idle_timeout = tcp.idle_timeout.as_ref().filter(|timeout| timeout.as_nanos() != 0);
    checker.duration(&format!("{at}.idleTimeout"), idle_timeout);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        checker.duration(&format!("{at}.tcpKeepalive.time"), keepalive.time.as_ref());
        checker.duration(&format!("{at}.tcpKeepalive.interval"), keepalive.interval.as_ref());
    }
}

fn http(at: &str, http: &HttpSettings, checker: &mut Checker) {
    for (name, number) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        checker.not_negative(&format!("{at}.{name}"), number);
    }
    checker.duration(&format!("{at}.idleTimeout"), http.idle_timeout.as_ref());
    if http.use_client_protocol && http.h2_upgrade_policy() == H2UpgradePolicy::Upgrade {
        let message = "excludes h2UpgradePolicy UPGRADE: keep one";
        checker.error(format!("{at}.useClientProtocol"), message);
    }
    if let Some(pings) = &http.http2_keep_alive {
        for (name, duration) in [("interval", &pings.interval), ("timeout", &pings.timeout)] {
            let field = format!("{at}.http2KeepAlive.{name}");
            match duration {
                Some(duration) => checker.duration(&field, Some(duration)),
                None => checker.error(field, "is missing: give a time such as 30s"),
            }
        }
    }
}
