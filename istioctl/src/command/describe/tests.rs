use serde_json::json;

use super::*;

fn web() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web", "version": "v1"},
            "annotations": {"sidecar.istio.io/status": "{\"revision\":\"stable\"}"}},
        "spec": {
            "containers": [
                {"name": "web", "ports": [{"name": "http", "containerPort": 9080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]},
                {"name": "bad", "securityContext": {"runAsUser": 1337}},
            ],
            "initContainers": [{"name": "istio-proxy", "restartPolicy": "Always", "ports": [{"name": "stats", "containerPort": 15090}]}],
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "web", "ready": true}, {"name": "bad", "ready": false}]},
    })
}

fn service() -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"port": 9000, "protocol": "TCP"},
            {"name": "tls-x", "port": 1, "targetPort": "none"},
        ]},
    })
}

#[test]
fn a_pod_is_described_with_what_is_wrong_with_it() {
    assert_eq!(pod::revision(&web()), "stable");
    let wanted = "WARNING: User ID (UID) 1337 is reserved for the sidecar proxy.\n\
        Pod: web-0\n   Pod Revision: stable\n   Pod Ports: 9080 (web), 53/UDP (web)\n\
        WARNING: Pod web-0 Container bad NOT READY\n";
    assert_eq!(pod::text(&web(), "web-0", "stable", false), wanted);
    let mut other = web();
    other["spec"]["initContainers"] = json!([]);
    other["metadata"]["labels"] = json!({});
    assert!(pod::text(&other, "web-0", "", false).ends_with("web-0 is not part of mesh; no Istio sidecar\n"));
    assert!(!pod::text(&other, "web-0", "", true).contains("mesh"));
    other["spec"]["containers"] = json!([{"name": "istio-proxy"}]);
    assert_eq!(pod::text(&other, "a", "", false).matches("Suggestion: add required service").count(), 2);
    other["status"]["phase"] = "Pending".into();
    assert!(
        pod::text(&other, "a", "", false)
            .ends_with("   Pod does not expose ports\n   Pod is not Running (Pending)\n")
    );
    assert_eq!(pod::problem(&other).unwrap(), "   Pod is not Running (Pending)");
    assert!(pod::problem(&web()).unwrap().contains("no container"));
}

#[test]
fn ports_lead_to_ports_of_the_pod() {
    let all = service();
    let wanted = "   Port: http 80/HTTP targets pod port 9080\n   Port:  9000/auto-detect targets pod port 9000\n\
        \x20  no container of the pod has a port named \"none\"\n";
    assert_eq!(pod::ports(all["spec"]["ports"].as_array().unwrap(), &web()), wanted);
    assert!(pod::is_selected(&all["spec"]["selector"], &web()) && !pod::is_selected(&Value::Null, &web()));
    for (port, wanted) in [
        (json!({"name": "grpc-web-a"}), "GRPCWeb"),
        (json!({"name": "x", "port": 3306}), "TCP"),
        (json!({"name": "x", "port": 80}), "UnsupportedProtocol"),
        (json!({"name": "x", "appProtocol": "kubernetes.io/h2c"}), "HTTP2"),
    ] {
        assert_eq!(pod::protocol(&port), wanted);
    }
}

#[test]
fn a_rule_is_described_with_the_subsets_of_the_pod() {
    let rule = json!({"spec": {
        "host": "web", "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
        "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}, "loadBalancer": {}, "outlierDetection": {},
            "portLevelSettings": [{"port": {"number": 80}, "tls": {}, "connectionPool": {}}]},
    }});
    let subsets = Subsets::of(&rule, &[&web()]);
    let wanted = "   DestinationRule: web for \"web\"\n      Matching subsets: v1\n         (Non-matching subsets v2)\n\
        \x20     Traffic Policy TLS Mode: ISTIO_MUTUAL\n      Policies: load balancer/outlier detection\n\
        \x20     Port Level Settings:\n    80:\n         TLS Mode: DISABLE\n         Policies: connection pool\n";
    assert_eq!(rule::text(&rule, "web", &subsets, 3), wanted);
    let bare = json!({"spec": {"host": "web"}});
    assert_eq!(
        rule::text(&bare, "a", &Subsets::of(&bare, &[]), 0),
        "DestinationRule: a for \"web\"\n   No Traffic Policy\n"
    );
}

