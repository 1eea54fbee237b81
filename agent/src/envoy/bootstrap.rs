//! Envoy's bootstrap: who it is, where its configuration and secrets come
//! from, and the listeners that it has before any configuration.
//!
//! A function from settings to JSON; writing the file is not done here. Only
//! extensions that stock Envoy has are ever named.

mod clusters;
pub mod late;
mod listeners;
pub mod services;
pub mod stats;
mod tls;

use std::net::IpAddr;

use mesh::ProxyConfig;
use serde_json::{Map, Value, json};

use self::services::{Services, Tracer};
use crate::config::Paths;
use crate::config::node::Node;

/// Name of the cluster that leads to the agent's xDS socket.
pub const XDS_CLUSTER: &str = "xds-grpc";
/// Name of the cluster that leads to the SDS socket of the workload.
pub const SDS_CLUSTER: &str = "sds-grpc";
/// Name of the cluster that leads to the agent's SDS socket for files.
pub const SDS_FILES_CLUSTER: &str = "sds-files-grpc";
/// Name of the cluster that the proxy itself belongs to.
const LOCAL_CLUSTER: &str = "local_cluster";
/// Connections that Envoy accepts unless limited.
const NO_CONNECTION_LIMIT: i64 = 2_147_483_647;
/// Metadata that limits them.
pub const CONNECTION_LIMIT_METADATA: &str = "GLOBAL_DOWNSTREAM_MAX_CONNECTIONS";
/// Older name of that limit, a switch of Envoy.
const CONNECTION_LIMIT_SWITCH: &str = "overload.global_downstream_max_connections";

/// What the bootstrap depends on.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The effective ProxyConfig.
    pub proxy: &'a ProxyConfig,
    /// Who the proxy is.
    pub node: &'a Node,
    /// Sockets.
    pub paths: &'a Paths,
    /// Servers that Envoy reports to.
    pub services: &'a Services,
    /// Statistics that are kept.
    pub stats: &'a stats::Settings,
    /// Logs are JSON.
    pub log_as_json: bool,
    /// Ask for what has changed only.
    pub delta: bool,
    /// Ports of Envoy's own listeners.
    pub ports: Ports,
    /// Readiness probes may come with the PROXY protocol.
    pub proxy_protocol: bool,
    /// Envoy's own metrics are for this machine only.
    pub metrics_localhost_only: bool,
    /// Cut fragments off paths.
    pub strip_fragment: bool,
    /// Envoy learns of the cluster that it belongs to.
    pub self_discovery: bool,
    /// File for the log of outliers; empty for none.
    pub outlier_log: &'a str,
}

/// Ports of Envoy's own listeners.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Passes readiness probes on.
    pub status: u16,
    /// Envoy's own metrics.
    pub prometheus: u16,
    /// The same over mutual TLS; 0 for none.
    pub secure_metrics: u16,
    /// Merged metrics over mutual TLS; 0 for none.
    pub secure_merged_metrics: u16,
}

/// Builds the bootstrap.
#[must_use]
pub fn build(options: &Options<'_>) -> Value {
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    let (localhost, _) = options.node.family.localhost();
    let mut all = json!({
        "application_log_config": {"log_format": log_format(options.log_as_json)},
        "node": options.node.to_json(),
        "layered_runtime": {"layers": [
            {"name": "global config", "static_layer": runtime(options)},
            {"name": "admin", "admin_layer": {}},
        ]},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                "value": {"buffer_size_kb": 64},
            },
        }],
        "stats_config": stats::config(options),
        "admin": {
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                },
            }],
            "profile_path": "/var/lib/istio/data/envoy.prof",
            "address": socket_address(localhost, options.proxy.proxy_admin_port),
        },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": if options.delta { "DELTA_GRPC" } else { "GRPC" },
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
            },
        },
        "static_resources": {"clusters": clusters::all(options), "listeners": listeners::all(options)},
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": connection_limit(options),
            },
        }]},
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
    });
    let optional = [
        ("stats_flush_interval", options.stats.flush_interval.map(|span| json!(span.to_string()))),
        ("stats_eviction_interval", options.stats.eviction_interval.map(|span| json!(span.to_string()))),
        ("tracing", tracing(options)),
        ("stats_sinks", sinks(options.services)),
        ("cluster_manager", cluster_manager(options)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            all[name] = value;
        }
    }
    all
}

