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
    crate::testing::snapshot(&format!("{OBJECTS}{more}"))
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

const SIDECAR: &str = "
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec: {egress: [{hosts: [other/*]}]}
";

#[test]
fn a_client_sees_what_its_sidecar_lists() {
    let (snapshot, proxy) = (snapshot_with(SIDECAR), proxy());
    let view = View::new(&snapshot, &proxy);
    let scope = Scope::new(&snapshot, &proxy, &view);
    let cluster = format!("outbound|7070||{HOST}");
    assert!(listeners(scope, ["echo:7070"].into_iter()).is_empty());
    assert!(routes(scope, [cluster.as_str()].into_iter()).is_empty());
    assert!(clusters(scope, [cluster.as_str()].into_iter()).is_empty());
}

#[test]
fn hashing_is_the_one_that_grpc_knows() {
    let balance = |balancer: &str| {
        let rule = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: a-hash}}\n\
             spec: {{host: hash.default.svc.cluster.local, trafficPolicy: {{loadBalancer: {{consistentHash: {balancer}}}}}}}\n\
             ---\napiVersion: v1\nkind: Service\nmetadata: {{name: hash}}\n\
             spec: {{clusterIP: 10.0.0.2, ports: [{{name: grpc, port: 80}}]}}\n"
        );
        let (snapshot, proxy) = (snapshot_with(&rule), proxy());
        let view = View::new(&snapshot, &proxy);
        let names = ["outbound|80||hash.default.svc.cluster.local"];
        clusters(Scope::new(&snapshot, &proxy, &view), names.into_iter()).remove(0)
    };
    let ring = balance("{httpHeaderName: x-user, ringHash: {minimumRingSize: 9}}");
    assert_eq!(ring.lb_policy(), LbPolicy::RingHash);
    assert!(ring.lb_config.is_some());
    let maglev = balance("{httpHeaderName: x-user, maglev: {tableSize: 65537}}");
    assert_eq!((maglev.lb_policy(), maglev.lb_config), (LbPolicy::RingHash, None));
}

#[test]
fn tls_that_grpc_cannot_begin_is_told() {
    let rule = |mode: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: tls}}\n\
             spec: {{host: web.example, trafficPolicy: {{tls: {mode}}}}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: web}}\n\
             spec: {{hosts: [web.example], resolution: STATIC, endpoints: [{{address: 1.2.3.4}}], \
             ports: [{{number: 443, name: grpc, protocol: GRPC}}]}}\n"
        )
    };
    let told = |mode: &str| {
        let (snapshot, proxy) = (snapshot_with(&rule(mode)), proxy());
        let view = View::new(&snapshot, &proxy);
        without_tls(Scope::new(&snapshot, &proxy, &view), &["outbound|443||web.example".into()].into())
    };
    for (settings, mode) in
        [("{mode: SIMPLE}", "SIMPLE"), ("{mode: MUTUAL, clientCertificate: /a, privateKey: /b}", "MUTUAL")]
    {
        let found = told(settings);
        assert_eq!((found.len(), found[0].mode), (1, mode));
        assert_eq!(found[0].rule, ("default".to_owned(), "tls".to_owned()));
    }
    assert!(told("{mode: ISTIO_MUTUAL}").is_empty() && told("{mode: DISABLE}").is_empty());
}
