//! What modes of the mesh and switches of the control plane add to what Envoy gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh::MeshConfig;
use names::TypeUrl;
use prost::Message as _;
use proto::Any;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use proto::envoy::config::core::v3::{Node, transport_socket};
use proto::envoy::config::listener::v3::filter::ConfigType;
use proto::envoy::config::listener::v3::{FilterChain, Listener};
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;
use proto::envoy::extensions::filters::http::stateful_session::v3::StatefulSessionPerRoute;
use proto::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier,
};
use proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use proto::envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use xds::session::Wanted;

use crate::testing::store;
use crate::{Features, Proxy, Settings, Snapshot, generate};

const DYNAMIC: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}";

fn settings(mesh: &str, features: Features) -> Settings {
    let mesh = MeshConfig::from_yaml(mesh).unwrap();
    Settings { features, ..Settings::new(Arc::new(mesh), "Kubernetes") }
}

fn snapshot(objects: &str, settings: &Settings) -> Snapshot {
    Snapshot::build(&store(objects), settings)
}

fn proxy(kind: &str) -> Proxy {
    let id = format!("{kind}~10.1.1.1~b.default~default.svc.cluster.local");
    Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
}

fn all<M: prost::Message + Default>(snapshot: &Snapshot, proxy: &Proxy, kind: &TypeUrl) -> Vec<M> {
    let made = generate(snapshot, proxy, kind, &Wanted::All);
    made.iter().map(|made| M::decode(&made.body[..]).unwrap()).collect()
}

fn routes(snapshot: &Snapshot, proxy: &Proxy, name: &str) -> RouteConfiguration {
    let wanted = Wanted::Names(BTreeSet::from([name.into()]));
    let made = generate(snapshot, proxy, &TypeUrl::Route, &wanted);
    RouteConfiguration::decode(&made[0].body[..]).unwrap()
}

fn manager(chain: &FilterChain) -> HttpConnectionManager {
    let Some(ConfigType::TypedConfig(config)) = &chain.filters[0].config_type else { panic!() };
    config.unpack().unwrap()
}

fn filters(manager: &HttpConnectionManager) -> Vec<&str> {
    let short = |name: &'_ str| name.rfind('.').map_or(0, |at| at + 1);
    manager.http_filters.iter().map(|filter| &filter.name[short(&filter.name)..]).collect()
}

fn named<'a>(listeners: &'a [Listener], name: &str) -> &'a Listener {
    listeners.iter().find(|listener| listener.name == name).unwrap()
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, labels: {istio.io/persistent-session: 'shop:/cart'}}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default, labels: {istio.io/persistent-session-header: x-session}}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
";

