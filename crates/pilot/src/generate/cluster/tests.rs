//! Facts that recorded answers do not show.

use std::sync::Arc;

use mesh::MeshConfig;
use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy};
use proto::envoy::config::core::v3::Node;
use proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;

use crate::generate::Side;
use crate::proxy::Proxy;
use crate::scope::{Scope, View};
use crate::snapshot::Snapshot;

/// Objects that all cases have: a service of two ports and one outside.
const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec:
  clusterIP: 10.0.0.1
  selector: {app: a}
  ports: [{name: http, port: 80}, {name: http-more, port: 81}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: default, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: http, port: 80}, {name: http-more, port: 81}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: default}
spec:
  hosts: [b.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  subjectAltNames: [spiffe://cluster.local/ns/x/sa/y, b.example.com]
";

const A: &str = "outbound|80||a.default.svc.cluster.local";
const B: &str = "outbound|80||b.example.com";

struct Case {
    mesh: &'static str,
    id: &'static str,
    metadata: &'static [(&'static str, &'static str)],
}

const SIDECAR: Case =
    Case { mesh: "", id: "sidecar~10.1.1.1~c.default~default.svc.cluster.local", metadata: &[] };

/// The shared clusters of a proxy.
fn clusters(case: &Case, rules: &str) -> Vec<Cluster> {
    let store = crate::testing::store(&format!("{OBJECTS}---\n{rules}"));
    let mesh = MeshConfig::from_yaml(case.mesh).unwrap();
    let snapshot = Snapshot::build(&store, &crate::Settings::new(Arc::new(mesh), "Kubernetes"));
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    let fields = case.metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    let metadata = Some(prost_types::Struct { fields });
    let proxy = Proxy::from_node(&Node { id: case.id.into(), metadata, ..Node::default() }).unwrap();
    let view = View::new(&snapshot, &proxy);
    super::side(Scope::new(&snapshot, &proxy, &view), Side::Shared)
}

fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: a, namespace: default}}\nspec: {spec}\n"
    )
}

fn named<'a>(clusters: &'a [Cluster], name: &str) -> &'a Cluster {
    clusters.iter().find(|cluster| cluster.name == name).unwrap_or_else(|| panic!("no cluster {name}"))
}

fn options(cluster: &Cluster) -> HttpProtocolOptions {
    cluster.typed_extension_protocol_options.values().next().unwrap().unpack().unwrap()
}

fn tls(cluster: &Cluster) -> UpstreamTlsContext {
    use proto::envoy::config::core::v3::transport_socket::ConfigType;
    match cluster.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref()) {
        Some(ConfigType::TypedConfig(config)) => config.unpack().unwrap(),
        None => panic!("{} has no TLS", cluster.name),
    }
}

fn max_connections(cluster: &Cluster) -> Option<u32> {
    cluster.circuit_breakers.as_ref()?.thresholds.first()?.max_connections
}

#[test]
fn settings_of_a_subsets_port_replace_all_blocks() {
    let pool = |number: u32| format!("connectionPool: {{tcp: {{maxConnections: {number}}}}}");
    let all = clusters(
        &SIDECAR,
        &rule(&format!(
            "{{host: a, trafficPolicy: {{{}, proxyProtocol: {{}}}}, subsets: [{{name: v1, trafficPolicy: \
             {{{}, portLevelSettings: [{{port: {{number: 81}}, loadBalancer: {{simple: RANDOM}}}}]}}}}]}}",
            pool(1),
            pool(2),
        )),
    );
    assert_eq!(max_connections(named(&all, A)), Some(1));
    assert_eq!(max_connections(named(&all, "outbound|80|v1|a.default.svc.cluster.local")), Some(2));
    let own = named(&all, "outbound|81|v1|a.default.svc.cluster.local");
    assert_eq!((max_connections(own), own.lb_policy()), (Some(u32::MAX), LbPolicy::Random));
    // What ports cannot set comes from the levels above.
    let matches = &own.transport_socket_matches;
    assert!(matches.iter().all(|matcher| {
        let socket = matcher.transport_socket.as_ref().unwrap();
        socket.name == "envoy.transport_sockets.upstream_proxy_protocol"
    }));
    assert_eq!(matches.len(), 2);
}

