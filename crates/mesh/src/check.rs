//! Rules of the mesh configuration: what breaks one keeps the last good one in force.

mod policy;
mod proxy;

use std::net::IpAddr;

use proto::istio::mesh::v1alpha1::proxy_config::ClusterName;
use proto::istio::mesh::v1alpha1::{MeshConfig, ProxyConfig};
use proto::istio::networking::v1alpha3::LocalityLoadBalancerSetting;
use proto::wkt::Duration;

/// Longest time that a connection may take to be made.
const CONNECT_NANOS: i128 = 3_600_000_000_000;
const MILLISECOND: i128 = 1_000_000;
const SECOND: i128 = 1_000_000_000;
/// Curves of key exchanges that Envoy knows.
const CURVES: [&str; 7] =
    ["P-224", "P-256", "P-384", "P-521", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"];
/// How proxies were told to give addresses once.
const OLD_ALLOCATION: &str = "ISTIO_META_DNS_AUTO_ALLOCATE";
/// Labels that say where a workload runs.
const PLACES: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// The first thing that is wrong, with its field.
pub(crate) fn mesh(config: &MeshConfig) -> Result<(), String> {
    port("proxyListenPort", config.proxy_listen_port)?;
    let connect = nanos(config.connect_timeout.as_ref());
    if !(MILLISECOND..=CONNECT_NANOS).contains(&connect) {
        return Err("connectTimeout: expected 1ms to 1h".to_owned());
    }
    if nanos(config.protocol_detection_timeout.as_ref()) % MILLISECOND != 0 {
        return Err(
            "protocolDetectionTimeout: is finer than a millisecond, which is not supported".to_owned()
        );
    }
    if let Some(proxy) = &config.default_config {
        self::proxy(proxy).map_err(|error| format!("defaultConfig.{error}"))?;
    }
    if let Some(setting) = &config.locality_lb_setting {
        locality(setting).map_err(|error| format!("localityLbSetting{error}"))?;
    }
    if let Some(setting) = &config.zone_aware_lb_setting {
        policy::zones(setting).map_err(|error| format!("zoneAwareLbSetting{error}"))?;
    }
    if let Some(policy) = &config.default_traffic_policy {
        policy::traffic(policy).map_err(|error| format!("defaultTrafficPolicy.{error}"))?;
    }
    if let Some(retry) = &config.default_inbound_http_retry_policy {
        policy::retry(retry).map_err(|error| format!("defaultInboundHttpRetryPolicy.{error}"))?;
    }
    for (index, settings) in config.service_settings.iter().enumerate() {
        for (number, host) in settings.hosts.iter().enumerate() {
            if !is_host(host, true) {
                return Err(format!(
                    "serviceSettings[{index}].hosts[{number}]: {host:?} is not a host name: expected a DNS name such as reviews.default.svc.cluster.local or *.example.com"
                ));
            }
        }
    }
    if config.mesh_m_tls.as_ref().is_some_and(|tls| !tls.ecdh_curves.is_empty()) {
        return Err("meshMTLS.ecdhCurves: cannot be set: remove it, or use tlsDefaults".to_owned());
    }
    Ok(())
}

fn proxy(config: &ProxyConfig) -> Result<(), String> {
    for (field, text) in [("configPath", &config.config_path), ("binaryPath", &config.binary_path)] {
        if text.is_empty() {
            return Err(format!("{field}: is empty: leave it out, or write a path"));
        }
    }
    match &config.cluster_name {
        Some(ClusterName::ServiceCluster(name)) if name.is_empty() => {
            return Err("serviceCluster: is empty: leave it out, or write a name".to_owned());
        }
        _ => {}
    }
    let drain = nanos(config.drain_duration.as_ref());
    if drain < SECOND || drain % SECOND != 0 {
        return Err("drainDuration: expected whole seconds, at least 1s".to_owned());
    }
    address("discoveryAddress", &config.discovery_address)?;
    let of = |service: &Option<proto::istio::mesh::v1alpha1::RemoteService>| {
        service.as_ref().map(|service| service.address.clone()).unwrap_or_default()
    };
    for (field, text) in [
        ("statsdUdpAddress", config.statsd_udp_address.clone()),
        ("envoyMetricsService.address", of(&config.envoy_metrics_service)),
        ("envoyAccessLogService.address", of(&config.envoy_access_log_service)),
    ] {
        if !text.is_empty() {
            address(field, &text)?;
        }
    }
    let metrics = &config.envoy_metrics_service_address;
    if !metrics.is_empty() {
        address("envoyMetricsServiceAddress", metrics)?;
    }
    if let Some(tracing) = &config.tracing {
        proxy::tracing(tracing).map_err(|error| format!("tracing.{error}"))?;
    }
    if let Some(provider) = &config.private_key_provider {
        proxy::private_key(provider).map_err(|error| format!("privateKeyProvider{error}"))?;
    }
    if let Some(settings) = &config.connection_settings {
        proxy::connections(settings).map_err(|error| format!("connectionSettings.{error}"))?;
    }
    port("proxyAdminPort", config.proxy_admin_port)?;
    port("statusPort", config.status_port)
}

fn port(field: &str, number: i32) -> Result<(), String> {
    if (1..=65535).contains(&number) {
        return Ok(());
    }
    Err(format!("{field}: {number} is not a port: expected 1 to 65535"))
}

fn nanos(duration: Option<&Duration>) -> i128 {
    duration.map_or(0, |duration| i128::from(duration.seconds) * SECOND + i128::from(duration.nanos))
}

/// `HOST:PORT`.
fn address(field: &str, text: &str) -> Result<(), String> {
    let parts = text.rsplit_once(':').map(|(host, port)| {
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    });
    match parts {
        Some((host, port))
            if port.parse::<u16>().is_ok_and(|port| port > 0)
                && (host.parse::<IpAddr>().is_ok() || is_host(host, false)) =>
        {
            Ok(())
        }
        _ => Err(format!("{field}: {text:?} is not HOST:PORT")),
    }
}

/// A DNS name, which may begin with a wildcard.
pub(crate) fn is_host(text: &str, with_wildcard: bool) -> bool {
    let is_label = |label: &str| {
        let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    let rest = match text.strip_prefix('*') {
        Some("") => return with_wildcard,
        Some(rest) if with_wildcard => rest.trim_start_matches(['.', '-']),
        Some(_) => return false,
        None => text,
    };
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    text.len() <= 255 && rest.split('.').all(is_label)
}

fn locality(setting: &LocalityLoadBalancerSetting) -> Result<(), String> {
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        return Err(": distribute and failover exclude each other: keep one".to_owned());
    }
    let place = setting.failover_priority.iter().find(|label| PLACES.contains(&label.as_str()));
    if let Some(place) = place.filter(|_| !setting.failover.is_empty()) {
        return Err(format!(".failoverPriority: {place} says what failover says already: keep one"));
    }
    for (index, distribute) in setting.distribute.iter().enumerate() {
        let weights = || distribute.to.values().copied();
        let total: u64 = weights().map(u64::from).sum();
        if total != 100 || weights().any(|weight| weight == 0) {
            return Err(format!(
                ".distribute[{index}].to: the weights make {total} together: each must be 1 or more, all together 100"
            ));
        }
    }
    for (index, distribute) in setting.distribute.iter().enumerate() {
        let places = distribute.to.keys().map(String::as_str);
        policy::localities(&format!(".distribute[{index}].to"), places)?;
    }
    policy::localities(".distribute[].from", setting.distribute.iter().map(|one| one.from.as_str()))?;
    for (index, pair) in setting.failover.iter().enumerate() {
        regions(&format!(".failover[{index}]"), &pair.from, &pair.to)?;
    }
    Ok(())
}

/// What is wrong with a region that another one takes the place of.
fn regions(at: &str, from: &str, to: &str) -> Result<(), String> {
    if from == to {
        return Err(format!("{at}: {from:?} cannot fail over to itself: name another region"));
    }
    if [from, to].into_iter().any(|region| region.contains(['/', '*'])) {
        return Err(format!("{at}: expected regions, without a zone or *"));
    }
    Ok(())
}

/// What has no effect, or another one than the user may think, each with its field.
pub(crate) fn warnings(config: &MeshConfig) -> Vec<String> {
    let mut all = Vec::new();
    let mut seen = Vec::new();
    for curve in config.tls_defaults.iter().flat_map(|tls| &tls.ecdh_curves) {
        if !CURVES.contains(&curve.as_str()) {
            all.push(format!("tlsDefaults.ecdhCurves: {curve:?} is none of {}", CURVES.join(", ")));
        } else if seen.contains(&curve) {
            all.push(format!("tlsDefaults.ecdhCurves: {curve} stands twice"));
        } else {
            seen.push(curve);
        }
    }
    all.extend(config.default_inbound_http_retry_policy.iter().flat_map(policy::without_effect));
    let metadata = config.default_config.as_ref().map(|proxy| &proxy.proxy_metadata);
    if metadata.is_some_and(|metadata| metadata.contains_key(OLD_ALLOCATION)) {
        all.push(format!(
            "defaultConfig.proxyMetadata.{OLD_ALLOCATION}: is deprecated: addresses are given by istiod \
             (PILOT_ENABLE_IP_AUTOALLOCATE)"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::MeshConfig;

    #[test]
    fn what_a_mesh_cannot_work_with_is_refused_with_its_field() {
        for (text, want) in [
            ("proxyListenPort: 70000", "proxyListenPort: 70000"),
            ("connectTimeout: 0.1ms", "connectTimeout"),
            ("connectTimeout: 2h", "connectTimeout"),
            ("protocolDetectionTimeout: 0.0000005s", "protocolDetectionTimeout"),
            ("defaultConfig: {drainDuration: 0s}", "defaultConfig.drainDuration"),
            ("defaultConfig: {drainDuration: 1.5s}", "defaultConfig.drainDuration"),
            ("defaultConfig: {configPath: ''}", "defaultConfig.configPath"),
            ("defaultConfig: {statusPort: 70000}", "defaultConfig.statusPort"),
            ("defaultConfig: {discoveryAddress: istiod}", "defaultConfig.discoveryAddress"),
            (
                "localityLbSetting: {distribute: [{from: us, to: {us: 50}}]}",
                "localityLbSetting.distribute[0]",
            ),
            ("localityLbSetting: {failover: [{from: us, to: us}]}", "localityLbSetting.failover[0]"),
            ("serviceSettings: [{hosts: ['*.a', 'a b']}]", "serviceSettings[0].hosts[1]"),
            ("meshMTLS: {ecdhCurves: [P-256]}", "meshMTLS.ecdhCurves"),
            ("localityLbSetting: {distribute: [{from: us, to: {'us/*': 50, 'us/a': 50}}]}", "overlaps"),
            ("localityLbSetting: {distribute: [{from: 'us//a', to: {us: 100}}]}", "expected REGION"),
            ("localityLbSetting: {distribute: [{from: '*/a', to: {us: 100}}]}", "only one *"),
            ("zoneAwareLbSetting: {failover: [{from: us, to: us}]}", "zoneAwareLbSetting.failover[0]"),
            ("zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/zone]}", "failoverPriority"),
            ("defaultTrafficPolicy: {connectionPool: {}}", "defaultTrafficPolicy.connectionPool"),
            ("defaultTrafficPolicy: {connectionPool: {http: {maxRetries: -1}}}", "http.maxRetries: -1"),
            ("defaultTrafficPolicy: {connectionPool: {tcp: {connectTimeout: 0.5ms}}}", "tcp.connectTimeout"),
            (
                "defaultTrafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}",
                "maxEjectionPercent: 101",
            ),
            (
                "defaultTrafficPolicy: {outlierDetection: {consecutiveLocalOriginFailures: 1}}",
                "splitExternal",
            ),
            ("defaultInboundHttpRetryPolicy: {attempts: 0, retryOn: 5xx}", "attempts: 0"),
            ("defaultInboundHttpRetryPolicy: {attempts: 1, retryOn: '5xx,600'}", "\"600\""),
            ("defaultConfig: {tracing: {zipkin: {address: zipkin}}}", "tracing.zipkin.address"),
            ("defaultConfig: {tracing: {lightstep: {address: 'a:1'}}}", "lightstep.accessToken"),
            ("defaultConfig: {tracing: {tlsSettings: {mode: MUTUAL}}}", "tlsSettings.clientCertificate"),
            ("defaultConfig: {privateKeyProvider: {cryptomb: {}}}", "cryptomb.pollDelay"),
            (
                "defaultConfig: {connectionSettings: {httpIdleTimeout: -1s}}",
                "connectionSettings.httpIdleTimeout",
            ),
            ("defaultConfig: {connectionSettings: {http2InitialStreamWindowSize: 1}}", "65535"),
        ] {
            let error = MeshConfig::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        for text in [
            "protocolDetectionTimeout: -1s",
            "defaultConfig: {discoveryAddress: '[::1]:15012', drainDuration: 7s}",
            "localityLbSetting: {distribute: [{from: us, to: {us: 60, eu: 40}}]}",
            "serviceSettings: [{hosts: ['*', '*.a', a.b.svc.cluster.local]}]",
            "localityLbSetting: {distribute: [{from: 'us/*', to: {us/a/1: 50, us/a/2: 25, us/b: 25}}]}",
            "defaultTrafficPolicy: {connectionPool: {tcp: {idleTimeout: 0s, maxConnections: 1}}}",
            "defaultInboundHttpRetryPolicy: {attempts: 2, retryOn: '5xx,503,reset', backoff: 25ms}",
            "defaultConfig: {tracing: {zipkin: {address: '$(HOST_IP):9411'}}}",
            "defaultConfig: {privateKeyProvider: {qat: {pollDelay: 2ms}}}",
            "tlsDefaults: {ecdhCurves: [P-1]}",
        ] {
            MeshConfig::from_yaml(text).unwrap();
        }
    }
}