#[test]
fn unknown_hosts_are_asked_for_in_dns() {
    let snapshot = snapshot(WEB, &settings(DYNAMIC, Features::default()));
    let sidecar = proxy("sidecar");
    let listeners: Vec<Listener> = all(&snapshot, &sidecar, &TypeUrl::Listener);
    let any = named(&listeners, "virtualOutbound");
    let chains: Vec<&str> = any.filter_chains.iter().map(|chain| chain.name.as_str()).collect();
    let tcp = "virtualOutbound-catchall-tcp";
    assert_eq!(chains, ["virtualOutbound-blackhole", &format!("{tcp}-http"), tcp]);
    assert_eq!(any.listener_filters.len(), 1);
    let manager = manager(&any.filter_chains[1]);
    assert!(filters(&manager).ends_with(&["dynamic_forward_proxy", "router"]));
    let Some(RouteSpecifier::RouteConfig(inline)) = &manager.route_specifier else { panic!() };
    assert_eq!(inline.virtual_hosts[0].name, "allow_any_dynamic_dns");
    // Hosts that no service names come to listeners of services, too.
    let http = self::manager(&named(&listeners, "0.0.0.0_80").filter_chains[0]);
    assert!(filters(&http).contains(&"dynamic_forward_proxy"));
    let last = routes(&snapshot, &sidecar, "80").virtual_hosts.pop().unwrap();
    assert_eq!((last.name.as_str(), &last.domains[..]), ("allow_any_dynamic_dns", &["*".to_owned()][..]));

    let clusters: Vec<Cluster> = all(&snapshot, &sidecar, &TypeUrl::Cluster);
    let cluster = clusters.iter().find(|cluster| cluster.name == "AllowAnyDynamicDNSCluster").unwrap();
    let Some(ClusterDiscoveryType::ClusterType(kind)) = &cluster.cluster_discovery_type else { panic!() };
    let config: ClusterConfig = kind.typed_config.as_ref().unwrap().unpack().unwrap();
    assert!(config.allow_insecure_cluster_options && cluster.transport_socket.is_none());
    let Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) = config.cluster_implementation_specifier
    else {
        panic!()
    };
    assert_eq!((cache.name.as_str(), cache.max_hosts), ("allow_any_dfp_dns_cache", Some(1024)));
    assert!(cache.typed_dns_resolver_config.is_none());

    // Gateways have nothing to do with it, and the mode of another mesh changes nothing.
    let router: Vec<Cluster> = all(&snapshot, &proxy("router"), &TypeUrl::Cluster);
    assert!(router.iter().all(|cluster| cluster.name != "AllowAnyDynamicDNSCluster"));
    let usual = self::snapshot(WEB, &settings("", Features::default()));
    let listeners: Vec<Listener> = all(&usual, &sidecar, &TypeUrl::Listener);
    assert!(named(&listeners, "virtualOutbound").listener_filters.is_empty());
}

#[test]
fn tls_of_unknown_hosts_is_the_meshs() {
    let mesh = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, tls: {mode: SIMPLE}}";
    let snapshot = snapshot(WEB, &settings(mesh, Features::default()));
    let captures = Proxy { dns_capture: true, ..proxy("sidecar") };
    let clusters: Vec<Cluster> = all(&snapshot, &captures, &TypeUrl::Cluster);
    let cluster = clusters.iter().find(|cluster| cluster.name == "AllowAnyDynamicDNSCluster").unwrap();
    let Some(ClusterDiscoveryType::ClusterType(kind)) = &cluster.cluster_discovery_type else { panic!() };
    let config: ClusterConfig = kind.typed_config.as_ref().unwrap().unpack().unwrap();
    // Envoy asks for the name in the request and checks it.
    assert!(!config.allow_insecure_cluster_options && cluster.transport_socket.is_some());
    let Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) = config.cluster_implementation_specifier
    else {
        panic!()
    };
    assert!(cache.typed_dns_resolver_config.is_some(), "the proxy asks itself");
}

#[test]
fn a_credential_of_the_mesh_is_for_every_sidecar() {
    let mesh = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS, tls: {mode: SIMPLE, credentialName: a}}";
    let snapshot = snapshot(WEB, &settings(mesh, Features::default()));
    let clusters: Vec<Cluster> = all(&snapshot, &proxy("sidecar"), &TypeUrl::Cluster);
    let cluster = clusters.iter().find(|cluster| cluster.name == "AllowAnyDynamicDNSCluster").unwrap();
    // Never plaintext where TLS was asked for, whether there is such a Secret or not.
    let socket = cluster.transport_socket.as_ref().unwrap();
    let Some(transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else { panic!() };
    let context: UpstreamTlsContext = config.unpack().unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        context.common_tls_context.unwrap().validation_context_type
    else {
        panic!()
    };
    assert_eq!(combined.validation_context_sds_secret_config.unwrap().name, "kubernetes://a-cacert");
}

#[test]
fn requests_to_names_under_a_wildcard_are_resolved() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: default}
spec: {hosts: ['*.example.com'], resolution: DYNAMIC_DNS, ports: [{number: 8080, name: http, protocol: HTTP}]}
---
";
    let snapshot = snapshot(&format!("{WEB}{entry}"), &settings("", Features::default()));
    let listeners: Vec<Listener> = all(&snapshot, &proxy("sidecar"), &TypeUrl::Listener);
    let has = |name: &str| {
        let manager = manager(&named(&listeners, name).filter_chains[0]);
        filters(&manager).contains(&"dynamic_forward_proxy")
    };
    assert_eq!((has("0.0.0.0_8080"), has("0.0.0.0_80")), (true, false));
}

