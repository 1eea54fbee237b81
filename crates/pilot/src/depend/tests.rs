use config::Store;

use super::*;
use crate::Settings;

fn settings() -> Settings {
    Settings::new(Arc::default(), "Kubernetes")
}

fn snapshot(text: &str, settings: &Settings) -> (Store, Snapshot) {
    let store = crate::testing::store(text);
    let snapshot = Snapshot::build(&store, settings);
    (store, snapshot)
}

/// The parts that a change of everything in one text to another touches, for a namespace.
fn touched(old: &str, new: &str, namespace: &str) -> Vec<Part> {
    touched_with(&settings(), old, new, namespace)
}

fn touched_with(settings: &Settings, old: &str, new: &str, namespace: &str) -> Vec<Part> {
    let ((old_store, old), (new_store, new)) = (snapshot(old, settings), snapshot(new, settings));
    let keys: BTreeSet<Key> =
        old_store.objects().chain(new_store.objects()).map(|object| object.key.clone()).collect();
    let changes: Vec<Change> = keys
        .into_iter()
        .map(|key| Change { old: old_store.object(&key).cloned(), new: new_store.object(&key).cloned(), key })
        .filter(|change| change.old != change.new)
        .collect();
    let stamps = Stamps::new(1).advance(2, &old, &new, &changes);
    ALL.iter().copied().filter(|part| stamps.of(*part, namespace) == 2).collect()
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}
";

#[test]
fn a_private_object_concerns_its_namespace() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: default}
spec: {hosts: [a], exportTo: [EXPORT], http: [{route: [{destination: {host: a}}]}]}
";
    let private = rule.replace("EXPORT", "'.'");
    assert!(touched("", &private, "default").contains(&Part::Routes));
    assert!(touched("", &private, "other").is_empty());
    assert!(touched("", &rule.replace("EXPORT", "'*'"), "other").contains(&Part::Routes));
    // Who saw it before is concerned by its going.
    assert!(touched(&rule.replace("EXPORT", "other"), &private, "other").contains(&Part::Routes));
}

#[test]
fn a_destination_rule_concerns_whom_it_is_for() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d, namespace: default}
spec: {host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
";
    let touched = |mesh: &str, rule: &str, namespace: &str| {
        let config = mesh::MeshConfig::from_yaml(mesh).unwrap();
        let settings = Settings::new(Arc::new(config), "Kubernetes");
        // Whoever follows it is marked.
        let (_, with) = snapshot(&format!("{SERVICE}---{rule}"), &settings);
        let host = Hostname::new("a.default.svc.cluster.local");
        let is_followed = with.destination_rules.find(namespace, &host, "default").is_some();
        let is_touched = touched_with(&settings, "", rule, namespace).contains(&Part::Clusters);
        assert!(is_touched || !is_followed, "{mesh:?} {rule} {namespace}");
        is_touched
    };
    let all = "{}";
    assert!(touched(all, rule, "other"));
    // Names of namespaces there keep nobody out, as with Istio.
    let some = "{defaultDestinationRuleExportTo: [some]}";
    assert!(touched(some, rule, "other") && touched(some, rule, "default"));
    let own = "{defaultDestinationRuleExportTo: [.]}";
    assert!(touched(own, rule, "default") && !touched(own, rule, "other"));
    let said = rule.replace("host: a", "host: a, exportTo: [some]");
    assert!(touched(own, &said, "some") && !touched(own, &said, "other"));
    let selects = rule.replace("host: a", "host: a, workloadSelector: {matchLabels: {a: b}}");
    assert!(touched(all, &selects, "default") && !touched(all, &selects, "other"));
}

#[test]
fn a_server_of_keys_that_comes_into_the_mesh_concerns_who_has_keys_from_it() {
    let policy = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: p, namespace: shop}
