use std::sync::Arc;

use proto::envoy::config::core::v3::{HealthStatus, Locality, Node, address};
use proto::envoy::config::endpoint::v3::{LbEndpoint, LocalityLbEndpoints, lb_endpoint};

use super::*;
use crate::scope::View;
use crate::snapshot::Snapshot;
use crate::{Proxy, Settings};

/// A STATIC service of three regions; its endpoints say by their address where they are.
const SPREAD: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: spread, namespace: shop}
spec:
  hosts: [spread.example.com]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
  - {address: 10.0.1.1, locality: r1/z1/a, labels: {tier: gold}}
  - {address: 10.0.1.2, locality: r1/z1/b, weight: 3}
  - {address: 10.0.1.3, locality: r1/z2}
  - {address: 10.0.2.1, locality: r2/z1}
  - {address: 10.0.3.1, locality: r3/z1}
";

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: spread, namespace: shop}}\n\
         spec: {{host: spread.example.com, trafficPolicy: {policy}}}\n"
    )
}

fn snapshot(texts: &[&str], settings: &Settings) -> Snapshot {
    let store = crate::testing::store(&texts.join("\n---\n"));
    Snapshot::build(&store, settings)
}

fn settings(mesh: &str) -> Settings {
    Settings::new(Arc::new(mesh::MeshConfig::from_yaml(mesh).unwrap()), "Kubernetes")
}

fn proxy(metadata: &[(&str, &str)]) -> Proxy {
    let value = |text: &str| prost_types::Value { kind: Some(Value::StringValue(text.to_owned())) };
    let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
    let node = Node {
        id: "sidecar~10.1.1.1~b.default~default.svc.cluster.local".into(),
        metadata: Some(prost_types::Struct { fields }),
        locality: Some(Locality { region: "r1".into(), zone: "z1".into(), sub_zone: "a".into() }),
        ..Node::default()
    };
    Proxy::from_node(&node).unwrap()
}

fn assigned(snapshot: &Snapshot, proxy: &Proxy, cluster: &str) -> Vec<LocalityLbEndpoints> {
    let view = View::new(snapshot, proxy);
    assignment(Scope::new(snapshot, proxy, &view), cluster).endpoints
}

fn address(endpoint: &LbEndpoint) -> String {
    let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!() };
    match endpoint.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => socket.address.clone(),
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        _ => panic!("{endpoint:?}"),
    }
}

/// Priority, weight and addresses of each group.
fn brief(groups: &[LocalityLbEndpoints]) -> Vec<(u32, Option<u32>, Vec<String>)> {
    let mut all: Vec<_> = groups
        .iter()
        .map(|group| {
            let addresses = group.lb_endpoints.iter().map(address).collect();
            (group.priority, group.load_balancing_weight, addresses)
        })
        .collect();
    all.sort();
    all
}

fn spread(mesh: &str, texts: &[&str]) -> Vec<(u32, Option<u32>, Vec<String>)> {
    let mut all = vec![SPREAD];
    all.extend(texts);
    let snapshot = snapshot(&all, &settings(mesh));
    brief(&assigned(&snapshot, &proxy(&[]), "outbound|80||spread.example.com"))
}

fn group(priority: u32, weight: u32, addresses: &[&str]) -> (u32, Option<u32>, Vec<String>) {
    (priority, Some(weight), addresses.iter().map(|&text| text.to_owned()).collect())
}

#[test]
fn without_outlier_detection_there_is_one_priority() {
    let all = spread("", &[]);
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|(priority, ..)| *priority == 0), "{all:?}");
    assert!(all.contains(&group(0, 3, &["10.0.1.2"])));
}

#[test]
fn the_nearest_come_first_and_priorities_have_no_gaps() {
    let outlier = rule("{outlierDetection: {interval: 1s}}");
    let want = [
        group(0, 1, &["10.0.1.1"]),
        group(1, 3, &["10.0.1.2"]),
        group(2, 1, &["10.0.1.3"]),
        group(3, 1, &["10.0.2.1"]),
        group(3, 1, &["10.0.3.1"]),
    ];
    assert_eq!(spread("", &[&outlier]), want);
    let off = rule("{outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}}");
    assert!(spread("", &[&off]).iter().all(|(priority, ..)| *priority == 0));
    assert!(
        spread("localityLbSetting: {enabled: false}", &[&outlier])
            .iter()
            .all(|(priority, ..)| *priority == 0)
    );
}