#[test]
fn envoy_takes_clusters_that_resolve_names_whatever_they_speak() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: default}
spec: {hosts: ['*.example.com'], resolution: DYNAMIC_DNS, ports: [{number: 8080, name: grpc, protocol: GRPC}]}
---
";
    let snapshot = snapshot(&format!("{WEB}{entry}"), &settings(DYNAMIC, Features::default()));
    let clusters: Vec<Cluster> = all(&snapshot, &proxy("sidecar"), &TypeUrl::Cluster);
    for name in ["AllowAnyDynamicDNSCluster", "outbound|8080||*.example.com"] {
        let cluster = clusters.iter().find(|cluster| cluster.name == name).unwrap();
        let Some(ClusterDiscoveryType::ClusterType(kind)) = &cluster.cluster_discovery_type else { panic!() };
        let config: ClusterConfig = kind.typed_config.as_ref().unwrap().unpack().unwrap();
        // With options that do not have Envoy check names it refuses the cluster otherwise.
        assert!(!cluster.typed_extension_protocol_options.is_empty() && cluster.transport_socket.is_none());
        assert!(config.allow_insecure_cluster_options, "{name}");
    }
}

/// The cookie with its path, or the header, that settings of a route name.
fn session(settings: &std::collections::BTreeMap<String, Any>) -> Option<String> {
    let route: StatefulSessionPerRoute =
        settings.get("envoy.filters.http.stateful_session")?.unpack().unwrap();
    let Some(Override::StatefulSession(session)) = route.r#override else { panic!() };
    let state = session.session_state.unwrap().typed_config.unwrap();
    if let Ok(CookieBasedSessionState { cookie: Some(cookie) }) = state.unpack() {
        return Some(format!("{} {}", cookie.name, cookie.path));
    }
    Some(state.unpack::<HeaderBasedSessionState>().unwrap().name)
}

#[test]
fn sessions_persist_where_a_label_of_the_service_says_so() {
    let route = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: default}
spec: {hosts: [front.example], http: [{route: [{destination: {host: web}}]}]}
---
";
    let objects = format!("{WEB}{route}");
    let on = Features { persistent_sessions: true, ..Features::default() };
    let sidecar = proxy("sidecar");
    let made = |features: Features| {
        let snapshot = snapshot(&objects, &settings("", features));
        let routes = routes(&snapshot, &sidecar, "80");
        let host = |name: &str| {
            let host = routes.virtual_hosts.iter().find(|host| host.name.starts_with(name)).unwrap();
            let of_route = session(&host.routes[0].typed_per_filter_config);
            session(&host.typed_per_filter_config).or(of_route)
        };
        let listeners: Vec<Listener> = all(&snapshot, &sidecar, &TypeUrl::Listener);
        let manager = manager(&named(&listeners, "0.0.0.0_80").filter_chains[0]);
        (filters(&manager).contains(&"stateful_session"), host("web."), host("other."), host("front."))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(made(on.clone()), (true, text("shop /cart"), text("x-session"), text("shop /cart")));
    assert_eq!(made(Features::default()), (false, None, None, None));
    let mut renamed = on;
    renamed.session_labels.cookie = String::new();
    assert_eq!(made(renamed), (true, None, text("x-session"), None));
}

#[test]
fn hosts_of_a_gateway_have_the_sessions_of_their_own_services() {
    let edge = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: both, namespace: default}
spec:
  hosts: [web.default.svc.cluster.local, other.default.svc.cluster.local]
  gateways: [gw]
  http:
  - {match: [{uri: {prefix: /a}}], route: [{destination: {host: web.default.svc.cluster.local}}]}
  - route: [{destination: {host: other.default.svc.cluster.local}}]