#[test]
fn routes_are_told_that_lead_to_the_pod() {
    let subsets = Subsets { matching: vec!["v1".into()], others: vec!["v2".into()] };
    let routes = |http: Value| json!({"metadata": {"namespace": "shop"}, "spec": {"http": http}});
    let text = |http: Value, rule: Option<&str>| {
        virtual_service::text(&routes(http), "vs", &service(), &subsets, rule, 0)
    };
    let to = |subset: &str, weight: i64| json!({"destination": {"host": "web.shop.svc.cluster.local", "subset": subset}, "weight": weight});
    let jason = json!({"match": [{"headers": {"end-user": {"exact": "jason"}}, "uri": {"prefix": "/a"}}], "route": [to("v2", 0)]});
    let told = text(
        json!([jason, {"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 50}}}, "route": [to("v1", 75), to("v2", 25)]}]),
        Some("r"),
    );
    assert_eq!(
        told,
        "VirtualService: vs\n   Route to host \"web.shop.svc.cluster.local\" subset \"v1\" with weight 75%\n\
         \x20  Fault injection abort 500 for 50%\n   1 additional destination(s) that will not reach this pod\n"
    );
    assert_eq!(
        text(json!([jason]), Some("r")),
        "VirtualService: vs\n   WARNING: No destinations match pod subsets (checked 1 HTTP routes)\n\
         \x20     Route to non-matching subset v2 for (Match: /a* when headers are end-user=jason)\n"
    );
    assert!(
        text(json!([{"route": [to("v9", 0)]}]), None).contains("Route to subset v9 but NO DESTINATION RULE")
    );
    assert!(
        text(json!([{"route": [to("v9", 0)]}]), Some("r"))
            .contains("UNKNOWN subset v9; check DestinationRule r")
    );
    assert_eq!(
        text(json!([{"route": [{"destination": {"host": "web"}}]}]), None),
        "VirtualService: vs\n   1 HTTP route(s)\n"
    );
}

#[test]
fn the_objects_that_envoy_was_configured_by_are_found() {
    let istio = |kind: &str, name: &str| json!({"filter_metadata": {"istio": {"config": format!("/apis/networking.istio.io/v1/namespaces/shop/{kind}/{name}")}}});
    let policy = |name: &str| {
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {"http_filters": [
            {"name": "envoy.filters.http.rbac", "typed_config": {"rules": {"policies": {name: {}}}}},
        ]}})
    };
    let text = json!({"configs": [
        {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": [
            {"cluster": {"name": "outbound|80|v1|web.shop.svc.example.org", "metadata": istio("destination-rule", "rule")}},
        ]},
        {"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump", "dynamic_route_configs": [
            {"route_config": {"name": "81", "virtual_hosts": [{"domains": ["web.shop.svc.example.org"], "routes": [{"metadata": istio("virtual-service", "other")}]}]}},
            {"route_config": {"name": "80", "virtual_hosts": [{"domains": ["web.shop.svc.example.org"], "routes": [{"metadata": istio("virtual-service", "vs")}]}]}},
            {"route_config": {"name": "http.8080", "virtual_hosts": [{"domains": ["*"], "routes": [
                {"route": {"cluster": "outbound|9000||web.shop.svc.example.org"}, "metadata": istio("virtual-service", "edge")}]}]}},
        ]},
        {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
            {"name": "virtualInbound", "active_state": {"listener": {"name": "virtualInbound", "filter_chains": [
                {"filter_chain_match": {"destination_port": 9080}, "filters": [policy("ns[shop]-policy[own]-rule[0]")]},
                {"filters": [policy("ns[shop]-policy[all]-rule[0]")]},
            ]}}},
        ]},
    ]})
    .to_string();
    let dump = ConfigDump::parse(&text).unwrap();
    let named = |name: &str| Some((name.to_owned(), "shop".to_owned()));
    assert_eq!(envoy::destination_rule(&dump, &service(), 80).unwrap(), named("rule"));
    assert_eq!(envoy::destination_rule(&dump, &service(), 81).unwrap(), None);
    assert_eq!(envoy::virtual_service(&dump, &service(), 80).unwrap(), named("vs"));
    assert_eq!(envoy::virtual_service(&dump, &service(), 9000).unwrap(), named("edge"));
    assert_eq!(envoy::policies(&dump, Some(9080)).unwrap(), ["ns[shop]-policy[own]-rule[0]"]);
    assert_eq!(envoy::policies(&dump, Some(1)).unwrap(), ["ns[shop]-policy[all]-rule[0]"]);
}