#[test]
fn a_region_to_fail_over_to_comes_before_others() {
    let text = "{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r3}]}}}";
    let all = spread("", &[&rule(text)]);
    assert_eq!(&all[3..], [group(3, 1, &["10.0.3.1"]), group(4, 1, &["10.0.2.1"])]);
}

#[test]
fn labels_rank_endpoints_before_places_do() {
    let by = |keys: &str, failover: &str| {
        let setting = format!("{{failoverPriority: [{keys}], failover: [{failover}]}}");
        spread(
            "",
            &[&rule(&format!("{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {setting}}}}}"))],
        )
    };
    let all = by("'tier=gold', topology.kubernetes.io/region", "");
    let want = [
        group(0, 1, &["10.0.1.1"]),
        group(1, 1, &["10.0.1.3"]),
        group(1, 1, &["10.0.2.1"]),
        group(1, 1, &["10.0.3.1"]),
        group(1, 3, &["10.0.1.2"]),
    ];
    assert_eq!(all, want);
    let all = by("'tier=gold'", "{from: r1, to: r3}");
    let want = [
        group(0, 1, &["10.0.1.1"]),
        group(1, 3, &["10.0.1.2"]),
        group(2, 1, &["10.0.1.3"]),
        group(3, 1, &["10.0.3.1"]),
        group(4, 1, &["10.0.2.1"]),
    ];
    assert_eq!(all, want);
}

#[test]
fn shares_are_divided_by_weight_within_a_place_and_others_get_nothing() {
    let text = "{loadBalancer: {localityLbSetting: {distribute: [
      {from: r9, to: {r9: 100}},
      {from: 'r1/*', to: {'r1/z1/*': 80, 'r2': 20}}]}}}";
    let all = spread("", &[&rule(text)]);
    let want = [
        (0, Some(1), vec![]),
        (0, Some(1), vec![]),
        group(0, 20, &["10.0.1.1"]),
        group(0, 20, &["10.0.2.1"]),
        group(0, 60, &["10.0.1.2"]),
    ];
    assert_eq!(all, want);
    let elsewhere = rule("{loadBalancer: {localityLbSetting: {distribute: [{from: r9, to: {r9: 100}}]}}}");
    assert_eq!(spread("", &[&elsewhere]), spread("", &[]));
}

#[test]
fn zones_of_the_own_region_share_a_priority_where_envoy_weighs_them() {
    let of = |setting: &str| {
        let all = spread("", &[&rule(&format!("{{loadBalancer: {{zoneAwareLbSetting: {setting}}}}}"))]);
        all.into_iter().map(|(priority, _, addresses)| (priority, addresses[0].clone())).collect::<Vec<_>>()
    };
    let pair = |priority, text: &str| (priority, text.to_owned());
    let near = [pair(0, "10.0.1.1"), pair(0, "10.0.1.3"), pair(0, "10.0.1.2")];
    let far = [pair(1, "10.0.2.1"), pair(1, "10.0.3.1")];
    assert_eq!(of("{enabled: true}"), [&near[..], &far[..]].concat());
    let far = [pair(1, "10.0.3.1"), pair(2, "10.0.2.1")];
    assert_eq!(of("{failover: [{from: r1, to: r3}]}"), [&near[..], &far[..]].concat());
    assert!(of("{enabled: false}").iter().all(|(priority, _)| *priority == 0));
}

const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {nodeName: n1}
status: {podIP: 10.2.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: web}}
spec: {nodeName: n2}
status: {podIP: 10.2.0.2}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.2.0.1], targetRef: {kind: Pod, name: a, namespace: shop}}
- {addresses: [10.2.0.2], targetRef: {kind: Pod, name: b, namespace: shop}}
- {addresses: [10.2.0.3], targetRef: {kind: Pod, name: gone, namespace: shop}}
- {addresses: [10.2.0.4], conditions: {ready: false, terminating: false}}
- {addresses: [10.2.0.5], conditions: {ready: false, terminating: true}}
ports: [{name: http, port: 8080}]
";

fn web(extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{clusterIP: 10.0.0.1, selector: {{app: web}}, ports: [{{name: http, port: 80}}]{extra}}}\n"
    )
}

fn of_web(settings: &Settings, texts: &[&str], metadata: &[(&str, &str)]) -> Vec<LocalityLbEndpoints> {
    let mut all = vec![NODES];
    all.extend(texts);
    let snapshot = snapshot(&all, settings);
    assigned(&snapshot, &proxy(metadata), "outbound|80||web.shop.svc.cluster.local")
}