spec: {jwtRules: [{issuer: i, jwksUri: 'http://a.default.svc.cluster.local/keys'}]}
---";
    let touched = |key_fetch, namespace| {
        let mut settings = settings();
        settings.features.key_fetch = key_fetch;
        touched_with(&settings, policy, &format!("{policy}{SERVICE}"), namespace)
    };
    assert!(touched(KeyFetch::Hybrid, "shop").contains(&Part::OwnListeners));
    assert!(!touched(KeyFetch::Hybrid, "other").contains(&Part::OwnListeners));
    for other in [KeyFetch::Istiod, KeyFetch::Envoy] {
        assert!(!touched(other, "shop").contains(&Part::OwnListeners), "{other:?}");
    }
}

#[test]
fn what_is_in_the_root_namespace_concerns_everybody() {
    let policy = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: istio-system}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}
";
    assert_eq!(touched("", policy, "any"), [Part::OwnListeners, Part::Gateways]);
    assert!(touched("", &policy.replace("istio-system", "other"), "any").is_empty());
}

#[test]
fn a_service_that_changes_touches_what_names_it() {
    let other = SERVICE.replace("port: 80", "port: 81");
    let touched = touched(SERVICE, &other, "elsewhere");
    for part in [Part::Clusters, Part::Listeners, Part::Routes, Part::Names] {
        assert!(touched.contains(&part), "{part:?}");
    }
    assert!(!touched.contains(&Part::OwnListeners) && !touched.contains(&Part::Endpoints));
}

#[test]
fn what_clusters_know_of_pods_touches_clusters() {
    let pod = |annotation: &str| {
        format!(
            "{SERVICE}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: default, \
             labels: {{app: a, security.istio.io/tlsMode: istio}}, annotations: {{{annotation}}}}}\n\
             spec: {{containers: [{{name: a}}]}}\nstatus: {{phase: Running, podIP: 10.1.0.1}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: a, namespace: default, labels: {{kubernetes.io/service-name: a}}}}\n\
             addressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [10.1.0.1], \
             targetRef: {{kind: Pod, name: a, namespace: default}}}}]\n"
        )
    };
    let reads_short = pod("sidecar.istio.io/peerMetadata: short");
    assert!(touched(&reads_short, &pod(""), "elsewhere").contains(&Part::Clusters));
    let same = pod("sidecar.istio.io/peerMetadata: short, other: x");
    assert!(!touched(&reads_short, &same, "elsewhere").contains(&Part::Clusters));
}

#[test]
fn hosts_are_remembered_one_by_one_up_to_a_bound() {
    let mut stamps = Stamps::new(1);
    for serial in 2..10 {
        stamps.serial = serial;
        stamps.host_changed(&Hostname::new(&format!("h{serial}")));
    }
    let since: Vec<&Hostname> = stamps.hosts_since(7).unwrap().collect();
    assert_eq!(since, [&Hostname::new("h9"), &Hostname::new("h8")]);
    assert_eq!((stamps.host("h5"), stamps.host("none")), (5, 0));
    for serial in 10..10 + RECENT as u64 {
        stamps.serial = serial;
        stamps.host_changed(&Hostname::new("again"));
    }
    assert!(stamps.hosts_since(7).is_none());
    assert!(stamps.hosts_since(9).is_some());
}

#[test]
fn namespaces_are_remembered_one_by_one_up_to_a_bound() {
    let mut stamps = Stamps::new(1);
    let mark = |stamps: &mut Stamps, serial: u64| {
        stamps.serial = serial;
        let namespaces = Audience::Namespaces(vec![format!("n{serial}")]);
        stamps.mark(&[Part::Routes], &namespaces);
        stamps.forget_namespaces(0);
    };
    (2..10).for_each(|serial| mark(&mut stamps, serial));
    assert_eq!((stamps.of(Part::Routes, "n5"), stamps.of(Part::Routes, "other")), (5, 1));
    let last = 3 * FEW_NAMESPACES as u64;
    (10..=last).for_each(|serial| mark(&mut stamps, serial));
    assert!(stamps.namespaces.len() <= FEW_NAMESPACES);
    assert_eq!(stamps.of(Part::Routes, &format!("n{last}")), last);
    // What is forgotten may have changed as late as any of the forgotten.
    assert!(stamps.of(Part::Routes, "n9") >= 9 && stamps.of(Part::Clusters, "n9") == 1);
}
