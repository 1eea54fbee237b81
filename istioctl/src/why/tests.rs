//! Small dumps, and what is said of requests by them.

// Each is a literal, made for the one call.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::*;

fn any(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/{kind}").into();
    fields
}

fn manager(filters: Value, routes: Value) -> Value {
    let mut filters = filters.as_array().cloned().unwrap_or_default();
    filters.push(json!({"name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({}))}));
    let mut fields = json!({"http_filters": filters, "normalize_path": true});
    fields.as_object_mut().unwrap().extend(routes.as_object().unwrap().clone());
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({"name": "manager", "typed_config": any(kind, fields)})
}

fn forward(cluster: &str) -> Value {
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    json!({"name": "tcp", "typed_config": any(kind, json!({"cluster": cluster}))})
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}

fn section(name: &str, mut fields: Value) -> Value {
    fields["@type"] = format!("type.googleapis.com/envoy.admin.v3.{name}").into();
    fields
}

fn node(id: &str) -> Value {
    section("BootstrapConfigDump", json!({"bootstrap": {"node": {"id": id}}}))
}

fn listeners(all: Value) -> Value {
    let all: Vec<Value> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| json!({"active_state": {"listener": listener}}))
        .collect();
    section("ListenersConfigDump", json!({"dynamic_listeners": all}))
}

fn clusters(all: Value) -> Value {
    let all: Vec<Value> = all.as_array().unwrap().iter().map(|cluster| json!({"cluster": cluster})).collect();
    section("ClustersConfigDump", json!({"dynamic_active_clusters": all}))
}

const TO_A: &str = "outbound|80||a.ns.svc.cluster.local";

/// A client that knows service `a` at 10.1.0.1; `routes` are those of its host.
fn client(routes: Value, endpoints: Value) -> Proxy {
    let hosts =
        json!([{"name": "a", "domains": ["a.ns.svc.cluster.local", "a", "10.1.0.1"], "routes": routes}]);
    let inspector = any("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", json!({}));
    let dump = json!({"configs": [
        node("sidecar~10.0.0.1~web-0.ns~ns.svc.cluster.local"),
        listeners(json!([
            {
                "name": "virtualOutbound", "address": address("0.0.0.0", 15001), "use_original_dst": true,
                "traffic_direction": "OUTBOUND", "filter_chains": [{"filters": [forward("BlackHoleCluster")]}],
            },
            {
                "name": "0.0.0.0_80", "address": address("0.0.0.0", 80), "bind_to_port": false, "traffic_direction": "OUTBOUND",
                "listener_filters": [{"name": "http", "typed_config": inspector}],
                "filter_chains": [{
                    "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]},
                    "filters": [manager(json!([]), json!({"rds": {"route_config_name": "80"}}))],
                }],
                "default_filter_chain": {"filters": [forward("BlackHoleCluster")]},
            },
        ])),
        section("RoutesConfigDump", json!({"dynamic_route_configs": [{
            "route_config": {"name": "80", "virtual_hosts": hosts, "ignore_port_in_host_matching": true},
        }]})),
        clusters(json!([{"name": TO_A, "type": "EDS"}, {"name": "BlackHoleCluster", "type": "STATIC"}])),
        section("EndpointsConfigDump", json!({"dynamic_endpoint_configs": [{
            "endpoint_config": {"cluster_name": TO_A, "endpoints": [{"lb_endpoints": endpoints}]},
        }]})),
    ]});
    Proxy::read(&dump.to_string(), None).unwrap()
}

fn endpoint(ip: &str) -> Value {
    json!({"endpoint": {"address": address(ip, 8080)}})
}

/// A server at 10.0.0.2 with these filters of requests.
fn server(filters: Value) -> Proxy {
    let routes = json!({"route_config": {"virtual_hosts": [{
        "name": "inbound", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "inbound|8080||"}}],
    }]}});
    let dump = json!({"configs": [
        node("sidecar~10.0.0.2~a-0.ns~ns.svc.cluster.local"),
        listeners(json!([{
            "name": "virtualInbound", "address": address("0.0.0.0", 15006), "traffic_direction": "INBOUND",
            "filter_chains": [{
                "name": "0.0.0.0_8080",
                "filter_chain_match": {"destination_port": 8080, "transport_protocol": "raw_buffer"},
                "filters": [manager(filters, routes)],
            }],
        }])),
        clusters(json!([{"name": "inbound|8080||", "type": "ORIGINAL_DST"}])),
    ]});
    Proxy::read(&dump.to_string(), None).unwrap()
}

fn everything(action: Value) -> Value {
    let mut route = json!({"match": {"prefix": "/"}});
    route.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
    json!([route])
}

fn to_a() -> Value {
    everything(json!({"route": {"cluster": TO_A}}))
}

fn say(client: &Proxy, server: Option<&Proxy>, url: &str) -> Explanation {
    let find = |ip: IpAddr| match server {
        Some(server) if server.addresses.contains(&ip) => Peer::Proxy(server),
        _ => Peer::Outside,
    };
    explain(client, &Question::to(url).unwrap(), &find)
}

fn only(explanation: &Explanation) -> &End {
    let ends = explanation.way.ends();
    assert_eq!(ends.len(), 1, "{}", explanation.text());
    ends[0].1
}