---
";
    let on = Features { persistent_sessions: true, ..Features::default() };
    let snapshot = snapshot(&format!("{WEB}{edge}"), &settings("", on));
    let hosts = routes(&snapshot, &proxy("router"), "http.80").virtual_hosts;
    let sessions: Vec<_> =
        hosts.iter().map(|host| (&*host.domains[0], session(&host.typed_per_filter_config))).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        sessions,
        [
            ("other.default.svc.cluster.local", text("x-session")),
            ("web.default.svc.cluster.local", text("shop /cart"))
        ]
    );
}

const EDGE: &str = "
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: default}
spec:
  clusterIP: 10.0.0.9
  selector: {app: edge}
  ports:
  - {name: https, port: 443, targetPort: 8443}
  - {name: http3, port: 443, targetPort: 8443, protocol: UDP}
  - {name: more, port: 444, targetPort: 8444}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  servers:
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: a}}
  - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.example], tls: {mode: MUTUAL, credentialName: b}}
  - port: {number: 443, name: d, protocol: HTTPS}
    hosts: [d.example]
    tls: {mode: OPTIONAL_MUTUAL, credentialName: d}
  - {port: {number: 444, name: c, protocol: HTTPS}, hosts: [c.example], tls: {mode: SIMPLE, credentialName: c}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [a.example, b.example, c.example]
  gateways: [gw]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
---
";

#[test]
fn gateways_offer_http3_where_the_port_is_open_for_it() {
    let on = Features { quic_listeners: true, ..Features::default() };
    let objects = format!("{WEB}{EDGE}");
    let router = Proxy { labels: [("app".to_owned(), "edge".to_owned())].into(), ..proxy("router") };
    let quic = snapshot(&objects, &settings("", on));
    let listeners: Vec<Listener> = all(&quic, &router, &TypeUrl::Listener);
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["0.0.0.0_8443", "0.0.0.0_8444", "udp_0.0.0.0_8443"]);
    let udp = &listeners[2];
    assert!(udp.listener_filters.is_empty());
    assert!(udp.udp_listener_config.as_ref().is_some_and(|udp| udp.quic_options.is_some()));
    // A client's certificate cannot be asked for there.
    let [chain] = &udp.filter_chains[..] else { panic!("{:?}", udp.filter_chains) };
    assert_eq!(chain.filter_chain_match.as_ref().unwrap().server_names, ["a.example"]);
    let Some(transport_socket::ConfigType::TypedConfig(socket)) =
        &chain.transport_socket.as_ref().unwrap().config_type
    else {
        panic!()
    };
    let socket: QuicDownstreamTransport = socket.unpack().unwrap();
    let tls = socket.downstream_tls_context.unwrap();
    assert_eq!(tls.common_tls_context.unwrap().alpn_protocols, ["h3"]);
    let manager = manager(chain);
    assert_eq!(manager.codec_type(), CodecType::Http3);
    assert!(manager.http3_protocol_options.is_some());
    // Clients are told.
    let header = |name: &str| {
        let routes = routes(&quic, &router, name);
        let add = routes.virtual_hosts[0].routes[0].response_headers_to_add.first().cloned();
        add.and_then(|add| add.header).map(|header| header.value)
    };
    assert_eq!(header("https.443.a.gw.default").as_deref(), Some("h3=\":443\"; ma=86400"));
    assert_eq!((header("https.443.b.gw.default"), header("https.444.c.gw.default")), (None, None));

    let off = snapshot(&objects, &settings("", Features::default()));
    let listeners: Vec<Listener> = all(&off, &router, &TypeUrl::Listener);
    assert!(listeners.iter().all(|listener| listener.udp_listener_config.is_none()));
}

