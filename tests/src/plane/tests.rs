//! Whatever changes in whatever order, proxies of both protocol variants end
//! with what translation says of the last state, and with nothing else.

use std::collections::BTreeMap;

use config::yaml;
use proptest::prelude::*;
use proto::envoy::config::core::v3::Node;
use xds::Variant;

use super::*;

/// What there is always: the proxy's own pod and service.
const BASE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default, labels: {app: client}}
spec: {serviceAccountName: client, containers: [{name: app, image: app}]}
status: {phase: Running, podIP: 10.1.0.10, podIPs: [{ip: 10.1.0.10}]}
---
apiVersion: v1
kind: Service
metadata: {name: client, namespace: default}
spec: {clusterIP: 10.0.0.9, selector: {app: client}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// An object of a few, in one of a few forms.
fn object(kind: usize, name: usize, form: usize) -> String {
    let namespace = ["default", "other", "istio-system"][name % 3];
    let meta = format!("metadata: {{name: o{name}, namespace: {namespace}}}");
    let host = format!("o{name}.{namespace}.svc.cluster.local");
    match kind {
        0 => {
            let port = 80 + form;
            let protocol = ["http", "tcp", "auto"][(name + form) % 3];
            let ip = if form == 2 { "None".to_owned() } else { format!("10.0.1.{name}") };
            format!(
                "apiVersion: v1\nkind: Service\n{meta}\nspec: {{clusterIP: {ip}, selector: {{app: o{name}}}, \
                 ports: [{{name: {protocol}, port: {port}}}]}}\n"
            )
        }
        1 => {
            let addresses: Vec<String> =
                (0..form).map(|index| format!("{{addresses: [10.1.{name}.{index}]}}")).collect();
            let ports: Vec<String> =
                ["http", "tcp", "auto"].map(|name| format!("{{name: {name}, port: 80}}")).to_vec();
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: o{name}, namespace: \
                 {namespace}, labels: {{kubernetes.io/service-name: o{name}}}}}\naddressType: IPv4\nendpoints: \
                 [{}]\nports: [{}]\n",
                addresses.join(", "),
                ports.join(", ")
            )
        }
        2 => format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n{meta}\nspec: {{hosts: [{host}], exportTo: \
             ['{}'], http: [{{timeout: {}s, route: [{{destination: {{host: {host}}}}}]}}]}}\n",
            if form == 2 { "." } else { "*" },
            form + 1
        ),
        3 => format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n{meta}\nspec: {{host: {host}, subsets: \
             [{{name: v{form}, labels: {{version: v{form}}}}}]}}\n"
        ),
        4 => format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{meta}\nspec: {{mtls: {{mode: {}}}}}\n",
            ["STRICT", "DISABLE", "PERMISSIVE"][form]
        ),
        5 => format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: \
             {namespace}}}\nspec: {{egress: [{{hosts: ['{}']}}]}}\n",
            ["./*", "*/*", "other/*"][form]
        ),
        6 => format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{meta}\nspec: {{action: DENY, rules: \
             [{{to: [{{operation: {{ports: ['{}']}}}}]}}]}}\n",
            8080 + form
        ),
        7 => format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n{meta}\nspec: {{hosts: [e{name}.example.com], \
             resolution: STATIC, ports: [{{number: {}, name: http, protocol: HTTP}}], endpoints: [{{address: \
             1.2.3.{form}}}]}}\n",
            80 + form
        ),
        _ => format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{name}, namespace: {namespace}, labels: {{app: o{name}, \
             version: v{form}, security.istio.io/tlsMode: istio}}}}\nspec: {{serviceAccountName: sa{form}, \
             containers: [{{name: app, image: app}}]}}\nstatus: {{phase: Running, podIP: 10.1.{name}.0, podIPs: \
             [{{ip: 10.1.{name}.0}}], conditions: [{{type: Ready, status: 'True'}}]}}\n"
        ),
    }
}

fn read(text: &str) -> Vec<Object> {
    let contents = yaml::read("random.yaml", text);
    assert!(!contents.has_errors(), "{text}\n{:?}", contents.problems);
    contents.objects
}

fn proxy(pod: &str, ip: &str, namespace: &str) -> pilot::Proxy {
    let id = format!("sidecar~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local");
    pilot::Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
}

#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    name: usize,
    form: usize,
    is_deleted: bool,
    /// Whether the proxies are told at once, and not with the next change.
    is_pushed: bool,
}

