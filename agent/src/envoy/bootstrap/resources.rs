//! The clusters and listeners that Envoy has from the start.

use serde_json::{Value, json};

use super::{Options, SDS_CLUSTER, XDS_CLUSTER};

/// Requests to the agent are few but must never wait for each other.
const NO_LIMIT: u32 = 100_000;
/// Types whose responses are worth compressing.
const METRIC_TYPES: [&str; 4] = [
    "text/plain",
    "application/vnd.google.protobuf",
    "application/openmetrics-text",
    "application/openmetrics-protobuf",
];

pub(super) fn socket_address(address: &str, port: impl Into<i64>) -> Value {
    let port: i64 = port.into();
    json!({"socket_address": {"address": address, "port_value": port}})
}

pub(super) fn clusters(options: &Options<'_>) -> Value {
    let local = |port: i32| socket_address(options.localhost(), port);
    let pipe = |path: &std::path::Path| json!({"pipe": {"path": path.to_string_lossy()}});
    let mut xds = cluster(XDS_CLUSTER, "1s", &pipe(&options.paths.ads_socket), true);
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
    json!([
        cluster("prometheus_stats", "0.250s", &local(options.proxy.proxy_admin_port), false),
        cluster("agent", "0.250s", &local(options.proxy.status_port), false),
        cluster(SDS_CLUSTER, "1s", &pipe(&options.paths.sds_socket), true),
        xds,
    ])
}

fn cluster(name: &str, timeout: &str, address: &Value, http2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "alt_stat_name": format!("{name};"),
        "type": "STATIC",
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

pub(super) fn listeners(options: &Options<'_>) -> Value {
    let mut metric_filters: Vec<Value> = ["brotli", "zstd", "gzip"].map(compressor).into();
    metric_filters.push(router());
    json!([
        listener(
            options,
            options.prometheus_port,
            &Forward { stat_prefix: "stats", path: "/stats/prometheus", cluster: "prometheus_stats" },
            &metric_filters,
        ),
        listener(
            options,
            options.status_port,
            &Forward { stat_prefix: "agent", path: "/healthz/ready", cluster: "agent" },
            &[router()],
        ),
    ])
}

/// What a listener passes on, and to whom.
struct Forward {
    stat_prefix: &'static str,
    path: &'static str,
    cluster: &'static str,
}

fn listener(options: &Options<'_>, port: u16, forward: &Forward, filters: &[Value]) -> Value {
    let Forward { stat_prefix, path, cluster } = forward;
    json!({
        "name": format!("{}_{port}", options.wildcard()),
        "address": socket_address(options.wildcard(), port),
        "ignore_global_conn_limit": true,
        "bypass_overload_manager": true,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": stat_prefix,
                "route_config": {"virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": path}, "route": {"cluster": cluster}}],
                }]},
                "http_filters": filters,
            },
        }]}],
    })
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    })
}

fn compressor(kind: &str) -> Value {
    let title = format!("{}{}", kind[..1].to_ascii_uppercase(), &kind[1..]);
    json!({
        "name": format!("envoy.filters.http.compressor.{kind}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "compressor_library": {
                "name": format!("stats_{kind}"),
                "typed_config": {
                    "@type": format!("type.googleapis.com/envoy.extensions.compression.{kind}.compressor.v3.{title}"),
                },
            },
            "response_direction_config": {"common_config": {"content_type": METRIC_TYPES}},
        },
    })
}
