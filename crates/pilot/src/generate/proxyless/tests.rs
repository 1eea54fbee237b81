use std::sync::Arc;

use config::{Store, yaml};
use proto::envoy::config::core::v3::Node;
use proto::envoy::config::listener::v3::filter::ConfigType;
use proto::envoy::config::route::v3::route_action::ClusterSpecifier;

use super::*;
use crate::proxy::Proxy;
use crate::scope::View;
use crate::snapshot::Snapshot;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  clusterIP: 10.0.0.1
  selector: {app: echo}
  ports: [{name: grpc, port: 7070, targetPort: 17070}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo}
spec:
  host: echo
  trafficPolicy:
    loadBalancer: {simple: LEAST_REQUEST}
    connectionPool: {http: {http2MaxRequests: 9}}
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec: {hosts: [echo], http: [{route: [{destination: {host: echo, subset: v1}}]}]}
";
const HOST: &str = "echo.default.svc.cluster.local";

fn snapshot() -> Snapshot {
    snapshot_with("")
}

fn snapshot_with(more: &str) -> Snapshot {
    let contents = yaml::read("mesh.yaml", &format!("{OBJECTS}{more}"));
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    Snapshot::build(&store, &crate::Settings::new(Arc::default(), "Kubernetes"))
}

fn proxy() -> Proxy {
    let id = "sidecar~10.1.1.1~echo-1.default~default.svc.cluster.local".into();
    let mut proxy = Proxy::from_node(&Node { id, ..Node::default() }).unwrap();
    proxy.labels = [("app".to_owned(), "echo".to_owned())].into();
    proxy
}

#[test]
fn a_listener_bears_the_name_that_was_asked_for() {
    let (snapshot, proxy) = (snapshot(), proxy());
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let names = [
        "echo:7070",
        "echo.default:7070",
        "echo.default.svc.cluster.local:7070",
        "echo:1",
        "other:7070",
        "echo",
    ];
    let found = listeners(scope, names.into_iter());
    assert_eq!(found.iter().map(|listener| listener.name.as_str()).collect::<Vec<_>>(), &names[..3]);
    let api = found[0].api_listener.as_ref().unwrap().api_listener.as_ref().unwrap();
    let manager: HttpConnectionManager = api.unpack().unwrap();
    let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else { panic!() };
    assert_eq!(rds.route_config_name, format!("outbound|7070||{HOST}"));
}

#[test]
fn the_route_leads_to_the_cluster_of_the_rule() {
    let (snapshot, proxy) = (snapshot(), proxy());
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let name = format!("outbound|7070||{HOST}");
    let found = routes(scope, [name.as_str(), "outbound|1||x.y"].into_iter());
    let Some(Action::Route(action)) = &found[0].virtual_hosts[0].routes[0].action else { panic!() };
    let cluster = format!("outbound|7070|v1|{HOST}");
    assert_eq!(action.cluster_specifier, Some(ClusterSpecifier::Cluster(cluster.clone())));
    assert_eq!((found.len(), found[0].virtual_hosts[0].domains.as_slice()), (1, &["*".to_owned()][..]));

    let found = clusters(scope, [cluster.as_str(), name.as_str(), "outbound|7070|v2|x.y"].into_iter());
    assert_eq!(found.len(), 2);
    assert!(found[0].transport_socket.is_some() && found[1].transport_socket.is_none());
    assert_eq!(found[1].lb_policy(), LbPolicy::LeastRequest);
    assert_eq!(found[1].circuit_breakers.as_ref().unwrap().thresholds[0].max_requests, Some(9));
}

#[test]
fn a_server_gets_the_listener_of_its_port() {
    let (snapshot, mut proxy) = (snapshot(), proxy());
    let name = format!("{SERVER}0.0.0.0:17070");
    let found =
        listeners(Scope::new(&snapshot, &proxy, &View::new(&snapshot, &proxy)), [name.as_str()].into_iter());
    assert!(found[0].filter_chains[0].transport_socket.is_none(), "permissive is plaintext");
    proxy.labels.insert(names::label::TLS_MODE.into(), names::label::TLS_MODE_ISTIO.into());
    let other = format!("{SERVER}0.0.0.0:1");
    let found = listeners(
        Scope::new(&snapshot, &proxy, &View::new(&snapshot, &proxy)),
        [name.as_str(), &other].into_iter(),
    );
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].filter_chains[0].name, "inbound-mtls");
}

#[test]
fn a_server_has_the_policies_of_its_workload() {
    let policy = |action: &str| {
        format!(
            "
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {}}}
spec: {{action: {action}, rules: [{{}}]}}
",
            action.split(',').next().unwrap_or_default().to_lowercase()
        )
    };
    let filters = |policies: &[&str]| -> Vec<String> {
        let more: String = policies.iter().map(|action| policy(action)).collect();
        let snapshot = snapshot_with(&more);
        let proxy = proxy();
        let view = View::new(&snapshot, &proxy);
        let name = format!("{SERVER}0.0.0.0:17070");
        let found = listeners(Scope::new(&snapshot, &proxy, &view), [name.as_str()].into_iter());
        let Some(ConfigType::TypedConfig(config)) = &found[0].filter_chains[0].filters[0].config_type else {
            panic!()
        };
        let manager: HttpConnectionManager = config.unpack().unwrap();
        manager.http_filters.into_iter().map(|filter| filter.name).collect()
    };
    let (rbac, router) = ("envoy.filters.http.rbac", "envoy.filters.http.router");
    assert_eq!(filters(&[]), [router]);
    assert_eq!(filters(&["DENY", "ALLOW", "AUDIT"]), [rbac, rbac, router]);
    // Nobody can be asked, so nobody may come in.
    assert_eq!(filters(&["CUSTOM, provider: {name: p}"]), [rbac, router]);
}
