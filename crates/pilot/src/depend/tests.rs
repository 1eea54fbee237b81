use config::{Store, yaml};

use super::*;
use crate::Settings;

fn snapshot(text: &str) -> (Store, Snapshot) {
    let contents = yaml::read("mesh.yaml", text);
    assert!(!contents.has_errors(), "{:?}", contents.problems);
    let mut store = Store::default();
    for object in contents.objects {
        store.apply(Arc::new(object));
    }
    let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
    (store, snapshot)
}

/// The parts that a change of everything in one text to another touches, for a namespace.
fn touched(old: &str, new: &str, namespace: &str) -> Vec<Part> {
    let ((old_store, old), (new_store, new)) = (snapshot(old), snapshot(new));
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