fn socket_address(ip: IpAddr, port: impl Into<i64>) -> Value {
    let port: i64 = port.into();
    json!({"socket_address": {"address": ip.to_string(), "port_value": port}})
}

fn log_format(as_json: bool) -> Value {
    if as_json {
        json!({"json_format": {
            "time": "%Y-%m-%dT%T.%fZ",
            "level": "%l",
            "scope": "envoy %n",
            "caller": "%g:%#",
            "msg": "%j",
            "thread": "%t",
        }})
    } else {
        json!({"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"})
    }
}

/// Envoy's switches: ours, then those of `runtimeValues`, where an empty
/// value takes one away.
fn runtime(options: &Options<'_>) -> Map<String, Value> {
    let mut values = Map::from_iter([
        (
            "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst".to_owned(),
            json!(true),
        ),
        ("envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update".to_owned(), json!(false)),
        ("envoy.reloadable_features.fixed_heap_use_allocated".to_owned(), json!(true)),
        (
            "envoy.reloadable_features.http_reject_path_with_fragment".to_owned(),
            json!(!options.strip_fragment),
        ),
        ("re2.max_program_size.error_level".to_owned(), json!("32768")),
    ]);
    for (name, value) in &options.proxy.runtime_values {
        let value = match value.as_str() {
            "" => {
                values.remove(name);
                continue;
            }
            "true" => json!(true),
            "false" => json!(false),
            text => json!(text),
        };
        values.insert(name.clone(), value);
    }
    values
}

/// The first of the places where it can be set.
fn connection_limit(options: &Options<'_>) -> i64 {
    let settings = options.proxy.connection_settings.as_ref();
    let limit = settings.and_then(|settings| settings.global_downstream_connection_limit.as_ref());
    let texts = [
        options.node.metadata.get(CONNECTION_LIMIT_METADATA).and_then(Value::as_str),
        options.proxy.runtime_values.get(CONNECTION_LIMIT_SWITCH).map(String::as_str),
    ];
    limit
        .map(|limit| i64::from(limit.value))
        .filter(|limit| *limit > 0)
        .or_else(|| texts.into_iter().flatten().find_map(|text| text.parse().ok()))
        .unwrap_or(NO_CONNECTION_LIMIT)
}

fn tracing(options: &Options<'_>) -> Option<Value> {
    let (name, config) = match options.services.tracing.as_ref()? {
        Tracer::Zipkin(_) => (
            "envoy.tracers.zipkin",
            json!({
                "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
                "collector_cluster": "zipkin",
                "collector_endpoint": "/api/v2/spans",
                "collector_endpoint_version": "HTTP_JSON",
                "trace_id_128bit": true,
                "shared_span_context": false,
            }),
        ),
        Tracer::Datadog(_) => (
            "envoy.tracers.datadog",
            json!({
                "@type": "type.googleapis.com/envoy.config.trace.v3.DatadogConfig",
                "collector_cluster": "datadog_agent",
                "service_name": options.node.cluster,
            }),
        ),
    };
    Some(json!({"http": {"name": name, "typed_config": config}}))
}

fn sinks(services: &Services) -> Option<Value> {
    let metrics = services.metrics.as_ref().map(|_| {
        json!({
            "name": "envoy.stat_sinks.metrics_service",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.metrics.v3.MetricsServiceConfig",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "envoy_metrics_service"}},
            },
        })
    });
    let address = services.statsd.as_ref();
    let statsd = address.and_then(|address| Some(late::statsd(address.ip()?, address.port)));
    let sinks: Vec<Value> = metrics.into_iter().chain(statsd).collect();
    (!sinks.is_empty()).then(|| json!(sinks))
}

fn cluster_manager(options: &Options<'_>) -> Option<Value> {
    let mut manager = Map::new();
    if options.self_discovery {
        manager.insert("local_cluster_name".into(), json!(LOCAL_CLUSTER));
    }
    if !options.outlier_log.is_empty() {
        manager.insert("outlier_detection".into(), json!({"event_log_path": options.outlier_log}));
    }
    // Checked to be JSON when it was read; an object, or a text with one.
    let load = match options.node.metadata.get("LOAD_STATS_CONFIG_JSON") {
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        other => other.cloned(),
    };
    if let Some(load @ Value::Object(_)) = load {
        manager.insert("load_stats_config".into(), load);
    }
    if manager.is_empty() {
        return None;
    }
    manager.insert("enable_deferred_cluster_creation".into(), json!(true));
    Some(Value::Object(manager))
}

#[cfg(test)]
mod tests;
