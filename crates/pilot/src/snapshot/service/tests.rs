use std::sync::Arc;

use config::{Store, yaml};
use proto::envoy::config::core::v3::Node;

use super::*;
use crate::proxy::Proxy;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::snapshot::endpoint::Health;

fn snapshot(text: &str) -> Snapshot {
    let contents = yaml::read("mesh.yaml", text);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"))
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: {name}, namespace: shop, labels: {{app: x}}}}\nspec: {spec}\n---\n"
    )
}

fn service<'a>(snapshot: &'a Snapshot, host: &str) -> &'a Arc<Service> {
    snapshot.service(&Hostname::new(host)).unwrap()
}

/// Address, port and weight of the endpoints of a port.
fn endpoints(service: &Service, port: &str) -> Vec<(String, u16, u32)> {
    let list = service.endpoints.of_port(port);
    list.iter().map(|endpoint| (endpoint.address.to_string(), endpoint.port, endpoint.weight)).collect()
}

fn at(address: &str, port: u16, weight: u32) -> (String, u16, u32) {
    (address.to_owned(), port, weight)
}

#[test]
fn every_host_of_an_entry_is_a_service() {
    let snapshot = snapshot(&entry(
        "e",
        "{hosts: [a.example.com, '*.b.example.com'], addresses: [10.0.0.1/32, 10.1.0.0/16, 10.0.0.1],
          ports: [{number: 80, name: http, protocol: http, targetPort: 8080}], subjectAltNames: [x], exportTo: [.]}",
    ));
    assert_eq!(snapshot.services.len(), 2);
    let a = service(&snapshot, "a.example.com");
    assert_eq!(
        (a.registry, a.resolution, a.is_external),
        (Registry::External, Resolution::Passthrough, true)
    );
    assert_eq!(a.addresses, ["10.0.0.1", "10.1.0.0/16"]);
    assert_eq!((a.ports[0].protocol, &a.ports[0].target), (Protocol::Http, &TargetPort::Number(8080)));
    assert_eq!((a.name.as_str(), a.object_name.as_str()), ("a.example.com", "e"));
    assert!(a.visibility.includes("shop") && !a.visibility.includes("other"));
    assert!(!a.is_headless && a.endpoints.is_empty());
}

#[test]
fn ports_of_an_endpoint_come_from_itself_then_the_target_then_the_service() {
    let snapshot = snapshot(&entry(
        "e",
        "{hosts: [a.example.com], resolution: STATIC,
          ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 90, name: tcp, protocol: TCP}],
          endpoints: [{address: 10.0.0.1, ports: {http: 1}, weight: 7}, {address: 10.0.0.2}]}",
    ));
    let a = service(&snapshot, "a.example.com");
    assert_eq!(endpoints(a, "http"), [at("10.0.0.1", 1, 7), at("10.0.0.2", 8080, 1)]);
    assert_eq!(endpoints(a, "tcp"), [at("10.0.0.1", 90, 7), at("10.0.0.2", 90, 1)]);
    let first = &a.endpoints.of_port("http")[0];
    assert_eq!(first.workload, "e-0;shop;e-0;;Kubernetes");
    assert_eq!((first.health, first.service_port), (Health::Unknown, 80));
}

#[test]
fn a_socket_has_no_port() {
    let snapshot = snapshot(&entry(
        "e",
        "{hosts: [a.example.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}],
          endpoints: [{address: 'unix:///run/socket'}]}",
    ));
    assert_eq!(endpoints(service(&snapshot, "a.example.com"), "http"), [at("/run/socket", 0, 1)]);
}

#[test]
fn a_host_without_endpoints_is_its_own() {
    let snapshot = snapshot(&entry(
        "e",
        "{hosts: [a.example.com, b.example.com], resolution: DNS,
          ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]}",
    ));
    assert_eq!(endpoints(service(&snapshot, "a.example.com"), "http"), [at("a.example.com", 8080, 1)]);
    let b = service(&snapshot, "b.example.com");
    assert_eq!(endpoints(b, "http"), [at("b.example.com", 8080, 1)]);
    assert_eq!(b.endpoints.of_port("http")[0].workload, "e;shop;e;;Kubernetes");
    assert_eq!(b.listed_endpoints_of(&b.ports[0]).count(), 1);
}

