use std::collections::BTreeSet;
use std::fmt::Write as _;

use names::Hostname;
use proto::envoy::config::core::v3::Node;

use super::{Scope, View};
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;

fn snapshot(objects: &str) -> Snapshot {
    crate::testing::snapshot(objects)
}

fn proxy(kind: &str, namespace: &str) -> Proxy {
    let id = format!("{kind}~10.1.1.1~pod.{namespace}~{namespace}.svc.cluster.local");
    let mut proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    proxy.labels = [("app".to_owned(), "client".to_owned())].into();
    proxy
}

/// Services of several namespaces: `NAMESPACE/NAME PORT...`.
fn services(list: &[(&str, &str, &[u16])]) -> String {
    let mut text = String::new();
    for (namespace, name, ports) in list {
        let ports: Vec<String> =
            ports.iter().map(|port| format!("{{name: http-{port}, port: {port}}}")).collect();
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{}]}}",
            ports.join(", ")
        )
        .unwrap();
    }
    text
}

fn sidecar(namespace: &str, name: &str, created: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '{created}'}}\nspec: {spec}\n"
    )
}

fn usual() -> String {
    services(&[
        ("app", "web", &[80]),
        ("app", "db", &[80, 81]),
        ("other", "web", &[80]),
        ("monitoring", "prometheus", &[9090]),
    ])
}

const NEW: &str = "2024-06-02T00:00:00Z";
const OLD: &str = "2024-06-01T00:00:00Z";

/// Names of services that a proxy of a namespace sees: `NAME.NAMESPACE:PORT`.
fn seen(objects: &str, namespace: &str) -> BTreeSet<String> {
    let snapshot = snapshot(objects);
    let proxy = proxy("sidecar", namespace);
    let view = View::new(&snapshot, &proxy);
    list(Scope::new(&snapshot, &proxy, &view))
}

fn list(scope: Scope<'_>) -> BTreeSet<String> {
    let ports = scope.services().flat_map(|service| {
        let name = service.host.as_str().trim_end_matches(".svc.cluster.local");
        service.ports.iter().map(move |port| format!("{name}:{}", port.number))
    });
    ports.collect()
}

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|&item| item.to_owned()).collect()
}

#[test]
fn without_a_sidecar_all_exported_services_are_seen() {
    let all = set(&["web.app:80", "db.app:80", "db.app:81", "web.other:80", "prometheus.monitoring:9090"]);
    assert_eq!(seen(&usual(), "app"), all);
}

#[test]
fn egress_hosts_say_what_is_seen() {
    for (hosts, want) in [
        ("['./*']", &["web.app:80", "db.app:80", "db.app:81"][..]),
        ("['./web.app.svc.cluster.local']", &["web.app:80"]),
        ("['*/web.other.svc.cluster.local']", &["web.other:80"]),
        ("['other/*', './web.app.svc.cluster.local']", &["web.app:80", "web.other:80"]),
        ("['*/*.monitoring.svc.cluster.local']", &["prometheus.monitoring:9090"]),
        ("['other/web.app.svc.cluster.local']", &[]),
        ("['~/*']", &[]),
        ("['*/*', '~app/*', '~/*.monitoring.svc.cluster.local']", &["web.other:80"]),
        // Short names, each the service of its namespace.
        ("['monitoring/prometheus']", &["prometheus.monitoring:9090"]),
        ("['./web']", &["web.app:80"]),
        ("['other/prometheus']", &[]),
    ] {
        let objects = usual() + &sidecar("app", "a", OLD, &format!("{{egress: [{{hosts: {hosts}}}]}}"));
        assert_eq!(seen(&objects, "app"), set(want), "{hosts}");
    }
}

