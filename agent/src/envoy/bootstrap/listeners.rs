//! The listeners that Envoy has from the start.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Options, socket_address, tls};

/// Types whose responses are worth compressing.
const METRIC_TYPES: [&str; 4] = [
    "text/plain",
    "application/vnd.google.protobuf",
    "application/openmetrics-text",
    "application/openmetrics-protobuf",
];

/// Cluster that leads to Envoy's own metrics.
pub(super) const METRICS_CLUSTER: &str = "prometheus_stats";

/// All of them.
pub(super) fn all(options: &Options<'_>) -> Vec<Value> {
    let ports = &options.ports;
    let wildcard = options.node.family.wildcard();
    let metrics_at = if options.metrics_localhost_only { options.node.family.localhost() } else { wildcard };
    let mut filters = Vec::new();
    if options.proxy.stats_compression.as_ref().is_none_or(|asked| asked.value) {
        filters.extend(["brotli", "zstd", "gzip"].map(compressor));
    }
    filters.push(router());
    let metrics = manager("stats", &[("/stats/prometheus", METRICS_CLUSTER)], &filters);
    let mut listeners = vec![listener(metrics_at, ports.prometheus, &json!({"filters": [metrics]}))];
    let secure = [
        (ports.secure_metrics, "secure_stats", &[("/stats/prometheus", METRICS_CLUSTER)][..]),
        (
            ports.secure_merged_metrics,
            "secure_merged_stats",
            &[("/stats/prometheus", "agent"), ("/metrics", "agent")][..],
        ),
    ];
    for (port, prefix, routes) in secure.into_iter().filter(|(port, ..)| *port != 0) {
        let mut secure = listener(
            (wildcard.0, None),
            port,
            &json!({
                "filter_chain_match": {"transport_protocol": "tls"},
                "transport_socket": tls::downstream(),
                "filters": [manager(prefix, routes, &[router()])],
            }),
        );
        secure["listener_filters"] = json!([{
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
            },
        }]);
        listeners.push(secure);
    }
    let health = manager("agent", &[("/healthz/ready", "agent")], &[router()]);
    let mut status = listener(wildcard, ports.status, &json!({"filters": [health]}));
    if options.proxy_protocol {
        status["listener_filters"] = json!([{
            "name": "envoy.listener.proxy_protocol",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                "allow_requests_without_proxy_protocol": true,
            },
        }]);
    }
    listeners.push(status);
    listeners
}

fn listener((ip, second): (IpAddr, Option<IpAddr>), port: u16, chain: &Value) -> Value {
    let mut listener = json!({
        "name": format!("{ip}_{port}"),
        "address": socket_address(ip, port),
        "ignore_global_conn_limit": true,
        "bypass_overload_manager": true,
        "filter_chains": [chain],
    });
    if let Some(second) = second {
        listener["additional_addresses"] = json!([{"address": socket_address(second, port)}]);
    }
    listener
}

/// A connection manager that passes requests on by their path.
fn manager(stat_prefix: &str, routes: &[(&str, &str)], filters: &[Value]) -> Value {
    let routes: Vec<Value> = routes
        .iter()
        .map(|(prefix, cluster)| json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}}))
        .collect();
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO",
            "stat_prefix": stat_prefix,
            "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": routes}]},
            "http_filters": filters,
        },
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