#[test]
fn one_at_a_time_is_one_endpoint_whoever_declares_it() {
    let spec = "{hosts: [a.example.com], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http, protocol: HTTP}]}";
    let snapshot = snapshot(&format!("{}{}", entry("e", spec), entry("f", spec)));
    assert_eq!(snapshot.services.len(), 2);
    assert_eq!(service(&snapshot, "a.example.com").endpoints.len(), 1);
}

#[test]
fn entries_of_one_host_share_their_endpoints_and_keep_their_addresses() {
    let spec = |ip: &str, vip: &str| {
        format!(
            "{{hosts: [a.example.com], resolution: STATIC, addresses: [{vip}], endpoints: [{{address: {ip}}}], \
              ports: [{{number: 80, name: http, protocol: HTTP}}]}}"
        )
    };
    let snapshot = snapshot(&format!(
        "{}{}",
        entry("e", &spec("10.0.0.1", "240.0.0.1")),
        entry("f", &spec("10.0.0.2", "240.0.0.2"))
    ));
    let [first, second] = snapshot.services.as_slice() else { panic!() };
    assert!(Arc::ptr_eq(&first.endpoints, &second.endpoints));
    assert_eq!(endpoints(first, "http"), [at("10.0.0.1", 80, 1), at("10.0.0.2", 80, 1)]);
    assert_eq!((first.addresses.len(), second.addresses[0].as_str()), (1, "240.0.0.2"));
}

const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop, labels: {tier: gold}}
spec: {address: 10.3.0.1, labels: {app: web, tier: tin}, ports: {http: 8081}, weight: 5, serviceAccount: vm, locality: r1/z1}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: named, namespace: shop}
spec: {address: vm.example.com, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: shop, labels: {app: web, security.istio.io/tlsMode: istio}}
spec: {containers: [{name: a, ports: [{name: http, containerPort: 8082}]}]}
status: {podIP: 10.3.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: starting, namespace: shop, labels: {app: web}}
status: {podIP: 10.3.0.3, conditions: [{type: Ready, status: 'False'}]}
---
";

#[test]
fn a_selector_picks_ready_pods_and_workloads() {
    let spec = |resolution: &str| {
        format!(
            "{{hosts: [a.example.com], resolution: {resolution}, workloadSelector: {{labels: {{app: web}}}}, \
              ports: [{{number: 80, name: http, protocol: HTTP}}]}}"
        )
    };
    let made = snapshot(&format!("{WORKLOADS}{}", entry("e", &spec("STATIC"))));
    let a = service(&made, "a.example.com");
    assert_eq!(endpoints(a, "http"), [at("10.3.0.2", 8082, 1), at("10.3.0.1", 8081, 5)]);
    let [pod, vm] = a.endpoints.of_port("http") else { panic!() };
    assert_eq!((pod.health, pod.accepts_mtls), (Health::Healthy, true));
    // A service account without a label is a sidecar.
    assert_eq!((vm.health, vm.accepts_mtls), (Health::Unknown, true));
    assert_eq!(vm.labels["tier"], "gold");
    assert_eq!(vm.labels["topology.kubernetes.io/zone"], "z1");
    assert_eq!(vm.identity("td").as_deref(), Some("spiffe://td/ns/shop/sa/vm"));
    // Host names are for Envoy to resolve.
    let made = snapshot(&format!("{WORKLOADS}{}", entry("e", &spec("DNS"))));
    assert_eq!(service(&made, "a.example.com").endpoints.len(), 3);
}