#[test]
fn the_most_particular_sidecar_holds_and_of_equals_the_oldest() {
    let egress = |host: &str| format!("{{egress: [{{hosts: ['{host}']}}]}}");
    let selecting = |host: &str, app: &str| {
        format!("{{workloadSelector: {{labels: {{app: {app}}}}}, egress: [{{hosts: ['{host}']}}]}}")
    };
    let root = sidecar("istio-system", "root", OLD, &egress("./*"));
    let mut objects = usual() + &root;
    // `.` of the root namespace's is the proxy's own namespace.
    assert_eq!(seen(&objects, "other"), set(&["web.other:80"]));
    objects += &sidecar("app", "b", NEW, &egress("monitoring/*"));
    objects += &sidecar("app", "c", OLD, &egress("other/*"));
    assert_eq!(seen(&objects, "app"), set(&["web.other:80"]));
    objects += &sidecar("app", "d", OLD, &selecting("monitoring/*", "somebody"));
    assert_eq!(seen(&objects, "app"), set(&["web.other:80"]));
    objects += &sidecar("app", "e", NEW, &selecting("monitoring/*", "client"));
    objects += &sidecar("app", "f", OLD, &selecting("./web.app.svc.cluster.local", "client"));
    assert_eq!(seen(&objects, "app"), set(&["web.app:80"]));
}

#[test]
fn gateways_do_not_follow_sidecars() {
    let snapshot = snapshot(
        &(usual()
            + &sidecar(
                "app",
                "a",
                OLD,
                "{egress: [{hosts: ['~/*']}], ingress: [{port: {number: 80, protocol: HTTP}}]}",
            )),
    );
    let gateway = proxy("router", "app");
    let view = View::new(&snapshot, &gateway);
    let scope = Scope::new(&snapshot, &gateway, &view);
    assert_eq!(list(scope).len(), 5);
    assert!(scope.sidecar().is_none() && scope.ingress().is_empty());
}

#[test]
fn a_listener_with_a_port_has_that_port_only() {
    let spec = "{egress: [{port: {number: 80, protocol: HTTP}, hosts: ['./db.app.svc.cluster.local']}, {hosts: ['other/*']}]}";
    let objects = usual() + &sidecar("app", "a", OLD, spec);
    assert_eq!(seen(&objects, "app"), set(&["db.app:80", "web.other:80"]));
    let snapshot = snapshot(&objects);
    let view = View::new(&snapshot, &proxy("sidecar", "app"));
    assert_eq!(view.egress[0].number(), Some(80));
    assert_eq!(view.egress[0].services[0].ports.len(), 1);
    assert_eq!(view.egress[1].number(), None);
    // A proxy of requests takes all.
    let spec = "{egress: [{port: {number: 8080, protocol: HTTP_PROXY}, hosts: ['./*']}]}";
    let objects = usual() + &sidecar("app", "a", OLD, spec);
    assert_eq!(seen(&objects, "app"), set(&["web.app:80", "db.app:80", "db.app:81"]));
}

#[test]
fn virtual_services_bring_their_destinations() {
    let route = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: app}
spec:
  hosts: [web]
  http:
  - match: [{sourceNamespace: other}]
    route: [{destination: {host: web.other.svc.cluster.local}}]
  - mirrors: [{destination: {host: prometheus.monitoring.svc.cluster.local}}]
    route: [{destination: {host: db, port: {number: 81}}}]
";
    let sidecar = sidecar("app", "a", OLD, "{egress: [{hosts: ['./web.app.svc.cluster.local']}]}");
    let objects = usual() + route + &sidecar;
    assert_eq!(seen(&objects, "app"), set(&["web.app:80", "db.app:81", "prometheus.monitoring:9090"]));
    let snapshot = snapshot(&objects);
    let view = View::new(&snapshot, &proxy("sidecar", "app"));
    let web = Hostname::new("web.app.svc.cluster.local");
    assert!(view.egress[0].virtual_service(&web).is_some());
    assert!(view.egress[0].virtual_service(&Hostname::new("db.app.svc.cluster.local")).is_none());
    assert_eq!(view.egress[0].matching(&web).count(), 1);
}