#[test]
fn the_meshs_policy_holds_where_a_rule_has_none() {
    let mesh = "
defaultTrafficPolicy:
  connectionPool: {tcp: {maxConnections: 7}}
  outlierDetection: {consecutive5xxErrors: 3}
outboundClusterStatName: '%SERVICE%_%SERVICE_PORT%_%SUBSET_NAME%'
";
    let case = Case { mesh, ..SIDECAR };
    let all = clusters(
        &case,
        &rule("{host: b.example.com, trafficPolicy: {connectionPool: {http: {maxRetries: 1}}}}"),
    );
    let a = named(&all, A);
    assert_eq!((max_connections(a), a.alt_stat_name.as_str()), (Some(7), "a.default_80_;"));
    assert!(a.outlier_detection.is_some());
    let b = named(&all, B);
    assert_eq!((max_connections(b), b.alt_stat_name.as_str()), (Some(u32::MAX), "b.example.com_80_;"));
    assert!(b.outlier_detection.is_some());
    assert_eq!(max_connections(named(&all, "PassthroughCluster")), Some(7));
}

#[test]
fn a_rule_of_passthrough_holds_for_its_subsets() {
    let all = clusters(
        &SIDECAR,
        &rule("{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}, subsets: [{name: v1}]}"),
    );
    for name in [A, "outbound|80|v1|a.default.svc.cluster.local"] {
        let cluster = named(&all, name);
        let kind = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into());
        assert_eq!(cluster.cluster_discovery_type, Some(kind), "{name}");
        assert_eq!(cluster.lb_policy(), LbPolicy::ClusterProvided, "{name}");
        assert!(cluster.eds_cluster_config.is_none() && cluster.lb_config.is_none(), "{name}");
    }
}

#[test]
fn a_subset_without_names_to_resolve_is_left_out() {
    let all = clusters(&SIDECAR, &rule("{host: b.example.com, subsets: [{name: v1, labels: {v: '1'}}]}"));
    assert!(named(&all, B).load_assignment.is_some());
    assert!(!all.iter().any(|cluster| cluster.name == "outbound|80|v1|b.example.com"));
}

#[test]
fn secrets_are_for_gateways_and_selected_workloads() {
    let spec = |more: &str| {
        rule(&format!(
            "{{host: b.example.com, {more} trafficPolicy: {{tls: {{mode: SIMPLE, credentialName: c}}}}}}"
        ))
    };
    let gateway = Case { id: "router~10.1.1.1~g.default~default.svc.cluster.local", ..SIDECAR };
    let has_tls = |case: &Case, more: &str| named(&clusters(case, &spec(more)), B).transport_socket.is_some();
    assert!(has_tls(&gateway, ""));
    assert!(!has_tls(&SIDECAR, ""));
    assert!(has_tls(&SIDECAR, "workloadSelector: {matchLabels: {}},"));
}

#[test]
fn names_of_a_service_entry_are_checked_in_all_trust_domains() {
    use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
    let case = Case { mesh: "trustDomainAliases: [old]", ..SIDECAR };
    let all = clusters(&case, &rule("{host: b.example.com, trafficPolicy: {tls: {mode: SIMPLE}}}"));
    let context = tls(named(&all, B)).common_tls_context.unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) = context.validation_context_type
    else {
        panic!("no validation")
    };
    #[allow(deprecated)]
    let names = combined.default_validation_context.unwrap().match_subject_alt_names;
    let wanted = ["b.example.com", "spiffe://cluster.local/ns/x/sa/y", "spiffe://old/ns/x/sa/y"];
    assert_eq!(names, wanted.map(crate::generate::tls::exact));
}

#[test]
fn header_names_keep_their_case_on_request() {
    let mesh = "defaultConfig: {proxyHeaders: {preserveHttp1HeaderCase: true}}";
    let all = clusters(&Case { mesh, ..SIDECAR }, &rule("{host: a}"));
    let made = format!("{:?}", options(named(&all, A)));
    assert!(made.contains("preserve_case"), "{made}");
    assert!(format!("{:?}", options(named(&all, "PassthroughCluster"))).contains("preserve_case"));
}