#[test]
fn a_kubernetes_service_picks_workloads_with_an_address() {
    let snapshot = snapshot(&format!(
        "{WORKLOADS}
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{clusterIP: 10.0.0.1, selector: {{app: web}}, ports: [
  {{name: http, port: 80, targetPort: 8080}}, {{name: tcp, port: 90, targetPort: http}}, {{name: nope, port: 91, targetPort: other}}]}}
"
    ));
    let web = service(&snapshot, "web.shop.svc.cluster.local");
    assert_eq!(endpoints(web, "http"), [at("10.3.0.1", 8081, 5)]);
    assert_eq!(endpoints(web, "tcp"), [at("10.3.0.1", 8081, 5)]);
    assert!(endpoints(web, "nope").is_empty());
}

#[test]
fn a_service_without_slices_has_its_endpoints_object() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets: [{addresses: [{ip: 10.4.0.1}], notReadyAddresses: [{ip: 10.4.0.2}], ports: [{name: http, port: 8080}]}]
";
    let slice = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.4.0.9]}]
ports: [{name: http, port: 8080}]
";
    let made = snapshot(text);
    let list = service(&made, "web.shop.svc.cluster.local").endpoints.of_port("http").to_vec();
    let health: Vec<_> = list.iter().map(|endpoint| endpoint.health).collect();
    assert_eq!(health, [Health::Healthy, Health::Unhealthy]);
    let made = snapshot(&format!("{text}{slice}"));
    assert_eq!(endpoints(service(&made, "web.shop.svc.cluster.local"), "http"), [at("10.4.0.9", 8080, 1)]);
}

#[test]
fn names_of_names_stand_for_the_service_and_rings_for_none() {
    let alias = |name: &str, target: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{type: ExternalName, externalName: {target}}}\n---\n"
        )
    };
    let snapshot = snapshot(&format!(
        "{}{}{}{}{}",
        entry(
            "e",
            "{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}"
        ),
        alias("one", "a.example.com"),
        alias("two", "one.shop.svc.cluster.local"),
        alias("ring", "round.shop.svc.cluster.local"),
        alias("round", "ring.shop.svc.cluster.local"),
    ));
    let aliases: Vec<_> =
        service(&snapshot, "a.example.com").aliases.iter().map(|alias| alias.as_str().to_owned()).collect();
    assert_eq!(aliases, ["one.shop.svc.cluster.local", "two.shop.svc.cluster.local"]);
    assert_eq!(snapshot.services.len(), 1);
}

#[test]
fn hosts_without_address_get_one_where_it_can_be_used() {
    let http = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let made = snapshot(&format!(
        "{}{}{}{}",
        entry("dns", &format!("{{hosts: [dns.example.com, more.example.com], {http}, resolution: DNS}}")),
        entry("none", &format!("{{hosts: [none.example.com], {http}}}")),
        entry(
            "vip",
            &format!("{{hosts: [vip.example.com], {http}, addresses: [10.0.0.1], resolution: DNS}}")
        ),
        entry("any", &format!("{{hosts: ['*.any.example.com'], {http}, resolution: DYNAMIC_DNS}}")),
    ));
    let of = |host: &str| service(&made, host).auto_addresses;
    let dns = of("dns.example.com");
    assert!(dns.v4.unwrap().to_string().starts_with("240.240."), "{dns:?}");
    assert!(dns.v6.unwrap().to_string().starts_with("2001:2::"), "{dns:?}");
    assert_ne!(dns, of("more.example.com"));
    assert!(of("*.any.example.com").v4.is_some());
    assert_eq!(of("none.example.com"), AutoAddresses::default());
    assert_eq!(of("vip.example.com"), AutoAddresses::default());

    let proxy = |capture: &str| {
        let value =
            prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(capture.to_owned())) };
        let metadata = prost_types::Struct { fields: [("DNS_CAPTURE".to_owned(), value)].into() };
        let id = "sidecar~10.1.1.1~b.default~default.svc.cluster.local".into();
        Proxy::from_node(&Node { id, metadata: Some(metadata), ..Node::default() }).unwrap()
    };
    let service = service(&made, "dns.example.com");
    assert_eq!(service.addresses_for(&proxy("true")), [dns.v4.unwrap().to_string()]);
    assert!(service.addresses_for(&proxy("false")).is_empty());
}