#[test]
fn what_is_not_ready_is_sent_as_such_and_what_ends_is_not() {
    let health = |groups: &[LocalityLbEndpoints]| {
        let all = groups.iter().flat_map(|group| &group.lb_endpoints);
        let mut all: Vec<_> = all.map(|endpoint| (address(endpoint), endpoint.health_status())).collect();
        all.sort();
        all
    };
    let own = |ip: &str| (ip.to_owned(), HealthStatus::Healthy);
    let ready = [own("10.2.0.1"), own("10.2.0.2")];
    let unready = ("10.2.0.4".to_owned(), HealthStatus::Unhealthy);
    let mut settings = settings("");
    let all = health(&of_web(&settings, &[&web("")], &[]));
    assert_eq!(all, [&ready[..], std::slice::from_ref(&unready)].concat());
    let panics = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\n\
                  spec: {host: web, trafficPolicy: {outlierDetection: {minHealthPercent: 10}}}\n";
    assert_eq!(health(&of_web(&settings, &[&web(""), panics], &[])), ready);
    settings.features.send_unhealthy_endpoints = true;
    assert_eq!(health(&of_web(&settings, &[&web(""), panics], &[])).len(), 3);
    settings.features.send_unhealthy_endpoints = false;
    settings.features.auto_send_unhealthy_endpoints = false;
    assert_eq!(health(&of_web(&settings, &[&web("")], &[])), ready);
    let near = web(", trafficDistribution: PreferClose");
    assert_eq!(health(&of_web(&settings, &[&near], &[])).len(), 3);
}

#[test]
fn a_node_local_service_has_the_endpoints_of_the_own_node() {
    let local = web(", internalTrafficPolicy: Local");
    let at = |node: &str| {
        let groups = of_web(&settings(""), &[&local], &[("NODE_NAME", node)]);
        brief(&groups).into_iter().flat_map(|(.., addresses)| addresses).collect::<Vec<_>>()
    };
    assert_eq!(at("n2"), ["10.2.0.2"]);
    assert!(at("n3").is_empty());
}

#[test]
fn a_service_prefers_the_own_node_or_zone_without_outlier_detection() {
    let rank = |extra: &str, node: &str| {
        let groups = of_web(&settings(""), &[&web(extra)], &[("NODE_NAME", node)]);
        let mut all: Vec<_> = groups
            .iter()
            .flat_map(|group| group.lb_endpoints.iter().map(|endpoint| (address(endpoint), group.priority)))
            .collect();
        all.sort();
        all.into_iter().map(|(_, priority)| priority).collect::<Vec<_>>()
    };
    assert_eq!(rank(", trafficDistribution: PreferClose", "n1"), [0, 1, 1]);
    assert_eq!(rank(", trafficDistribution: PreferSameNode", "n2"), [0, 1, 1]);
    assert_eq!(rank("", "n1"), [0, 0, 0]);
}

