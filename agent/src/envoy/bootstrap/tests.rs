use std::collections::BTreeMap;
use std::path::PathBuf;

use names::{NodeId, NodeType};

use super::*;
use crate::config::node::Family;

fn node(ip: &str) -> Node {
    Node {
        id: NodeId {
            node_type: NodeType::Sidecar,
            ip: ip.parse().unwrap(),
            name: "web-1".into(),
            namespace: "default".into(),
            domain: "default.svc.cluster.local".into(),
        },
        cluster: "web.default".into(),
        locality: vec!["r".into(), "z".into()],
        metadata: Map::new(),
        family: Family::of(&[ip.parse().unwrap()], false),
        ips: vec![ip.parse().unwrap(), "10.0.0.9".parse().unwrap()],
    }
}

fn built(ip: &str, change: impl FnOnce(&mut ProxyConfig, &mut BTreeMap<String, String>)) -> Value {
    let (mut proxy, mut annotations) = (mesh::proxy_config::defaults(), BTreeMap::new());
    change(&mut proxy, &mut annotations);
    let paths = Paths {
        sds_socket: PathBuf::from("./sds"),
        ads_socket: PathBuf::from("./XDS"),
        bootstrap: PathBuf::from("./envoy-rev.json"),
        token: PathBuf::from("./token"),
    };
    let (stats, warnings) = stats::Settings::read(&proxy, &annotations, false);
    assert!(warnings.is_empty(), "{warnings:?}");
    build(&Options {
        proxy: &proxy,
        node: &node(ip),
        paths: &paths,
        services: &Services::default(),
        stats: &stats,
        log_as_json: false,
        delta: true,
        ports: Ports { status: 15021, prometheus: 15090, secure_metrics: 0, secure_merged_metrics: 0 },
        proxy_protocol: false,
        metrics_localhost_only: false,
        strip_fragment: true,
        self_discovery: false,
        outlier_log: "",
    })
}

fn patterns(bootstrap: &Value) -> String {
    bootstrap["stats_config"]["stats_matcher"].to_string()
}

#[test]
fn names_the_proxy_and_its_sockets() {
    let bootstrap = built("10.1.0.10", |_, _| ());
    assert_eq!(bootstrap["node"]["id"], "sidecar~10.1.0.10~web-1.default~default.svc.cluster.local");
    assert_eq!(bootstrap["node"]["locality"], json!({"region": "r", "zone": "z"}));
    let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
    let names: Vec<_> = clusters.iter().map(|cluster| cluster["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prometheus_stats", "agent", "sds-grpc", "xds-grpc"]);
    assert!(clusters[3].to_string().contains("./XDS"));
    assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.0.0.1");
    assert_eq!(bootstrap["static_resources"]["listeners"][0]["name"], "0.0.0.0_15090");
}

#[test]
fn follows_the_address_family() {
    let bootstrap = built("fd00::1", |_, _| ());
    assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "::1");
    assert_eq!(bootstrap["static_resources"]["listeners"][1]["name"], "::_15021");
}

#[test]
fn runtime_values_replace_and_remove() {
    let bootstrap = built("10.1.0.10", |proxy, _| {
        proxy.runtime_values.insert("re2.max_program_size.error_level".into(), String::new());
        proxy.runtime_values.insert("a.b".into(), "true".into());
        proxy.runtime_values.insert("c".into(), "12".into());
    });
    let layer = &bootstrap["layered_runtime"]["layers"][0]["static_layer"];
    assert_eq!(layer.as_object().unwrap().len(), 6);
    assert_eq!((&layer["a.b"], &layer["c"]), (&json!(true), &json!("12")));
}

#[test]
fn annotations_beat_the_configuration_for_stats() {
    let matcher = |proxy: &mut ProxyConfig| {
        let matcher = proxy.proxy_stats_matcher.get_or_insert_default();
        matcher.inclusion_prefixes = vec!["from-config".into()];
    };
    assert!(patterns(&built("10.1.0.10", |proxy, _| matcher(proxy))).contains("from-config"));
    let bootstrap = built("10.1.0.10", |proxy, annotations| {
        matcher(proxy);
        annotations
            .insert("sidecar.istio.io/statsInclusionPrefixes".into(), "listener.{pod_ip}_15006,other".into());
    });
    let found = patterns(&bootstrap);
    assert!(!found.contains("from-config"));
    assert!(found.contains("listener.10.1.0.10_15006") && found.contains("listener.10.0.0.9_15006"));
}

#[test]
fn what_of_the_statistics_cannot_be_read_is_left_out_and_told() {
    let annotations = [
        ("sidecar.istio.io/statsFlushInterval", "10s"),
        ("sidecar.istio.io/statsEvictionInterval", "15s"),
        ("sidecar.istio.io/statsHistogramBuckets", "[1]"),
    ];
    let annotations =
        annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let (settings, warnings) = stats::Settings::read(&mesh::proxy_config::defaults(), &annotations, false);
    assert_eq!(settings.flush_interval.unwrap().seconds, 10);
    assert_eq!(settings.eviction_interval, None);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[1].contains("a multiple of the flush interval of 10s"), "{warnings:?}");
}