#[test]
fn a_controllers_addresses_stay_and_are_not_given_twice() {
    let text = entry(
        "e",
        "{hosts: [a.example.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}",
    );
    let free = service(&snapshot(&text), "a.example.com").auto_addresses;
    let other = text.replace("name: e", "name: f").replace("a.example.com", "b.example.com").replace(
        "\n---\n",
        &format!("\nstatus: {{addresses: [{{host: b.example.com, value: {}}}]}}\n---\n", free.v4.unwrap()),
    );
    let made = snapshot(&format!("{text}{other}"));
    assert_eq!(service(&made, "b.example.com").auto_addresses, AutoAddresses { v4: free.v4, v6: None });
    assert_ne!(service(&made, "a.example.com").auto_addresses.v4, free.v4);
}

#[test]
fn a_preference_is_the_fields_then_the_annotations_then_the_namespaces() {
    let service_with = |annotations: &str, field: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]{field}}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{networking.istio.io/traffic-distribution: PreferSameNode}}}}\n"
        )
    };
    let of = |annotations: &str, field: &str| {
        let made = snapshot(&service_with(annotations, field));
        service(&made, "web.shop.svc.cluster.local").traffic_distribution
    };
    let close = "networking.istio.io/traffic-distribution: preferclose";
    assert_eq!(of(close, ", trafficDistribution: PreferSameNode"), TrafficDistribution::SameNode);
    assert_eq!(of(close, ""), TrafficDistribution::SameZone);
    assert_eq!(of("", ""), TrafficDistribution::SameNode);
    assert_eq!(of("networking.istio.io/traffic-distribution: any", ""), TrafficDistribution::Any);
}

#[test]
fn an_endpoint_that_changes_leaves_all_other_services_as_they_are() {
    use std::collections::BTreeSet;

    use config::Kind;

    let text = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {{name: b, namespace: shop}}\n\
             spec: {{clusterIP: 10.0.0.2, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: a, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\nports: [{{name: http, port: 8080}}]\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: b, namespace: shop, labels: {{kubernetes.io/service-name: b}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [10.5.0.2]}}]\nports: [{{name: http, port: 8080}}]\n---\n{}",
            entry(
                "e",
                "{hosts: [a.shop.svc.cluster.local], resolution: STATIC, endpoints: [{address: 10.5.0.9}], \
                  ports: [{number: 80, name: http, protocol: HTTP}]}"
            )
        )
    };
    let mut store = Store::default();
    let apply = |store: &mut Store, address: &str| {
        for object in yaml::read("mesh.yaml", &text(address)).objects {
            store.apply(Arc::new(object));
        }
    };
    apply(&mut store, "10.5.0.1");
    let settings = Settings::new(Arc::default(), "Kubernetes");
    let first = Snapshot::build(&store, &settings);
    apply(&mut store, "10.5.0.3");
    let kinds = BTreeSet::from([Kind::EndpointSlice]);
    let next = first.next(&store, &kinds);
    let a = service(&next, "a.shop.svc.cluster.local");
    assert_eq!(endpoints(a, "http"), [at("10.5.0.3", 8080, 1), at("10.5.0.9", 80, 1)]);
    let b = "b.shop.svc.cluster.local";
    assert!(Arc::ptr_eq(service(&first, b), service(&next, b)));
    assert_eq!(Snapshot::build(&store, &settings).services, next.services);
    // Both services of the name have the same set.
    let named = next.directory.named(&Hostname::new("a.shop.svc.cluster.local"));
    assert!(named.len() == 2 && Arc::ptr_eq(&named[0].endpoints, &named[1].endpoints));
}