#[test]
fn endpoints_of_other_networks_are_reached_by_their_gateways() {
    let mut settings = settings("");
    settings.networks = Arc::new(
        mesh::MeshNetworks::from_yaml(
            "networks: {n1: {endpoints: [{fromCidr: 10.2.0.2/32}]},
              n2: {endpoints: [{fromCidr: 10.2.0.0/16}], gateways: [{address: 198.51.100.1, port: 15443},
                {address: 198.51.100.2, port: 15443}, {address: '2001:db8::1', port: 15443}]}}",
        )
        .unwrap(),
    );
    let addresses = |network: &str| {
        let groups = of_web(&settings, &[&web("")], &[("NETWORK", network)]);
        let mut all: Vec<_> = groups.iter().flat_map(|group| &group.lb_endpoints).collect();
        all.sort_by_key(|endpoint| address(endpoint));
        all.into_iter()
            .map(|endpoint| (address(endpoint), endpoint.load_balancing_weight.unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let pair = |text: &str, weight| (text.to_owned(), weight);
    // Only the one with a sidecar can be reached; its weight of 3 is shared by two.
    let want = [pair("10.2.0.2", 3), pair("198.51.100.1", 1), pair("198.51.100.2", 1)];
    assert_eq!(addresses("n1"), want);
    // An endpoint of a network without gateways is reached directly.
    assert_eq!(addresses("n2"), [pair("10.2.0.1", 3), pair("10.2.0.2", 3), pair("10.2.0.4", 3)]);
    // A proxy of an unknown network goes through the gateways, too.
    assert_eq!(addresses(""), want);
}

#[test]
fn clusters_by_server_name_have_servers_with_mutual_tls_only() {
    let snapshot = snapshot(&[NODES, &web("")], &settings(""));
    let groups = assigned(&snapshot, &proxy(&[]), "outbound_.80_._.web.shop.svc.cluster.local");
    let all: Vec<String> = groups.iter().flat_map(|group| &group.lb_endpoints).map(address).collect();
    assert_eq!(all, ["10.2.0.1"]);
}

#[test]
fn the_own_cluster_has_workloads_of_the_same_name_roll_out_and_region() {
    const KIN: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: kin, namespace: default}
spec:
  hosts: [kin.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: kin}}
";
    let entry = |last: u8, workload: &str, locality: &str, more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: kin-{last}, namespace: default, labels: {{service.istio.io/workload-name: {workload}}}}}\n\
             spec: {{address: 10.1.1.{last}, locality: {locality}, labels: {{app: kin{more}}}}}\n"
        )
    };
    let texts = [
        KIN.to_owned(),
        entry(1, "b", "r1/z1", ""),
        entry(2, "b", "r1/z2", ""),
        entry(3, "c", "r1/z2", ""),
        entry(4, "b", "r2/z1", ""),
        entry(5, "b", "r1/z1", ", pod-template-hash: next"),
        // Calls to the service are shared out otherwise; that is not of interest here.
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: kin, namespace: default}\n\
         spec: {host: kin.example, trafficPolicy: {outlierDetection: {interval: 1s}}}\n"
            .to_owned(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let snapshot = snapshot(&texts, &settings(""));
    let own = assigned(&snapshot, &proxy(&[("WORKLOAD_NAME", "b")]), own::CLUSTER);
    assert_eq!(brief(&own), [group(0, 1, &["10.1.1.1"]), group(0, 1, &["10.1.1.2"])]);
    // Without a service there is nobody to know.
    let alone = self::snapshot(&texts[1..], &settings(""));
    assert!(assigned(&alone, &proxy(&[("WORKLOAD_NAME", "b")]), own::CLUSTER).is_empty());
}

#[test]
fn a_cluster_that_does_not_exist_has_an_empty_assignment() {
    let snapshot = snapshot(&[NODES, &web("")], &settings(""));
    for name in [
        "outbound|81||web.shop.svc.cluster.local",
        "outbound|80|v1|web.shop.svc.cluster.local",
        "x",
        "outbound_.80",
    ] {
        assert!(assigned(&snapshot, &proxy(&[]), name).is_empty(), "{name}");
    }
}

#[test]
fn a_rule_that_sets_tls_decides_on_the_mark() {
    let marked = |policy: &str| {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{host: web, trafficPolicy: {policy}}}\n"
        );
        let groups = of_web(&settings(""), &[&web(""), &rule], &[]);
        let all = groups.iter().flat_map(|group| &group.lb_endpoints);
        all.filter(|endpoint| {
            let metadata = endpoint.metadata.as_ref().unwrap();
            metadata.filter_metadata.contains_key("envoy.transport_socket_match")
        })
        .map(address)
        .collect::<Vec<_>>()
    };
    assert_eq!(marked("{connectionPool: {tcp: {maxConnections: 5}}}"), ["10.2.0.1"]);
    assert_eq!(marked("{tls: {mode: ISTIO_MUTUAL}}"), ["10.2.0.1"]);
    assert!(marked("{tls: {mode: DISABLE}}").is_empty());
    assert_eq!(
        marked(
            "{tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]}"
        ),
        ["10.2.0.1"]
    );
}

/// Ports of every kind, two workloads behind them.
const PORTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: ports, namespace: shop}
spec:
  clusterIP: 10.0.0.2
  ports: [{name: tcp, port: 1}, {name: tls, port: 2}, {name: https, port: 3}, {name: data, port: 4},
    {name: http, port: 5}, {name: grpc, port: 6}, {name: redis, port: 7}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ports, namespace: shop, labels: {kubernetes.io/service-name: ports}}
addressType: IPv4
endpoints: [{addresses: [10.2.0.1], targetRef: {kind: Pod, name: a, namespace: shop}}, {addresses: [10.2.0.9]}]
ports: [{name: tcp, port: 81}, {name: tls, port: 82}, {name: https, port: 83}, {name: data, port: 84},
  {name: http, port: 85}, {name: grpc, port: 86}, {name: redis, port: 87}]
