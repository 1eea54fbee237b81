use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Key, Kind, Store, yaml};
use proto::envoy::config::core::v3::Node;
use xds::session::Asked;

use super::*;
use crate::depend::Change;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: other}
spec: {clusterIP: 10.0.0.2, selector: {app: b}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: default, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: http, port: 8080}]
";

struct Mesh {
    store: Store,
    snapshot: Snapshot,
    stamps: Stamps,
    cache: Cache,
}

impl Mesh {
    fn new(text: &str) -> Self {
        let store = crate::testing::store(text);
        let snapshot = Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"));
        Self { store, snapshot, stamps: Stamps::new(1), cache: Cache::default() }
    }

    fn now(&self) -> Now<'_> {
        Now { cache: &self.cache, snapshot: &self.snapshot, stamps: &self.stamps }
    }

    fn apply(&mut self, text: &str) {
        let contents = yaml::read("mesh.yaml", text);
        assert!(!contents.has_errors(), "{:?}", contents.problems);
        let mut changes = Vec::new();
        let mut kinds: BTreeSet<Kind> = BTreeSet::new();
        for object in contents.objects.into_iter().map(Arc::new) {
            let key: Key = object.key.clone();
            let old = self.store.object(&key).cloned();
            self.store.apply(object.clone());
            kinds.insert(key.kind);
            changes.push(Change { key, old, new: Some(object) });
        }
        let snapshot = self.snapshot.next(&self.store, &kinds);
        let serial = self.stamps.serial() + 1;
        self.stamps = self.stamps.advance(serial, &self.snapshot, &snapshot, &changes);
        self.snapshot = snapshot;
    }

    fn generated(&self) -> u64 {
        self.cache.size().generated
    }
}

fn client(pod: &str, ip: &str, namespace: &str) -> Client {
    let id = format!("sidecar~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local");
    Client::new(Arc::new(Proxy::from_node(&Node { id, ..Node::default() }).unwrap()))
}

fn none() -> BTreeSet<Arc<str>> {
    BTreeSet::new()
}

fn endpoints() -> BTreeSet<Arc<str>> {
    ["outbound|80||a.default.svc.cluster.local", "outbound|5432||b.other.svc.cluster.local"]
        .into_iter()
        .map(Arc::from)
        .collect()
}

#[test]
fn proxies_of_a_class_share_one_generation_and_its_bytes() {
    let mesh = Mesh::new(OBJECTS);
    let mut first = client("one", "10.1.9.1", "default");
    let clusters = first.resources(mesh.now(), &TypeUrl::Cluster, Asked::All);
    let before = mesh.generated();
    for index in 2..200 {
        let mut other = client("more", &format!("10.1.9.{index}"), "default");
        assert!(!other.is_ready(mesh.now(), &TypeUrl::Cluster, Asked::All), "its own part is not there");
        let own = other.resources(mesh.now(), &TypeUrl::Cluster, Asked::All);
        assert_eq!(own, clusters);
        assert!(own.iter().zip(&clusters).all(|(a, b)| a.body.as_ptr() == b.body.as_ptr()));
    }
    // Only what comes to each workload was made for each.
    assert_eq!(mesh.generated() - before, 198);
    assert_eq!(mesh.cache.size().classes, 2);
}

#[test]
fn it_says_what_generation_says() {
    let mesh = Mesh::new(OBJECTS);
    let mut client = client("one", "10.1.9.1", "default");
    let names = Wanted::Names(["80".into(), "nothing".into()].into());
    let wanted = [
        (TypeUrl::Cluster, Wanted::All),
        (TypeUrl::Listener, Wanted::All),
        (TypeUrl::NameTable, Wanted::All),
        (TypeUrl::Route, names),
        (TypeUrl::Endpoint, Wanted::Names(endpoints())),
    ];
    for (type_url, wanted) in wanted {
        let direct = generate::generate(&mesh.snapshot, client.proxy(), &type_url, &wanted);
        for _ in 0..2 {
            let mut cached = client.resources(mesh.now(), &type_url, wanted.asked());
            cached.sort_by(|a, b| a.name.cmp(&b.name));
            let mut direct = direct.clone();
            direct.sort_by(|a, b| a.name.cmp(&b.name));
            assert_eq!(cached, direct, "{type_url}");
        }
    }
}

#[test]
fn a_change_of_endpoints_touches_the_assignments_of_its_service_only() {
    let mut mesh = Mesh::new(OBJECTS);
    let mut client = client("one", "10.1.9.1", "default");
    let names = endpoints();
    let (all, due) = (Asked::Names(&names), none());
    assert!(matches!(client.fresh(mesh.now(), &TypeUrl::Endpoint, all, &due), Fresh::All(_)));
    for type_url in [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::NameTable] {
        client.resources(mesh.now(), &type_url, Asked::All);
    }
    let before = mesh.generated();
    mesh.apply(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, namespace: default, labels: \
         {kubernetes.io/service-name: a}}\naddressType: IPv4\nendpoints: [{addresses: [10.1.0.1]}, {addresses: \
         [10.1.0.2]}]\nports: [{name: http, port: 8080}]\n",
    );
    for type_url in [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::NameTable] {
        assert_eq!(client.fresh(mesh.now(), &type_url, Asked::All, &due), Fresh::Same, "{type_url}");
    }
    let fresh = client.fresh(mesh.now(), &TypeUrl::Endpoint, all, &due);
    let Fresh::Some(some, resources) = fresh else { panic!("{fresh:?}") };
    assert_eq!(
        some.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["outbound|80||a.default.svc.cluster.local"]
    );
    assert_eq!(resources.len(), 1);
    assert_eq!(mesh.generated() - before, 1, "nothing else was made");
}

