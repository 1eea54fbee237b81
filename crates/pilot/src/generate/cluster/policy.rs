//! What a DestinationRule's traffic policy does to a cluster.

use mesh::MeshConfig;
use proto::envoy::config::cluster::v3::cluster::{self, LbPolicy};
use proto::envoy::config::cluster::v3::{Cluster, OutlierDetection as ApiOutlier, UpstreamConnectionOptions};
use proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, TcpKeepalive,
};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config,
};
use proto::envoy::r#type::v3::Percent;
use proto::istio::mesh::v1alpha1::mesh_config::H2UpgradePolicy as MeshUpgrade;
use proto::istio::networking::v1alpha3::connection_pool_settings::http_settings::H2UpgradePolicy;
use proto::istio::networking::v1alpha3::connection_pool_settings::tcp_settings;
use proto::istio::networking::v1alpha3::load_balancer_settings::{LbPolicy as Balancer, SimpleLb};
use proto::istio::networking::v1alpha3::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, TrafficPolicy,
};

use super::set_http_options;
use crate::protocol::Protocol;

/// The blocks of a traffic policy that hold for one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::generate) struct Policy<'a> {
    pub(in crate::generate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(in crate::generate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(in crate::generate) outlier_detection: Option<&'a OutlierDetection>,
    pub(in crate::generate) tls: Option<&'a ClientTlsSettings>,
}

impl<'a> Policy<'a> {
    /// The blocks of one level for a port. Settings for the port stand for all
    /// blocks: what they leave out is not taken from the level itself.
    fn level(policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return Self::default() };
        let own = policy.port_level_settings.iter().find(|settings| {
            settings.port.as_ref().is_some_and(|selector| selector.number == u32::from(port))
        });
        match own {
            Some(own) => Self {
                connection_pool: own.connection_pool.as_ref(),
                load_balancer: own.load_balancer.as_ref(),
                outlier_detection: own.outlier_detection.as_ref(),
                tls: own.tls.as_ref(),
            },
            None => Self {
                connection_pool: policy.connection_pool.as_ref(),
                load_balancer: policy.load_balancer.as_ref(),
                outlier_detection: policy.outlier_detection.as_ref(),
                tls: policy.tls.as_ref(),
            },
        }
    }
}

/// The blocks for a port: the subset's before the rule's.
pub(in crate::generate) fn for_port<'a>(
    rule: Option<&'a TrafficPolicy>,
    subset: Option<&'a TrafficPolicy>,
    port: u16,
) -> Policy<'a> {
    let (outer, inner) = (Policy::level(rule, port), Policy::level(subset, port));
    Policy {
        connection_pool: inner.connection_pool.or(outer.connection_pool),
        load_balancer: inner.load_balancer.or(outer.load_balancer),
        outlier_detection: inner.outlier_detection.or(outer.outlier_detection),
        tls: inner.tls.or(outer.tls),
    }
}

pub(in crate::generate) fn simple(policy: &Policy<'_>) -> Option<SimpleLb> {
    match policy.load_balancer?.lb_policy.as_ref()? {
        Balancer::Simple(simple) => SimpleLb::try_from(*simple).ok(),
        Balancer::ConsistentHash(_) | Balancer::BackendUtilization(_) => None,
    }
}

/// Whether requests go to the address that the client chose.
pub(super) fn is_passthrough(policy: &Policy<'_>) -> bool {
    simple(policy) == Some(SimpleLb::Passthrough)
}

/// Whether HTTP/1 requests travel over HTTP/2.
pub(super) fn upgrades_to_http2(policy: &Policy<'_>, mesh: &MeshConfig, protocol: Protocol) -> bool {
    if protocol != Protocol::Http {
        return false;
    }
    let http = policy.connection_pool.and_then(|pool| pool.http.as_ref());
    match http.map(|http| http.h2_upgrade_policy()) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => mesh.h2_upgrade_policy() == MeshUpgrade::Upgrade,
    }
}

/// HTTP/2 from the start; `streams` of 0 leaves their number to Envoy.
pub(super) fn http2(streams: u32) -> UpstreamProtocolOptions {
    let options = Http2ProtocolOptions {
        max_concurrent_streams: (streams > 0).then_some(streams),
        ..Http2ProtocolOptions::default()
    };
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
        protocol_config: Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(options)),
    })
}

/// The protocol that the client used.
pub(super) fn use_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

/// Applies all blocks but TLS.
pub(super) fn apply(
    cluster: &mut Cluster,
    options: &mut HttpProtocolOptions,
    policy: &Policy<'_>,
    protocol: Protocol,
    is_original_dst: bool,
) {
    if let Some(pool) = policy.connection_pool {
        connection_pool(cluster, options, pool, protocol);
    }
    if let Some(outlier) = policy.outlier_detection {
        outlier_detection(cluster, outlier);
    }
    if is_original_dst {
        return;
    }
    match simple(policy) {
        Some(SimpleLb::RoundRobin) => cluster.lb_policy = LbPolicy::RoundRobin.into(),
        Some(SimpleLb::Random) => cluster.lb_policy = LbPolicy::Random.into(),
        _ => {}
    }
}

