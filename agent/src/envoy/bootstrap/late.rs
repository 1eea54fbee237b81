//! What becomes known only after the configuration is resolved, written into
//! a bootstrap that is ready otherwise.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{clusters, listeners, socket_address};
use crate::config::node::locality_json;

/// Where the machine runs, as its platform tells.
pub fn platform(node: &mut Value, locality: &[String], metadata: &BTreeMap<String, String>) {
    if !metadata.is_empty() {
        node["metadata"]["PLATFORM_METADATA"] = json!(metadata);
    }
    // A label of the pod knows better.
    let is_told = node["locality"].as_object().is_some_and(|locality| !locality.is_empty());
    if !is_told {
        node["locality"] = Value::Object(locality_json(locality));
    }
}

/// Another SDS server gives the workload's certificate; the agent's own serves
/// files only, on that socket.
pub fn files_only(bootstrap: &mut Value, socket: &Path) {
    bootstrap["node"]["metadata"]["file-credential"] = json!("true");
    if let Some(clusters) = bootstrap["static_resources"]["clusters"].as_array_mut() {
        clusters.push(clusters::sds_files(socket));
    }
}

/// An SDS server gives certificates by their names (gateways).
pub fn credentials(bootstrap: &mut Value) {
    bootstrap["node"]["metadata"]["credential"] = json!("true");
}

/// Statistics go to that address.
pub fn add_statsd(bootstrap: &mut Value, ip: IpAddr, port: u16) {
    let sink = statsd(ip, port);
    match bootstrap["stats_sinks"].as_array_mut() {
        Some(sinks) => sinks.push(sink),
        None => bootstrap["stats_sinks"] = json!([sink]),
    }
}

/// A filter changes the answers with Envoy's metrics, before they are compressed.
pub fn add_metrics_filter(bootstrap: &mut Value, filter: &Value) {
    let listeners = bootstrap["static_resources"]["listeners"].as_array_mut();
    let chains =
        listeners.into_iter().flatten().filter_map(|listener| listener["filter_chains"].as_array_mut());
    let filters = chains.flatten().filter_map(|chain| chain["filters"].as_array_mut()).flatten();
    for manager in filters.map(|filter| &mut filter["typed_config"]) {
        let hosts = manager["route_config"]["virtual_hosts"].as_array();
        let mut routes = hosts.into_iter().flatten().filter_map(|host| host["routes"].as_array()).flatten();
        let is_for_metrics = routes.any(|route| route["route"]["cluster"] == listeners::METRICS_CLUSTER);
        if let Some(filters) = manager["http_filters"].as_array_mut().filter(|_| is_for_metrics) {
            let router = filters.len().saturating_sub(1);
            filters.insert(router, filter.clone());
        }
    }
}

pub(super) fn statsd(ip: IpAddr, port: u16) -> Value {
    json!({
        "name": "envoy.stat_sinks.statsd",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
            "address": socket_address(ip, port),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_does_not_overrule_a_label() {
        let known = BTreeMap::from([("aws_region".to_owned(), "r".to_owned())]);
        let parts = ["r".to_owned(), "z".to_owned()];
        let mut node = json!({"locality": {}, "metadata": {}});
        platform(&mut node, &parts, &known);
        assert_eq!(
            node,
            json!({"locality": {"region": "r", "zone": "z"}, "metadata": {"PLATFORM_METADATA": {"aws_region": "r"}}})
        );
        let mut node = json!({"locality": {"region": "mine"}, "metadata": {}});
        platform(&mut node, &parts, &BTreeMap::new());
        assert_eq!(node, json!({"locality": {"region": "mine"}, "metadata": {}}));
    }
}