#[test]
fn a_policy_concerns_the_proxies_of_its_namespace() {
    let mut mesh = Mesh::new(OBJECTS);
    let mut here = client("one", "10.1.9.1", "default");
    let mut there = client("two", "10.1.9.2", "other");
    for client in [&mut here, &mut there] {
        client.fresh(mesh.now(), &TypeUrl::Listener, Asked::All, &none());
    }
    mesh.apply(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: \
         other}\nspec: {mtls: {mode: STRICT}}\n",
    );
    assert_eq!(here.fresh(mesh.now(), &TypeUrl::Listener, Asked::All, &none()), Fresh::Same);
    assert!(matches!(there.fresh(mesh.now(), &TypeUrl::Listener, Asked::All, &none()), Fresh::All(_)));
}

#[test]
fn what_comes_out_as_before_is_nothing_new() {
    let mut mesh = Mesh::new(OBJECTS);
    let mut client = client("one", "10.1.9.1", "default");
    client.fresh(mesh.now(), &TypeUrl::Cluster, Asked::All, &none());
    // It may concern clusters, and does not concern these.
    mesh.apply(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r, namespace: \
         default}\nspec: {host: nobody.example.com, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n",
    );
    let before = mesh.generated();
    assert_eq!(client.fresh(mesh.now(), &TypeUrl::Cluster, Asked::All, &none()), Fresh::Same);
    assert!(mesh.generated() > before, "it was looked at");
}

#[test]
fn a_name_that_comes_into_being_later_is_told() {
    let mut mesh = Mesh::new(OBJECTS);
    let mut client = client("one", "10.1.9.1", "default");
    let names: BTreeSet<Arc<str>> = ["outbound|80||late.default.svc.cluster.local".into()].into();
    let asked = Asked::Names(&names);
    client.fresh(mesh.now(), &TypeUrl::Endpoint, asked, &none());
    mesh.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: default}\nspec: {clusterIP: 10.0.0.9, \
         ports: [{name: http, port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: \
         {name: late, namespace: default, labels: {kubernetes.io/service-name: late}}\naddressType: \
         IPv4\nendpoints: [{addresses: [10.1.0.7]}]\nports: [{name: http, port: 80}]\n",
    );
    let fresh = client.fresh(mesh.now(), &TypeUrl::Endpoint, asked, &none());
    assert!(matches!(&fresh, Fresh::Some(some, _) if *some == names), "{fresh:?}");
    // After everything was forgotten nothing is missed either.
    mesh.cache.clear();
    assert!(matches!(client.fresh(mesh.now(), &TypeUrl::Endpoint, asked, &none()), Fresh::All(_)));
}

/// An application that speaks xDS itself.
fn proxyless(pod: &str, ip: &str) -> Client {
    let plain = client(pod, ip, "default");
    Client::new(Arc::new(Proxy { is_proxyless: true, ..Proxy::clone(plain.proxy()) }))
}

#[test]
fn applications_that_speak_xds_themselves_share_what_they_ask_for_by_name() {
    let mut mesh = Mesh::new(OBJECTS);
    let names = |names: &[&str]| -> BTreeSet<Arc<str>> { names.iter().map(|&name| name.into()).collect() };
    let asked = [
        (TypeUrl::Listener, names(&["a.default.svc.cluster.local:80", "b.other:5432", "none:1"])),
        (TypeUrl::Cluster, names(&["outbound|80||a.default.svc.cluster.local", "outbound|1||none"])),
        (TypeUrl::Route, names(&["outbound|80||a.default.svc.cluster.local"])),
        (TypeUrl::Endpoint, endpoints()),
    ];
    let mut first = proxyless("one", "10.1.9.1");
    let before = mesh.generated();
    for (type_url, names) in &asked {
        let wanted = Wanted::Names(names.clone());
        let direct = generate::generate(&mesh.snapshot, first.proxy(), type_url, &wanted);
        assert!(!direct.is_empty(), "{type_url}");
        assert_eq!(first.resources(mesh.now(), type_url, Asked::Names(names)), direct, "{type_url}");
    }
    let made = mesh.generated() - before;
    for (type_url, names) in &asked {
        let mut other = proxyless("two", "10.1.9.2");
        let theirs = other.resources(mesh.now(), type_url, Asked::Names(names));
        let ours = first.resources(mesh.now(), type_url, Asked::Names(names));
        assert!(theirs.iter().zip(&ours).all(|(a, b)| a.body.as_ptr() == b.body.as_ptr()), "{type_url}");
    }
    assert_eq!(mesh.generated() - before, made, "nothing was made twice");
    let contents = mesh.cache.contents();
    for type_url in [TypeUrl::Listener, TypeUrl::Cluster] {
        assert!(!contents[&type_url].is_empty(), "{type_url}");
    }

    // What they see changes with the Sidecar that holds for them.
    mesh.apply(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: default}\n\
         spec: {egress: [{hosts: [other/*]}]}\n",
    );
    let clusters = &asked[1].1;
    assert!(first.resources(mesh.now(), &TypeUrl::Cluster, Asked::Names(clusters)).is_empty());
}