#[test]
fn a_request_is_followed_to_the_workload() {
    let (client, server) = (client(to_a(), json!([endpoint("10.0.0.2")])), server(json!([])));
    let said = say(&client, Some(&server), "http://a/x/../y");
    let End::Arrives { workload, address, request } = only(&said) else { panic!("{}", said.text()) };
    assert_eq!((workload.as_str(), address.as_str()), ("a-0.ns", "10.0.0.2:8080"));
    assert_eq!(request.as_deref(), Some("GET a/y"));
    assert_eq!(said.summary, "would reach a-0.ns");
    assert!(!said.refuses() && !said.is_unsure());
    let text = said.text();
    assert!(text.contains("a is service a.ns.svc.cluster.local at 10.1.0.1"), "{text}");
    assert!(text.ends_with("would reach a-0.ns\n"), "{text}");
}

#[test]
fn what_refuses_is_told_with_what_to_change() {
    let refused = |routes: Value, endpoints: Value, url: &str| {
        let said = say(&client(routes, endpoints), None, url);
        assert!(said.refuses(), "{}", said.text());
        match only(&said) {
            End::Refused { status, flag, change, .. } => (*status, flag.clone(), change.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (status, flag, change) = refused(to_a(), json!([]), "http://a/");
    assert_eq!((status, flag.as_str()), (Some(503), "UH"));
    assert!(change.contains("a.ns.svc.cluster.local"), "{change}");
    let missing = everything(json!({"route": {"cluster": "outbound|80|v9|a.ns.svc.cluster.local"}}));
    let (status, flag, change) = refused(missing, json!([]), "http://a/");
    assert_eq!((status, flag.as_str()), (Some(503), "NC"));
    assert!(change.contains("subset v9"), "{change}");
    let (status, flag, _) = refused(json!([]), json!([]), "http://a/");
    assert_eq!((status, flag.as_str()), (Some(404), "NR"));
    let (status, flag, _) = refused(to_a(), json!([]), "http://10.1.0.9/");
    assert_eq!((status, flag.as_str()), (Some(404), "NR"));
    let (status, flag, _) = refused(to_a(), json!([]), "tcp://10.1.0.9:81");
    assert_eq!((status, flag.as_str()), (None, "UH"));
}

#[test]
fn policies_and_faults_split_and_end_ways() {
    let deny = json!([{"name": "rbac", "typed_config": any("envoy.extensions.filters.http.rbac.v3.RBAC", json!({"rules": {
        "action": "DENY", "policies": {"ns[ns]-policy[p]-rule[0]": {
            "permissions": [{"url_path": {"path": {"prefix": "/admin"}}}], "principals": [{"any": true}],
        }},
    }}))}]);
    let server = server(deny);
    let client = client(to_a(), json!([endpoint("10.0.0.2")]));
    let said = say(&client, Some(&server), "http://a/admin/x");
    let End::Refused { status, object, .. } = only(&said) else { panic!("{}", said.text()) };
    assert_eq!((*status, object.as_deref()), (Some(403), Some("AuthorizationPolicy p.ns")));
    assert!(!say(&client, Some(&server), "http://a/").refuses());
}

#[test]
fn weights_are_shares_of_ways() {
    let clusters = json!([{"name": TO_A, "weight": 25}, {"name": "nowhere", "weight": 75}]);
    let routes = everything(json!({"route": {"weighted_clusters": {"clusters": clusters}}}));
    let said = say(&client(routes, json!([endpoint("10.0.0.7")])), None, "http://a/");
    let shares: Vec<f64> = said.way.ends().iter().map(|(share, ..)| *share).collect();
    assert_eq!(shares, [0.25, 0.75]);
    assert!(
        said.summary.starts_with("25 % would reach 10.0.0.7:8080; 75 % would be refused (503 NC)"),
        "{}",
        said.summary
    );
}

#[test]
fn what_is_not_understood_is_said() {
    let filters = json!([
        {"name": "mine", "typed_config": any("envoy.extensions.filters.http.wasm.v3.Wasm", json!({}))},
        {"name": "new", "typed_config": any("a.b.Unknown", json!({"x": 1}))},
    ]);
    let (client, server) = (client(to_a(), json!([endpoint("10.0.0.2")])), server(filters));
    let said = say(&client, Some(&server), "http://a/");
    assert!(said.is_unsure() && !said.refuses());
    assert!(said.summary.contains("cannot tell") && said.summary.contains("a.b.Unknown"), "{}", said.summary);
}

#[test]
fn a_client_outside_meets_the_inbound_side_only() {
    let server = server(json!([]));
    let question = Question { from: "10.9.9.9".parse().ok(), ..Question::to("http://:8080/").unwrap() };
    let said = explain(&server, &question, &|_| Peer::Outside);
    assert_eq!(said.summary, "would reach a-0.ns");
    let other = Question { port: 8081, ..question };
    let said = explain(&server, &other, &|_| Peer::Outside);
    let End::Refused { status, flag, .. } = only(&said) else { panic!("{}", said.text()) };
    assert_eq!((*status, flag.as_str()), (None, "NR"));
}

#[test]
fn a_dump_of_nothing_and_pages_of_others_do_no_harm() {
    let empty = Proxy::read(r#"{"configs": [{"@type": "x"}]}"#, Some("{}")).unwrap();
    assert!(say(&empty, None, "http://a/").refuses());
    for other in ["[]", "x", "{}", r#"{"configs": []}"#, r#"{"configs": [5]}"#] {
        assert!(Proxy::read(other, None).is_err(), "{other}");
    }
}
