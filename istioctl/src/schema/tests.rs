use super::*;
use crate::render::json::{Style, render};

fn canonical(name: &str, json: &str) -> String {
    let value = serde_json::from_str(json).unwrap();
    let text = render(&Schema::default().canonical(name, value), Style::Plain);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn fields_are_in_the_order_of_their_declaration() {
    let json = r#"{"@type": "x", "type": 3, "connect_timeout": "0.25s", "name": "c", "lb_policy": "ROUND_ROBIN",
        "eds_cluster_config": {"eds_config": {"ads": {}}}, "per_connection_buffer_limit_bytes": 1}"#;
    let wanted = r#"{ "name": "c", "type": "EDS", "edsClusterConfig": { "edsConfig": { "ads": {} } }, "connectTimeout": "0.250s", "perConnectionBufferLimitBytes": 1 }"#;
    assert_eq!(canonical("envoy.config.cluster.v3.Cluster", json), wanted);
}

#[test]
fn packed_messages_and_free_json_are_canonical_too() {
    let json = r#"{"name": "n", "typed_config": {"stat_prefix": "p", "@type": "t/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "cluster": "c"}}"#;
    let wanted = r#"{ "name": "n", "typedConfig": { "@type": "t/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "statPrefix": "p", "cluster": "c" } }"#;
    assert_eq!(canonical("envoy.config.listener.v3.Filter", json), wanted);
    let json = r#"{"filter_metadata": {"z": {"b": 1.0, "a": [{"d": 1, "c": null}]}, "a": {}}}"#;
    let wanted = r#"{ "filterMetadata": { "a": {}, "z": { "a": [ { "c": null, "d": 1 } ], "b": 1 } } }"#;
    assert_eq!(canonical("envoy.config.core.v3.Metadata", json), wanted);
}

#[test]
fn what_is_not_known_stays() {
    let json = r#"{"new_field": {"b": 1, "a": 2}, "name": "n", "typed_config": {"@type": "t/not.Known", "b": "1", "a_b": 2}}"#;
    let wanted = r#"{ "name": "n", "typedConfig": { "@type": "t/not.Known", "b": "1", "a_b": 2 }, "new_field": { "b": 1, "a": 2 } }"#;
    assert_eq!(canonical("envoy.config.listener.v3.Filter", json), wanted);
    assert_eq!(canonical("not.Known", r#"{"b": 1}"#), r#"{ "b": 1 }"#);
}

#[test]
fn times_have_groups_of_three_digits() {
    let json = r#"{"version_info": "", "last_updated": "2026-11-24T01:02:43.0100+01:00"}"#;
    let wanted = r#"{ "lastUpdated": "2026-11-24T00:02:43.010Z" }"#;
    assert_eq!(canonical("envoy.admin.v3.ClustersConfigDump.DynamicCluster", json), wanted);
    for (text, wanted) in
        [("1.5s", "1.500s"), ("3s", "3s"), ("0.000001s", "0.000001s"), ("2.000s", "2s"), ("x", "x")]
    {
        assert_eq!(duration(Value::String(text.into())), Value::String(wanted.into()));
    }
}

#[test]
fn wide_integers_are_text_and_defaults_are_left_out() {
    let json = r#"{"drain_timeout": null, "codec_type": "AUTO", "max_request_headers_kb": "60", "server_name": "", "skip_xff_append": false}"#;
    let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    assert_eq!(canonical(name, json), r#"{ "maxRequestHeadersKb": 60 }"#);
    assert_eq!(canonical("envoy.type.v3.Int64Range", r#"{"start": 0, "end": 5}"#), r#"{ "end": "5" }"#);
}

#[test]
fn types_that_no_other_names_are_known() {
    let json = r#"{"name": "n", "typed_config": {"@type": "t/udpa.type.v1.TypedStruct", "value": {"b_c": 1, "a": {}}, "type_url": "u"}}"#;
    let wanted = r#"{ "name": "n", "typedConfig": { "@type": "t/udpa.type.v1.TypedStruct", "typeUrl": "u", "value": { "a": {}, "b_c": 1 } } }"#;
    assert_eq!(canonical("envoy.config.listener.v3.Filter", json), wanted);
    let json = r#"{"range_matchers": [{"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}]}"#;
    let wanted =
        r#"{ "rangeMatchers": [ { "ranges": [ { "addressPrefix": "10.0.0.0", "prefixLen": 8 } ] } ] }"#;
    assert_eq!(canonical("xds.type.matcher.v3.IPMatcher", json), wanted);
}
