//! What validation should have stopped must not reach Envoy either.

use std::sync::Arc;

use config::{Spec, Store, yaml};
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::Node;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;

use super::{cluster, endpoint, route};
use xds::session::Wanted;

use crate::proxy::Proxy;
use crate::scope::{Scope, View};
use crate::snapshot::Snapshot;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: a}
spec:
  clusterIP: 10.0.0.1
  selector: {app: a}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: tcp-dns, port: 53}, {name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}]
ports: [{name: http, port: 80}, {name: tcp-dns, port: 53}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: a}
spec: {address: a.example.com, labels: {app: a}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec: {hosts: [a], http: [{delegate: {name: b}}, {name: last, route: [{destination: {host: a}}]}]}
";

/// The objects, each changed as nobody may write them.
fn snapshot(change: impl Fn(&mut Spec)) -> Snapshot {
    let contents = yaml::read("mesh.yaml", OBJECTS);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for mut object in contents.objects {
        change(&mut object.spec);
        store.apply(Arc::new(object));
    }
    Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"))
}

fn proxy() -> Proxy {
    let id = "sidecar~10.1.1.1~b.default~default.svc.cluster.local".into();
    Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
}

fn addresses(snapshot: &Snapshot, port: u16) -> usize {
    let name = format!("outbound|{port}||a.default.svc.cluster.local");
    let assignment =
        endpoint::assignment(Scope::new(snapshot, &proxy(), &View::new(snapshot, &proxy())), &name);
    assignment.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum()
}

fn clusters(snapshot: &Snapshot) -> Vec<Cluster> {
    let all =
        cluster::side(Scope::new(snapshot, &proxy(), &View::new(snapshot, &proxy())), super::Side::Shared);
    all.into_iter().filter(|cluster| cluster.name.starts_with("outbound|")).collect()
}

#[test]
fn only_addresses_become_endpoints() {
    let good = snapshot(|_| {});
    // The WorkloadEntry has a host name; the TCP port is not hidden by UDP of its number.
    assert_eq!((addresses(&good, 80), addresses(&good, 53)), (2, 2));
    let bad = snapshot(|spec| {
        if let Spec::EndpointSlice(slice) = spec {
            slice.endpoints[0].addresses = vec!["foo".into()];
        }
    });
    assert_eq!(addresses(&bad, 80), 1);
}

#[test]
fn a_port_makes_one_cluster() {
    assert_eq!(clusters(&snapshot(|_| {})).len(), 2);
    let bad = snapshot(|spec| {
        if let Spec::Service(service) = spec {
            service.ports[0].port = 0;
            service.ports[1].port = 80;
            service.cluster_ip = "10.0.0.999".into();
        }
    });
    assert_eq!(clusters(&bad).len(), 1);
    assert!(bad.services[0].addresses.is_empty());
}

#[test]
fn mutual_tls_without_a_certificate_is_no_plaintext() {
    let tls = snapshot(|spec| {
        if let Spec::DestinationRule(rule) = spec {
            let policy = rule.traffic_policy.as_mut().and_then(|policy| policy.tls.as_mut());
            policy.unwrap().set_mode(TlsMode::Mutual);
        }
    });
    let all = clusters(&tls);
    assert!(
        all.iter().all(|cluster| cluster.eds_cluster_config.is_none() && cluster.load_assignment.is_none())
    );
}

#[test]
fn rules_that_lead_nowhere_make_no_route() {
    let snapshot = snapshot(|_| {});
    let proxy = proxy();
    let view = View::new(&snapshot, &proxy);
    let wanted = Wanted::Names(std::iter::once("80".into()).collect());
    let made = route::outbound(Scope::new(&snapshot, &proxy, &view), &wanted)[0].message();
    let hosts = &made.virtual_hosts;
    let names: Vec<&str> = hosts[0].routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["last"]);
}
