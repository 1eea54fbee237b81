use super::view::{Cluster, Listener, Secret};
use super::*;

const DUMP: &str = r#"{"configs": [
    {"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "sidecar~1~a.b~c",
        "metadata": {"ISTIO_VERSION": "1.2", "X": {"y": [1]}}, "user_agent_build_version": {"version": {"major_number": 1}}}}},
    {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
     "static_clusters": [{"cluster": {"name": "own"}}],
     "dynamic_active_clusters": [{"version_info": "7", "cluster": {"name": "outbound|80||a", "type": "EDS",
        "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/ns/destination-rule/dr"}}}}}]},
    {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
        {"name": "l", "active_state": {"version_info": "8", "listener": {"name": "l", "address": {"socket_address": {"address": "1.2.3.4", "port_value": 80}}}}},
        {"name": "warming", "warming_state": {"listener": {"name": "warming"}}}]},
    {"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump", "dynamic_active_secrets": [{"name": "default", "secret": {"name": "default"}}],
     "dynamic_warming_secrets": [{"name": "kubernetes://x", "secret": {"name": "kubernetes://x"}}]},
    {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter": {"name": "one"}}]},
    {"@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump", "ecds_filters": [{"ecds_filter": {"name": "two"}}]}
]}"#;

#[test]
fn resources_are_read_one_at_a_time() {
    let dump = ConfigDump::parse(DUMP).unwrap();
    let clusters = dump.clusters().unwrap();
    let read: Vec<Cluster<'_>> = clusters.iter().map(|cluster| cluster.read().unwrap()).collect();
    assert_eq!((&*read[0].name, read[0].kind(), clusters[0].state), ("outbound|80||a", "EDS", State::Active));
    assert_eq!(read[0].metadata.as_ref().unwrap().object(), "dr.ns");
    assert_eq!((read[1].kind(), clusters[1].state, &*clusters[0].version), ("STATIC", State::Static, "7"));
    let listeners = dump.listeners().unwrap();
    let listener: Listener<'_> = listeners[0].read().unwrap();
    assert_eq!((listener.ip(), listener.port(), listeners.len()), ("1.2.3.4", 80, 1));
    assert_eq!(&*listeners[0].version, "8");
    let secrets = dump.secrets().unwrap();
    assert_eq!(
        (secrets[0].state, &*secrets[0].read::<Secret<'_>>().unwrap().name),
        (State::Warming, "kubernetes://x")
    );
    assert_eq!(dump.extensions().unwrap().len(), 2);
    assert_eq!(&*dump.bootstrap().unwrap().bootstrap.node.id, "sidecar~1~a.b~c");
}

#[test]
fn what_is_not_in_a_dump_is_told() {
    let dump = ConfigDump::parse(DUMP).unwrap();
    let told = dump.routes().unwrap_err().to_string();
    assert_eq!(
        told,
        "config dump has no configuration type type.googleapis.com/envoy.admin.v3.RoutesConfigDump"
    );
    assert!(dump.endpoints().unwrap().is_empty());
    let told = ConfigDump::parse("active loggers:").unwrap_err().to_string();
    assert!(told.contains("/config_dump"), "{told}");
}

#[test]
fn names_may_be_those_of_json() {
    let text = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "dynamicListeners": [{"activeState": {"versionInfo": "1", "listener": {"name": "x",
            "address": {"socketAddress": {"portValue": 7}}, "filterChains": [{"filterChainMatch": {"destinationPort": 9}}]}}}]}]}"#;
    let dump = ConfigDump::parse(text).unwrap();
    let listener: Listener<'_> = dump.listeners().unwrap()[0].read().unwrap();
    assert_eq!(listener.port(), 7);
    assert_eq!(listener.filter_chains[0].filter_chain_match.as_ref().unwrap().destination_port, Some(9));
}

#[test]
fn the_place_of_an_endpoint_is_told_for_each_kind_of_address() {
    let page = r#"{"cluster_statuses": [{"name": "c", "host_statuses": [
        {"address": {"socket_address": {"address": "::1", "port_value": 1}}, "health_status": {"eds_health_status": "HEALTHY"}},
        {"address": {"pipe": {"path": "/a"}}, "health_status": {"failed_outlier_check": true}},
        {"address": {"envoy_internal_address": {"server_listener_name": "l", "endpoint_id": "e"}}}, {}]}]}"#;
    let all = clusters::parse(page).unwrap();
    let cluster = clusters::Status::read(all[0]).unwrap();
    let places: Vec<String> = cluster.host_statuses.iter().map(clusters::Host::place).collect();
    assert_eq!(places, ["::1", "unix:///a", "envoy://l/e", "unknown"]);
    assert_eq!(cluster.host_statuses[1].health(), "UNKNOWN");
    assert!(cluster.host_statuses[1].health_status.failed_outlier_check);
    assert!(clusters::parse(DUMP).unwrap().is_empty());
}
