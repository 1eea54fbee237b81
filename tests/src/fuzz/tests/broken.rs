//! One broken object of each kind beside good ones: what the good ones make is
//! there all the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::{Kind, Store, yaml};
use pilot::Settings;

use super::*;

/// Objects of a small mesh with a gateway.
const GOOD: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {app: db}, ports: [{name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.0.0.3, selector: {app: edge}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {containers: [{name: web, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.1.0.1, phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {app: edge}}
spec: {containers: [{name: edge}]}
status: {podIP: 10.1.0.3, phase: Running}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: http, port: 8080}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec: {hosts: [api.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec: {hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}
---
";

/// Content that the rules of each kind refuse; of kinds without rules one that
/// cannot be read at all.
const BROKEN: &[(Kind, &str)] = &[
    (Kind::Service, "spec: {clusterIP: 10.0.0.9, ports: [{name: http, port: 0}, {name: http, port: 80}]}"),
    (Kind::EndpointSlice, "addressType: IPv4\nendpoints: [{addresses: [nonsense]}]\nports: [{port: 1}]"),
    (Kind::Endpoints, "subsets: [{addresses: [{ip: nonsense}], ports: [{port: 1}]}]"),
    (Kind::Pod, "spec: 5"),
    (Kind::Node, "status: {"),
    (Kind::Namespace, "status: {"),
    (Kind::ServiceAccount, "secrets: ["),
    (Kind::Secret, "data: {tls.crt: '!', tls.key: '!'}"),
    (Kind::ConfigMap, "data: {ca.crt: nonsense, other: [1]}"),
    (
        Kind::ServiceEntry,
        "spec: {hosts: ['bad host'], ports: [{number: 0, name: http, protocol: HTTP}], resolution: STATIC}",
    ),
    (Kind::WorkloadEntry, "spec: {labels: {app: web}}"),
    (
        Kind::VirtualService,
        "spec: {hosts: [web], http: [{route: [{destination: {host: web}, weight: -1}], fault: {delay: {percentage: {value: 101}}}}]}",
    ),
    (
        Kind::DestinationRule,
        "spec: {host: web, trafficPolicy: {outlierDetection: {interval: 1ns}, connectionPool: {tcp: {maxConnections: -1}}}}",
    ),
    (Kind::WorkloadGroup, "spec: {metadata: {labels: {'bad key!': x}}}"),
    (
        Kind::Gateway,
        "spec: {selector: {app: edge}, servers: [{port: {number: 70000, name: http, protocol: NONSENSE}, hosts: ['a/b/c']}]}",
    ),
    (Kind::Sidecar, "spec: {egress: [{hosts: ['*/*', 'a/b/c', '']}], ingress: [{port: {number: 0}}]}"),
    (
        Kind::EnvoyFilter,
        "spec: {configPatches: [{applyTo: CLUSTER, patch: {operation: MERGE, value: {nonsense: {a: 1}, connect_timeout: soon}}}]}",
    ),
    (Kind::ProxyConfig, "spec: {concurrency: -1, environmentVariables: {a: 1}}"),
    (Kind::PeerAuthentication, "spec: {portLevelMtls: {0: {mode: STRICT}}, mtls: {mode: PERMISSIVE}}"),
    (Kind::RequestAuthentication, "spec: {jwtRules: [{issuer: '', jwks: '{}', jwksUri: 'nonsense'}]}"),
    (
        Kind::AuthorizationPolicy,
        "spec: {action: CUSTOM, rules: [{to: [{operation: {ports: [x]}}], when: [{key: nonsense, values: [a]}]}]}",
    ),
    (
        Kind::Telemetry,
        "spec: {accessLogging: [{filter: {expression: '((('}}], tracing: [{randomSamplingPercentage: 200}]}",
    ),
    (Kind::WasmPlugin, "spec: {url: 'ftp://x', sha256: short, phase: AUTHN}"),
    (Kind::TrafficExtension, "spec: {wasm: {url: 'ftp://x'}}"),
];

fn document(kind: Kind, content: &str) -> String {
    let group = kind.group();
    let separator = if group.is_empty() { "" } else { "/" };
    let version = kind.versions()[0];
    let namespace = if kind.is_namespaced() { ", namespace: shop" } else { "" };
    format!(
        "---\napiVersion: {group}{separator}{version}\nkind: {kind}\n\
         metadata: {{name: broken{namespace}}}\n{content}\n"
    )
}

fn store(contents: yaml::Contents) -> Store {
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    store
}

/// What a sidecar and a gateway get, by type and name.
fn served(store: &Store) -> BTreeMap<(String, String), xds::Resource> {
    let snapshot = Snapshot::build(store, &Settings::new(Arc::default(), "Kubernetes"));
    let proxy = |kind, ip, pod| {
        let id = format!("{kind}~{ip}~{pod}.shop~shop.svc.cluster.local");
        Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
    };
    let mut served = BTreeMap::new();
    for proxy in [proxy("sidecar", "10.1.0.1", "web-1"), proxy("router", "10.1.0.3", "edge-1")] {
        for type_url in [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Route, TypeUrl::Endpoint] {
            let wanted = match type_url {
                TypeUrl::Route | TypeUrl::Endpoint => Wanted::Names(asked(&snapshot, &proxy, &type_url)),
                _ => Wanted::All,
            };
            for resource in pilot::generate(&snapshot, &proxy, &type_url, &wanted) {
                let of = format!("{:?} {}", proxy.kind, type_url.short());
                served.insert((of, resource.name.to_string()), resource);
            }
        }
    }
    served
}

#[test]
fn there_is_a_broken_object_of_every_kind() {
    let kinds: BTreeSet<Kind> = BROKEN.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, Kind::ALL.iter().copied().collect());
}

#[test]
fn a_broken_object_is_told_and_takes_nothing_from_the_others() {
    let good = served(&store(yaml::read("good.yaml", GOOD)));
    let has = |of: &str| good.keys().any(|(kind, _)| kind.starts_with(of));
    for of in ["Sidecar CDS", "Sidecar LDS", "Sidecar RDS", "Sidecar EDS", "Router LDS", "Router RDS"] {
        assert!(has(of), "{of}: {:?}", good.keys());
    }
    for (kind, content) in BROKEN {
        let text = format!("{GOOD}{}", document(*kind, content));
        // Whoever starts with it serves what he would serve without it.
        let contents = yaml::read("all.yaml", &text);
        let told = contents.problems.iter().any(|problem| problem.severity == Severity::Error);
        assert!(told, "{kind} is not refused");
        let is_there = contents.objects.iter().any(|object| &*object.key.name == "broken");
        assert!(!is_there, "{kind} is in force");
        assert!(served(&store(contents)) == good, "{kind} changes what the others make");

        // The same where nobody has refused it: of an API server without our webhook.
        let unchecked = served(&store(yaml::read_unchecked("all.yaml", &text)));
        let lost: Vec<_> = good.keys().filter(|key| !unchecked.contains_key(*key)).collect();
        assert!(lost.is_empty(), "{kind} takes away {lost:?}");
    }
}