#[test]
fn endpoints_are_weighed_by_the_load_that_they_report() {
    let rule = |more: &str| {
        format!(
            "{WEB}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: default}}\n\
             spec: {{host: web, trafficPolicy: {{loadBalancer: {{backendUtilization: {{weightUpdatePeriod: 2s, \
             errorUtilizationPenaltyPercent: 150, metricNamesForComputingUtilization: [named_metrics.q]}}{more}}}}}}}\n"
        )
    };
    let policy = |objects: &str| {
        let snapshot = snapshot(objects, &settings("", Features::default()));
        let clusters: Vec<Cluster> = all(&snapshot, &proxy("sidecar"), &TypeUrl::Cluster);
        let cluster = clusters.into_iter().find(|cluster| cluster.name.contains("web")).unwrap();
        let common = cluster.common_lb_config.unwrap_or_default();
        assert!(cluster.lb_config.is_none() && common.locality_config_specifier.is_none());
        let mut policies = cluster.load_balancing_policy.unwrap().policies;
        policies.remove(0).typed_extension_config.unwrap()
    };
    let plain = policy(&rule(""));
    let config: ClientSideWeightedRoundRobin = plain.typed_config.unwrap().unpack().unwrap();
    assert_eq!(config.error_utilization_penalty, Some(1.5));
    assert_eq!(config.weight_update_period.unwrap().seconds, 2);
    assert_eq!(config.metric_names_for_computing_utilization, ["named_metrics.q"]);
    // Envoy takes weights of localities in one form only.
    let weighted =
        policy(&rule(", localityLbSetting: {distribute: [{from: 'a/*', to: {'a/*': 80, 'b/*': 20}}]}"));
    assert_eq!(weighted.name, "envoy.load_balancing_policies.wrr_locality");
}

#[test]
fn ways_into_a_network_are_those_of_its_load_balancer() {
    let service = |name: &str, port: u16, kind: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, \
             labels: {{topology.istio.io/network: n2}}}}\n\
             spec: {{type: {kind}, clusterIP: 10.0.0.7, externalIPs: [9.9.9.9], ports: [{{name: tls, port: {port}}}]}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.4}}, {{hostname: lb.example.com}}]}}}}\n---\n"
        )
    };
    let ways = |objects: &str| {
        let snapshot = snapshot(objects, &settings("", Features::default()));
        let all: Vec<String> =
            snapshot.networks.gateways("n2", "").iter().map(|gateway| gateway.address.to_string()).collect();
        let problems: Vec<String> = snapshot.problems.iter().map(ToString::to_string).collect();
        (all, problems)
    };
    let (all, problems) = ways(&service("ew", 15443, "LoadBalancer"));
    assert_eq!(all, ["1.2.3.4", "9.9.9.9"]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("ingress[1].hostname: \"lb.example.com\""), "{problems:?}");
    // A status that no longer holds, and a port that is not there.
    assert_eq!(ways(&service("ew", 15443, "ClusterIP")).0, ["9.9.9.9"]);
    let (none, problems) = ways(&service("ew", 1, "LoadBalancer"));
    assert!(none.is_empty() && problems[0].contains("has no port 15443"), "{problems:?}");
}

#[test]
fn a_workload_that_is_not_healthy_is_no_endpoint() {
    let entry = |name: &str, ip: &str, checks: &str, healthy: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}, namespace: default, \
             annotations: {{proxy.istio.io/health-checks-enabled: '{checks}'}}}}\n\
             spec: {{address: {ip}, labels: {{app: web}}}}\n\
             status: {{conditions: [{{type: Healthy, status: '{healthy}'}}]}}\n---\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: vm, namespace: default}\n\
                   spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}\n---\n";
    let objects = service.to_owned()
        + &entry("good", "10.5.0.1", "true", "True")
        + &entry("bad", "10.5.0.2", "true", "False")
        + &entry("unchecked", "10.5.0.3", "false", "False");
    let snapshot = snapshot(&objects, &settings("", Features::default()));
    let service = &snapshot.services[0];
    let all: Vec<&str> = service.endpoints_of(&service.ports[0]).map(|endpoint| &*endpoint.address).collect();
    assert_eq!(all, ["10.5.0.1", "10.5.0.3"]);
}
