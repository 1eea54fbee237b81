//! Envoy's bootstrap: who it is, where its configuration and secrets come
//! from, and the two listeners that it has before any configuration.
//!
//! A function from settings to JSON; writing the file is not done here.

mod resources;
mod stats;

use std::collections::BTreeMap;

use mesh::ProxyConfig;
use serde_json::{Map, Value, json};

use crate::config::Paths;
use crate::config::node::Node;

/// Name of the cluster that leads to the agent's xDS socket.
pub const XDS_CLUSTER: &str = "xds-grpc";
/// Name of the cluster that leads to the agent's SDS socket.
pub const SDS_CLUSTER: &str = "sds-grpc";
/// Connections that Envoy accepts unless limited.
const NO_CONNECTION_LIMIT: u32 = 2_147_483_647;

/// What the bootstrap depends on.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The effective ProxyConfig.
    pub proxy: &'a ProxyConfig,
    /// Who the proxy is.
    pub node: &'a Node,
    /// Sockets.
    pub paths: &'a Paths,
    /// Logs are JSON.
    pub log_as_json: bool,
    /// Annotations of the pod.
    pub annotations: &'a BTreeMap<String, String>,
    /// Ask for what has changed only.
    pub delta: bool,
    /// Port that passes readiness probes on.
    pub status_port: u16,
    /// Port of Envoy's own metrics.
    pub prometheus_port: u16,
    /// Cut fragments off paths.
    pub strip_fragment: bool,
    /// Keep the counters of open connections.
    pub count_connections: bool,
}

/// Builds the bootstrap.
#[must_use]
pub fn build(options: &Options<'_>) -> Value {
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
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
            "address": resources::socket_address(options.localhost(), options.proxy.proxy_admin_port),
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
        "static_resources": {
            "clusters": resources::clusters(options),
            "listeners": resources::listeners(options),
        },
        "overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": connection_limit(options),
            },
        }]},
        "deferred_stat_options": {"enable_deferred_creation_stats": true},
    })
}

impl Options<'_> {
    fn is_ipv4(&self) -> bool {
        self.node.id.ip.is_ipv4()
    }

    fn localhost(&self) -> &'static str {
        if self.is_ipv4() { "127.0.0.1" } else { "::1" }
    }

    fn wildcard(&self) -> &'static str {
        if self.is_ipv4() { "0.0.0.0" } else { "::" }
    }
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

fn connection_limit(options: &Options<'_>) -> u32 {
    let given = options.node.metadata.get("GLOBAL_DOWNSTREAM_MAX_CONNECTIONS").and_then(Value::as_str);
    given.and_then(|text| text.parse().ok()).unwrap_or(NO_CONNECTION_LIMIT)
}

#[cfg(test)]
mod tests;