";

/// Of each endpoint of a cluster, its host name and what its metadata says of the workload.
fn told(snapshot: &Snapshot, proxy: &Proxy, cluster: &str) -> Vec<(String, String)> {
    let groups = assigned(snapshot, proxy, cluster);
    let mut all: Vec<_> = groups
        .iter()
        .flat_map(|group| &group.lb_endpoints)
        .map(|endpoint| {
            let Some(lb_endpoint::HostIdentifier::Endpoint(one)) = &endpoint.host_identifier else {
                panic!()
            };
            let metadata = &endpoint.metadata.as_ref().unwrap().filter_metadata["istio"];
            let Some(Value::StringValue(workload)) = &metadata.fields["workload"].kind else { panic!() };
            (one.hostname.clone(), workload.clone())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn endpoints_of_connections_have_names_for_proxies_with_the_module() {
    let snapshot = snapshot(&[NODES, PORTS, &web("")], &settings(""));
    let (with, without) = (proxy(&[("TELEMETRY_MODULE", "1")]), proxy(&[]));
    let plain = [";;;;Kubernetes", "a;shop;web;;Kubernetes"];
    // With the labels `app` and `version`, where there are any.
    let full = [";;;;Kubernetes;;", "a;shop;web;;Kubernetes;web;"];
    for (port, has_names) in [(1, true), (2, true), (3, true), (4, true), (5, false), (6, false), (7, true)] {
        let cluster = format!("outbound|{port}||ports.shop.svc.cluster.local");
        for (proxy, workloads, has_names) in [(&with, full, has_names), (&without, plain, false)] {
            let wanted = workloads
                .map(|text| (if has_names { text.to_owned() } else { String::new() }, text.to_owned()));
            assert_eq!(told(&snapshot, proxy, &cluster), wanted, "{cluster}");
        }
    }
    // What passes on TLS by its server name sees no requests, whatever is inside.
    let by_server_name = told(&snapshot, &with, "outbound_.80_._.web.shop.svc.cluster.local");
    assert_eq!(by_server_name, [(full[1].to_owned(), full[1].to_owned())]);
    assert!(told(&snapshot, &without, "outbound_.80_._.web.shop.svc.cluster.local")[0].0.is_empty());
}

#[test]
fn a_gateway_of_another_network_is_named_by_its_cluster() {
    let mut settings = settings("");
    settings.networks = Arc::new(
        mesh::MeshNetworks::from_yaml(
            "networks: {n2: {endpoints: [{fromCidr: 10.2.0.0/16}], gateways: [{address: 198.51.100.1, port: 15443}]}}",
        )
        .unwrap(),
    );
    let snapshot = snapshot(&[NODES, PORTS], &settings);
    let proxy = proxy(&[("TELEMETRY_MODULE", "1"), ("NETWORK", "n1")]);
    let seen = told(&snapshot, &proxy, "outbound|1||ports.shop.svc.cluster.local");
    assert!(seen.iter().all(|(name, workload)| name == workload && name.starts_with(";;;;")), "{seen:?}");
    assert!(!seen.is_empty());
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let service = scope.service(&names::Hostname::new("ports.shop.svc.cluster.local")).unwrap();
    assert_eq!(peers(scope, service), None, "it does not tell who is behind it");
}

#[test]
fn names_that_envoy_resolves_stay() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: db, namespace: shop}\n\
                 spec: {hosts: [db.example], resolution: DNS, ports: [{number: 9, name: tcp, protocol: TCP}]}\n";
    let snapshot = snapshot(&[entry], &settings(""));
    let proxy = proxy(&[("TELEMETRY_MODULE", "1")]);
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let service = scope.service(&names::Hostname::new("db.example")).unwrap();
    let wanted =
        Wanted { service, port: &service.ports[0], rule: None, subset: None, is_by_server_name: false };
    let listed = listed(scope, "outbound|9||db.example", &wanted);
    let endpoints: Vec<_> = listed.endpoints.iter().flat_map(|group| &group.lb_endpoints).collect();
    assert_eq!(endpoints.len(), 1);
    for endpoint in endpoints {
        let Some(lb_endpoint::HostIdentifier::Endpoint(one)) = &endpoint.host_identifier else { panic!() };
        assert_eq!((one.hostname.as_str(), address(endpoint).as_str()), ("", "db.example"));
    }
}