/// A limit in Envoy's terms; zero means that none is set.
fn limit(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

pub(super) fn connection_pool(
    cluster: &mut Cluster,
    options: &mut HttpProtocolOptions,
    pool: &ConnectionPoolSettings,
    protocol: Protocol,
) {
    let breakers = cluster.circuit_breakers.get_or_insert_default();
    if breakers.thresholds.is_empty() {
        breakers.thresholds.push(super::unlimited());
    }
    let thresholds = &mut breakers.thresholds[0];
    let mut common = CommonOptions::default();
    if let Some(tcp) = &pool.tcp {
        thresholds.max_connections = limit(tcp.max_connections).or(thresholds.max_connections);
        if let Some(timeout) = tcp.connect_timeout {
            cluster.connect_timeout = Some(timeout.into());
        }
        if let Some(keepalive) = &tcp.tcp_keepalive {
            cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
                tcp_keepalive: Some(tcp_keepalive(keepalive)),
                ..UpstreamConnectionOptions::default()
            });
        }
        common.max_connection_duration = tcp.max_connection_duration.map(Into::into);
    }
    if let Some(http) = &pool.http {
        thresholds.max_pending_requests =
            limit(http.http1_max_pending_requests).or(thresholds.max_pending_requests);
        thresholds.max_requests = limit(http.http2_max_requests).or(thresholds.max_requests);
        thresholds.max_retries = limit(http.max_retries).or(thresholds.max_retries);
        common.max_requests_per_connection = limit(http.max_requests_per_connection);
        common.idle_timeout = http.idle_timeout.map(Into::into);
        if http.use_client_protocol {
            options.upstream_protocol_options = Some(use_downstream());
        }
        set_streams(options, limit(http.max_concurrent_streams), protocol);
    }
    if common != CommonOptions::default() {
        options.common_http_protocol_options = Some(common);
    }
}

/// Bounds the streams of whatever HTTP/2 options there are.
fn set_streams(options: &mut HttpProtocolOptions, streams: Option<u32>, _: Protocol) {
    let Some(streams) = streams else { return };
    match &mut options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => {
            if let Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(http2)) =
                &mut config.protocol_config
            {
                http2.max_concurrent_streams = Some(streams);
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
            config.http2_protocol_options.get_or_insert_default().max_concurrent_streams = Some(streams);
        }
        _ => {}
    }
}

fn tcp_keepalive(keepalive: &tcp_settings::TcpKeepalive) -> TcpKeepalive {
    let seconds = |duration: Option<proto::wkt::Duration>| {
        duration.and_then(|duration| u32::try_from(duration.seconds).ok()).filter(|seconds| *seconds > 0)
    };
    TcpKeepalive {
        keepalive_probes: (keepalive.probes > 0).then_some(keepalive.probes),
        keepalive_time: seconds(keepalive.time),
        keepalive_interval: seconds(keepalive.interval),
    }
}

fn outlier_detection(cluster: &mut Cluster, outlier: &OutlierDetection) {
    let percent = |number: i32| u32::try_from(number).ok().filter(|number| *number > 0);
    let mut made = ApiOutlier {
        interval: outlier.interval.map(Into::into),
        base_ejection_time: outlier.base_ejection_time.map(Into::into),
        max_ejection_percent: percent(outlier.max_ejection_percent),
        enforcing_success_rate: Some(0),
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        ..ApiOutlier::default()
    };
    // Zero switches a rule off; Envoy wants that said twice.
    let enforcing = |number: u32| if number > 0 { 100 } else { 0 };
    if let Some(number) = &outlier.consecutive_5xx_errors {
        made.consecutive_5xx = Some(number.value);
        made.enforcing_consecutive_5xx = Some(enforcing(number.value));
    } else if let Some(number) = limit(outlier.consecutive_errors) {
        made.consecutive_gateway_failure = Some(number);
        made.enforcing_consecutive_gateway_failure = Some(100);
        made.enforcing_consecutive_5xx = Some(0);
    }
    if let Some(number) = &outlier.consecutive_gateway_errors {
        made.consecutive_gateway_failure = Some(number.value);
        made.enforcing_consecutive_gateway_failure = Some(enforcing(number.value));
    }
    if let Some(number) = &outlier.consecutive_local_origin_failures
        && outlier.split_external_local_origin_errors
    {
        made.consecutive_local_origin_failure = Some(number.value);
        made.enforcing_consecutive_local_origin_failure = Some(enforcing(number.value));
    }
    cluster.outlier_detection = Some(made);
    cluster.common_lb_config.get_or_insert_with(cluster::CommonLbConfig::default).healthy_panic_threshold =
        Some(Percent { value: f64::from(outlier.min_health_percent.max(0)) });
}

/// Writes the HTTP options if any were set.
pub(super) fn finish(cluster: &mut Cluster, options: &HttpProtocolOptions) {
    if *options == HttpProtocolOptions::default() {
        return;
    }
    let mut options = options.clone();
    // Envoy refuses options that do not say which protocol to use.
    options.upstream_protocol_options.get_or_insert_with(|| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(explicit_http_config::ProtocolConfig::HttpProtocolOptions(
                Http1ProtocolOptions::default(),
            )),
        })
    });
    set_http_options(cluster, &options);
}