#[test]
fn virtual_services_are_imported_when_a_host_of_theirs_may_be_meant() {
    let route = |host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a, namespace: app}}\nspec: {{hosts: ['{host}'], http: [{{route: [{{destination: {{host: web}}}}]}}]}}\n"
        )
    };
    for (hosts, host, is_imported) in [
        ("['./*.example.com']", "a.example.com", true),
        ("['./a.example.com']", "*.example.com", true),
        ("['other/*']", "a.example.com", false),
        ("['*/*', '~/a.example.com']", "a.example.com", false),
    ] {
        let sidecar = sidecar("app", "a", OLD, &format!("{{egress: [{{hosts: {hosts}}}]}}"));
        let snapshot = snapshot(&(usual() + &route(host) + &sidecar));
        let view = View::new(&snapshot, &proxy("sidecar", "app"));
        assert_eq!(view.egress[0].virtual_services.len(), usize::from(is_imported), "{hosts} {host}");
    }
}

#[test]
fn the_policy_for_unknown_destinations_is_the_sidecars() {
    for (policy, allows, cluster) in [
        ("", true, "PassthroughCluster"),
        (", outboundTrafficPolicy: {}", false, "BlackHoleCluster"),
        (", outboundTrafficPolicy: {mode: ALLOW_ANY}", true, "PassthroughCluster"),
        (
            ", outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: db.app.svc.cluster.local, subset: v1, port: {number: 80}}}",
            true,
            "outbound|80|v1|db.app.svc.cluster.local",
        ),
    ] {
        let snapshot = snapshot(
            &(usual() + &sidecar("app", "a", OLD, &format!("{{egress: [{{hosts: ['./*']}}]{policy}}}"))),
        );
        let proxy = proxy("sidecar", "app");
        let view = View::new(&snapshot, &proxy);
        let scope = Scope::new(&snapshot, &proxy, &view);
        assert_eq!((scope.allows_any_outbound(), scope.unknown_destination()), (allows, cluster), "{policy}");
    }
}

#[test]
fn names_of_several_namespaces_mean_one_service() {
    let entry = |namespace: &str, created: &str, port: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: {namespace}, creationTimestamp: '{created}'}}\nspec: {{hosts: [a.example.com], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: DNS}}\n"
        )
    };
    let objects = entry("one", NEW, 1) + &entry("two", OLD, 2) + &entry("app", NEW, 3);
    assert_eq!(seen(&objects, "app"), set(&["a.example.com:3"]));
    assert_eq!(seen(&objects, "three"), set(&["a.example.com:2"]));
}

#[test]
fn ingress_listeners_replace_what_services_say() {
    let pod = "---
apiVersion: v1
kind: Service
metadata: {name: client, namespace: app}
spec: {clusterIP: 10.0.0.9, selector: {app: client}, ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP}]}
";
    let ports = |objects: &str| {
        let snapshot = snapshot(objects);
        let proxy = proxy("sidecar", "app");
        let view = View::new(&snapshot, &proxy);
        let scope = Scope::new(&snapshot, &proxy, &view);
        let inbound = scope.inbound();
        let of = |target| {
            scope
                .inbound_connection_pool(target)
                .and_then(|pool| pool.tcp.as_ref())
                .map(|tcp| tcp.max_connections)
        };
        let ports = inbound.iter().map(|inbound| {
            (inbound.target, inbound.host(scope).to_string(), inbound.service.is_some(), of(inbound.target))
        });
        ports.collect::<Vec<_>>()
    };
    let host = "client.app.svc.cluster.local".to_owned();
    assert_eq!(ports(pod), [(8080, host, true, None)]);
    let spec = "{inboundConnectionPool: {tcp: {maxConnections: 1}}, ingress: [
      {port: {number: 9090, protocol: TCP}, connectionPool: {tcp: {maxConnections: 2}}},
      {port: {number: 8080, protocol: HTTP}}]}";
    let objects = pod.to_owned() + &sidecar("app", "mine", OLD, spec);
    let host = "mine.app".to_owned();
    assert_eq!(ports(&objects), [(8080, host.clone(), true, Some(1)), (9090, host, false, Some(2))]);
}
