use std::collections::BTreeSet;
use std::sync::Arc;

use proto::envoy::config::core::v3::Node;

use super::*;
use crate::finding::Notes;
use crate::settings::Settings;

const OBJECTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: a, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: false}, targetRef: {kind: Pod, name: web-1}}
- {addresses: [10.1.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: gone, namespace: a}}
- {addresses: [10.1.0.3], targetRef: {kind: Node, name: node-1}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: a}
status: {podIP: 10.1.0.1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: old, namespace: a, creationTimestamp: '2024-01-01T00:00:00Z'}
spec: {host: web, subsets: [{name: v1}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: new, namespace: a, creationTimestamp: '2024-01-02T00:00:00Z'}
spec: {host: web, subsets: [{name: v2}, {name: v1}]}
";

fn survey() -> Survey {
    let store = crate::testing::store(OBJECTS);
    let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "c"));
    Survey::new(&store, &snapshot)
}

fn proxy(ip: &str) -> Proxy {
    let id = format!("sidecar~{ip}~web-1.a~a.svc.cluster.local");
    Proxy::from_node(&Node { id, ..Node::default() }).unwrap()
}

#[test]
fn objects_tell_of_subsets_that_stand_twice_and_of_pods_that_are_not_there() {
    let findings = survey().findings;
    let [subset, pod] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((subset.topic, subset.key.as_str()), (Topic::DuplicateSubset, "web.a.svc.cluster.local"));
    assert_eq!(subset.object.as_ref().unwrap().to_string(), "DestinationRule a/new");
    assert!(subset.message.contains("\"v1\"") && !subset.message.contains("v2"), "{subset:?}");
    assert_eq!((pod.topic, pod.key.as_str()), (Topic::NoPod, "web.a.svc.cluster.local"));
    assert_eq!(pod.message, "10.1.0.2");
}

#[test]
fn a_proxy_whose_workload_is_not_ready_is_told() {
    let survey = survey();
    let finding = survey.of_proxy(&proxy("10.1.0.1")).unwrap();
    assert_eq!((finding.topic, finding.key.as_str()), (Topic::NotReady, "web-1.a"));
    assert_eq!(survey.of_proxy(&proxy("10.1.0.2")), None);
}

#[test]
fn of_each_key_the_first_is_noted_and_no_more_than_can_be_read() {
    let notes = Notes::default();
    notes.add(Topic::NoEndpoints, "a".into(), None, || "one".into());
    notes.add(Topic::NoEndpoints, "a".into(), None, || panic!("not asked for"));
    for index in 0..2000 {
        notes.add(Topic::DuplicateDomain, format!("{index:05}"), None, String::new);
    }
    let all = notes.take("web-1.a");
    assert_eq!(all.len(), 1000);
    let first = all.iter().find(|finding| finding.topic == Topic::NoEndpoints).unwrap();
    assert_eq!((first.message.as_str(), first.proxy.as_str()), ("one", "web-1.a"));
}

#[test]
fn each_topic_has_a_metric_of_its_own() {
    let names: BTreeSet<&str> = Topic::ALL.iter().map(|topic| topic.metric()).collect();
    assert_eq!(names.len(), Topic::ALL.len());
}