fn step() -> impl Strategy<Value = Step> {
    (0..9_usize, 0..4_usize, 0..3_usize, prop::bool::weighted(0.2), prop::bool::weighted(0.7)).prop_map(
        |(kind, name, form, is_deleted, is_pushed)| Step { kind, name, form, is_deleted, is_pushed },
    )
}

const EDS: fn(&str) -> bool = |name| name.starts_with("outbound|");

/// One that pushes are left out for now and then is told all at its next.
#[derive(Debug)]
struct Proxies(BTreeMap<&'static str, Simulated>);

impl Proxies {
    fn connect(plane: &Plane) -> Self {
        let connect = |proxy, variant| Simulated::connect(plane, proxy, variant, EDS, &["80", "81"]).unwrap();
        let here = || proxy("client", "10.1.0.10", "default");
        Self(BTreeMap::from([
            ("delta", connect(here(), Variant::Delta)),
            ("state of the world", connect(here(), Variant::Sotw)),
            ("of another namespace", connect(proxy("x", "10.9.0.1", "other"), Variant::Delta)),
        ]))
    }

    fn push(&mut self, plane: &Plane) {
        self.0.values_mut().for_each(|proxy| proxy.push(plane).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_variants_end_with_what_translation_says(steps in prop::collection::vec(step(), 1..24)) {
        let settings = Settings::new(Arc::default(), "Kubernetes");
        let mut plane = Plane::new(&settings, read(BASE));
        let mut proxies = Proxies::connect(&plane);
        for step in &steps {
            let objects = read(&object(step.kind, step.name, step.form));
            let keys: Vec<Key> = objects.iter().map(|object| object.key.clone()).collect();
            if step.is_deleted {
                plane.change(Vec::new(), &keys);
            } else {
                plane.change(objects, &[]);
            }
            if step.is_pushed {
                proxies.push(&plane);
            }
        }
        proxies.push(&plane);
        for (name, proxy) in &proxies.0 {
            prop_assert_eq!(proxy.difference(&plane), None, "{}: {:?}", name, &steps);
        }
        let (delta, sotw) = (&proxies.0["delta"].state, &proxies.0["state of the world"].state);
        prop_assert_eq!(delta, sotw);
        // And nothing is sent when nothing has changed.
        for proxy in proxies.0.values_mut() {
            proxy.take();
            proxy.push(&plane).unwrap();
            prop_assert_eq!(proxy.take(), vec![]);
        }
        // The same objects in any other order are the same snapshot.
        let again = Plane::new(&settings, plane.store.objects().map(|object| (**object).clone()));
        for type_url in [names::TypeUrl::Cluster, names::TypeUrl::Listener, names::TypeUrl::NameTable] {
            let of = |plane: &Plane| {
                pilot::generate(
                    &plane.snapshot,
                    &proxy("client", "10.1.0.10", "default"),
                    &type_url,
                    &xds::session::Wanted::All,
                )
            };
            prop_assert_eq!(of(&plane), of(&again));
        }
    }
}

/// A change reaches the proxies that depend on it, and no other.
#[test]
fn a_change_reaches_those_who_depend_on_it() {
    let settings = Settings::new(Arc::default(), "Kubernetes");
    let mut plane = Plane::new(&settings, read(BASE));
    let mut proxies = Proxies::connect(&plane);
    let mut reached = |plane: &mut Plane, text: &str| -> Vec<&'static str> {
        plane.change(read(text), &[]);
        proxies.0.values_mut().for_each(|proxy| drop(proxy.take()));
        proxies.push(plane);
        proxies.0.iter_mut().filter_map(|(name, proxy)| (!proxy.take().is_empty()).then_some(*name)).collect()
    };
    let everybody = ["delta", "of another namespace", "state of the world"];
    let here = ["delta", "state of the world"];
    assert_eq!(reached(&mut plane, &object(0, 0, 0)), everybody, "a service");
    assert_eq!(reached(&mut plane, &object(1, 0, 2)), everybody, "its endpoints");
    assert_eq!(reached(&mut plane, &object(6, 0, 0)), here, "a policy of their namespace");
    assert_eq!(reached(&mut plane, &object(2, 0, 2)), here, "a private VirtualService");
    assert_eq!(reached(&mut plane, &object(5, 1, 1)), [] as [&str; 0], "a Sidecar that changes nothing");
    assert_eq!(reached(&mut plane, &object(5, 1, 2)), ["of another namespace"], "a Sidecar");
    assert_eq!(reached(&mut plane, &object(1, 0, 1)), here, "endpoints that one does not see any more");
}