#[test]
fn hashing_has_the_size_that_is_asked_for() {
    let config = |hash: &str| {
        let spec = format!("{{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{{hash}}}}}}}}}");
        let all = clusters(&SIDECAR, &rule(&spec));
        let cluster = named(&all, A);
        (cluster.lb_policy(), cluster.lb_config.clone())
    };
    let ring = |config: Option<LbConfig>| match config {
        Some(LbConfig::RingHashLbConfig(ring)) => ring.minimum_ring_size,
        _ => None,
    };
    let (policy, made) = config("useSourceIp: true");
    assert_eq!((policy, ring(made)), (LbPolicy::RingHash, Some(1024)));
    let (policy, made) = config("useSourceIp: true, ringHash: {}");
    assert_eq!((policy, made), (LbPolicy::RingHash, None));
    let (policy, made) = config("useSourceIp: true, maglev: {tableSize: 65537}");
    assert!(matches!(made, Some(LbConfig::MaglevLbConfig(maglev)) if maglev.table_size == Some(65537)));
    assert_eq!(policy, LbPolicy::Maglev);
}

#[test]
fn a_proxys_own_certificates_stand_for_the_meshs() {
    let metadata = &[
        ("TLS_CLIENT_CERT_CHAIN", "/c.pem"),
        ("TLS_CLIENT_KEY", "/k.pem"),
        ("TLS_CLIENT_ROOT_CERT", "/r.pem"),
    ];
    let all = clusters(
        &Case { metadata, ..SIDECAR },
        &rule("{host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL, sni: s}}}"),
    );
    let context = tls(named(&all, A));
    assert_eq!(context.sni, "s");
    let names = context.common_tls_context.unwrap().tls_certificate_sds_secret_configs;
    assert_eq!(names[0].name, "file-cert:/c.pem~/k.pem");
}

/// `peers` in the metadata of a cluster.
fn peers(cluster: &Cluster) -> Option<&str> {
    use prost_types::value::Kind;
    match cluster.metadata.as_ref()?.filter_metadata["istio"].fields.get("peers")?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => panic!("{} has no text at peers", cluster.name),
    }
}

#[test]
fn clusters_whose_endpoints_tell_everything_say_so() {
    let with = Case { metadata: &[("TELEMETRY_MODULE", "1")], ..SIDECAR };
    let of_gateway = Case { metadata: with.metadata, id: "router~10.1.1.1~c.default~d.local", ..SIDECAR };
    let passthrough = rule("{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}");
    let tls = |mode: &str| rule(&format!("{{host: a, trafficPolicy: {{tls: {{mode: {mode}}}}}}}"));
    for (case, rules, name, says) in [
        (&with, String::new(), A, true),
        (&with, tls("ISTIO_MUTUAL"), A, true),
        (&of_gateway, String::new(), A, true),
        // Without the module nobody reads it.
        (&SIDECAR, String::new(), A, false),
        // Who serves there, istiod does not know.
        (&with, tls("SIMPLE"), A, false),
        (&with, passthrough, A, false),
        (&with, String::new(), B, false),
    ] {
        let all = clusters(case, &rules);
        assert_eq!(peers(named(&all, name)).is_some(), says, "{name} {rules}");
    }
}

#[test]
fn the_short_form_is_for_servers_that_all_have_the_module() {
    let with = Case { metadata: &[("TELEMETRY_MODULE", "1")], ..SIDECAR };
    let pod = |number: u8, labels: &str, annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a{number}, namespace: default, \
             labels: {{app: a{labels}}}, annotations: {{{annotations}}}}}\n\
             spec: {{containers: [{{name: a}}]}}\nstatus: {{phase: Running, podIP: 10.1.0.{number}}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: a{number}, namespace: default, labels: {{kubernetes.io/service-name: a}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [10.1.0.{number}], \
             targetRef: {{kind: Pod, name: a{number}, namespace: default}}}}]\n\
             ports: [{{name: http, port: 80}}]\n---\n"
        )
    };
    let sidecar = ", security.istio.io/tlsMode: istio";
    let ours = pod(2, sidecar, "sidecar.istio.io/peerMetadata: short");
    let without_sidecar = pod(3, "", "");
    let istios = pod(4, sidecar, "");
    for (pods, says) in [
        (ours.clone(), "short"),
        (format!("{ours}{without_sidecar}"), "short"),
        (format!("{ours}{istios}"), "named"),
    ] {
        assert_eq!(peers(named(&clusters(&with, &pods), A)), Some(says), "{pods}");
    }
}
