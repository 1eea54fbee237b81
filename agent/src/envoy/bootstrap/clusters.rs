//! The clusters that Envoy has from the start.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::services::{Address, Remote, Tracer};
use super::{Options, SDS_CLUSTER, SDS_FILES_CLUSTER, XDS_CLUSTER, socket_address, tls};

/// Requests to the agent are few but must never wait for each other.
const NO_LIMIT: u32 = 100_000;

/// All of them.
pub(super) fn all(options: &Options<'_>) -> Vec<Value> {
    let (localhost, _) = options.node.family.localhost();
    let local = |port: i32| socket_address(localhost, port);
    let mut xds = fixed(XDS_CLUSTER, "1s", &pipe(&options.paths.ads_socket), true);
    let limits = |priority: &str| {
        json!({
            "priority": priority,
            "max_connections": NO_LIMIT,
            "max_pending_requests": NO_LIMIT,
            "max_requests": NO_LIMIT,
        })
    };
    xds["circuit_breakers"] = json!({"thresholds": [limits("DEFAULT"), limits("HIGH")]});
    xds["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 300}});
    xds["max_requests_per_connection"] = json!(1);
    let mut clusters = vec![
        fixed("prometheus_stats", "0.250s", &local(options.proxy.proxy_admin_port), false),
        fixed("agent", "0.250s", &local(options.proxy.status_port), false),
        fixed(SDS_CLUSTER, "1s", &pipe(&options.paths.sds_socket), true),
        xds,
    ];
    clusters.extend(remotes(options));
    if options.self_discovery {
        clusters.push(own());
    }
    clusters
}

/// The cluster of the agent's socket for certificates from files, which it has
/// when another SDS server gives the workload's own.
pub(super) fn sds_files(socket: &Path) -> Value {
    fixed(SDS_FILES_CLUSTER, "1s", &pipe(socket), true)
}

fn pipe(path: &Path) -> Value {
    json!({"pipe": {"path": path.to_string_lossy()}})
}

fn remotes(options: &Options<'_>) -> Vec<Value> {
    let services = options.services;
    let mut clusters = Vec::new();
    match &services.tracing {
        Some(Tracer::Zipkin(remote)) => {
            let mut cluster = named(options, "zipkin", remote, ("tracer", false));
            cluster["dns_refresh_rate"] = json!("30s");
            clusters.push(cluster);
        }
        Some(Tracer::Datadog(remote)) => {
            clusters.push(named(options, "datadog_agent", remote, ("tracer", false)));
        }
        None => {}
    }
    for (name, remote) in
        [("envoy_metrics_service", &services.metrics), ("envoy_accesslog_service", &services.access_log)]
    {
        if let Some(remote) = remote {
            clusters.push(named(options, name, remote, (name, true)));
        }
    }
    clusters
}

/// A cluster whose addresses are looked up. `sni` is the name that mutual TLS
/// of the mesh asks for when no other is told, and whether HTTP/2 is spoken.
fn named(options: &Options<'_>, name: &str, remote: &Remote, (sni, http2): (&str, bool)) -> Value {
    let Remote { address: Address { host, port }, tls, keepalive } = remote;
    let mut cluster =
        base(name, "1s", &json!({"socket_address": {"address": host, "port_value": port}}), http2);
    cluster["type"] = json!("STRICT_DNS");
    cluster["respect_dns_ttl"] = json!(true);
    cluster["dns_lookup_family"] = json!(options.node.family.dns_lookup());
    if let Some(socket) = tls.as_ref().and_then(|tls| tls::upstream(tls, sni, http2, &options.node.metadata))
    {
        cluster["transport_socket"] = socket;
    }
    if let Some(keepalive) = keepalive {
        let seconds = |span: Option<proto::wkt::Duration>| span.map_or(0, |span| span.seconds);
        let fields = [
            ("keepalive_probes", i64::from(keepalive.probes)),
            ("keepalive_time", seconds(keepalive.time)),
            ("keepalive_interval", seconds(keepalive.interval)),
        ];
        let set: Map<String, Value> = fields
            .into_iter()
            .filter(|(_, value)| *value > 0)
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        cluster["upstream_connection_options"] = json!({"tcp_keepalive": set});
    }
    cluster
}

/// The cluster that the proxy itself belongs to.
fn own() -> Value {
    json!({
        "name": super::LOCAL_CLUSTER,
        "alt_stat_name": format!("{};", super::LOCAL_CLUSTER),
        "type": "EDS",
        "connect_timeout": "1s",
        "load_balancing_policy": {"policies": [{"typed_extension_config": {
            "name": "envoy.load_balancing_policies.least_request",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
                "locality_lb_config": {"zone_aware_lb_config": {"min_cluster_size": "1"}},
            },
        }}]},
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "resource_api_version": "V3"},
            "service_name": super::LOCAL_CLUSTER,
        },
    })
}

fn fixed(name: &str, timeout: &str, address: &Value, http2: bool) -> Value {
    let mut cluster = base(name, timeout, address, http2);
    cluster["type"] = json!("STATIC");
    cluster
}

fn base(name: &str, timeout: &str, address: &Value, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "alt_stat_name": format!("{name};"),
        "connect_timeout": timeout,
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        });
    }
    cluster
}
