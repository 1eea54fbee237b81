use std::collections::BTreeMap;

use config::Spec;
use config::yaml;
use proptest::prelude::*;
use prost_types::Struct;
use prost_types::value::Kind;
use proto::envoy::config::core::v3::Node;

use super::*;

const TEMPLATE: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: vms}
spec:
  metadata:
    labels: {app: web, from: metadata}
    annotations: {note: x}
  template:
    serviceAccount: web
    network: of-template
    locality: a/b
    weight: 7
    ports: {http: 8080}
    labels: {from: template, only: template}
";

fn template() -> WorkloadGroup {
    let contents = yaml::read("a.yaml", TEMPLATE);
    assert!(contents.problems.is_empty(), "{:?}", contents.problems);
    let Spec::WorkloadGroup(group) = contents.objects.into_iter().next().unwrap().spec else { panic!() };
    *group
}

fn value(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(key, json)| (key.clone(), value(json))).collect(),
        }),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        other => Kind::StringValue(other.as_str().unwrap_or_default().to_owned()),
    };
    prost_types::Value { kind: Some(kind) }
}

fn proxy(metadata: &Value, locality: Option<Locality>) -> Proxy {
    let Some(Kind::StructValue(metadata)) = value(metadata).kind else { panic!() };
    let node = Node {
        id: "sidecar~10.0.0.7~web-1.vms~vms.svc.cluster.local".into(),
        metadata: Some(metadata),
        locality,
        ..Node::default()
    };
    Proxy::from_node(&node).unwrap()
}

#[test]
fn an_entry_is_the_template_with_what_is_the_workloads_own() {
    let place = Locality { region: "r".into(), zone: "z".into(), sub_zone: String::new() };
    let metadata = json!({
        "AUTO_REGISTER_GROUP": "web", "NAMESPACE": "vms", "NETWORK": "own", "INSTANCE_IPS": "10.0.0.9,fd00::9",
        "LABELS": {"from": "node", "istio-locality": "r/z"},
        "PROXY_CONFIG": {"readinessProbe": {"httpGet": {"port": 8080}}},
    });
    let proxy = proxy(&metadata, Some(place));
    assert_eq!(group(&proxy), Some("web"));
    let made = Registered::new("web", &template(), &proxy);
    assert_eq!((made.namespace.as_str(), made.name.as_str()), ("vms", "web-10.0.0.9-own"));
    let spec = &made.spec;
    assert_eq!((spec.address.as_str(), spec.network.as_str()), ("10.0.0.9", "own"));
    assert_eq!((spec.locality.as_str(), spec.service_account.as_str(), spec.weight), ("r/z", "web", 7));
    let labels: BTreeMap<String, String> = [("app", "web"), ("from", "node"), ("only", "template")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    assert_eq!(spec.labels, labels);
    let object = made.to_json().unwrap();
    assert_eq!(object["metadata"]["labels"], json!(labels));
    assert_eq!(
        object["metadata"]["annotations"],
        json!({"istio.io/autoRegistrationGroup": "web", "note": "x", "proxy.istio.io/health-checks-enabled": "true"})
    );
    assert_eq!(
        object["metadata"]["ownerReferences"],
        json!([{"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "name": "web", "controller": true}])
    );
    assert_eq!(object["spec"]["ports"], json!({"http": 8080}));
}

#[test]
fn what_the_workload_does_not_say_is_the_templates() {
    let proxy = proxy(&json!({"AUTO_REGISTER_GROUP": "web"}), Some(Locality::default()));
    let made = Registered::new("web", &template(), &proxy);
    assert_eq!((made.spec.network.as_str(), made.spec.locality.as_str()), ("of-template", "a/b"));
    assert_eq!((made.spec.address.as_str(), made.name.as_str()), ("10.0.0.7", "web-10.0.0.7"));
    assert_eq!(made.spec.labels["from"], "metadata");
    assert_eq!(made.annotations.get(annotation::HEALTH_CHECKS), None);
    // A group that says nothing makes an entry all the same.
    assert_eq!(Registered::new("web", &WorkloadGroup::default(), &proxy).spec.address, "10.0.0.7");
}

#[test]
fn a_name_is_one_that_an_object_can_have() {
    let of = |group: &str, ips: &str, network: &str| {
        let metadata = json!({"INSTANCE_IPS": ips, "NETWORK": network});
        name(group, &proxy(&metadata, None))
    };
    assert_eq!(of("web", "2001:db8::1", ""), "web-2001-db8--1");
    assert_eq!(of("web", "10.0.0.9,nonsense", "n"), "web-10.0.0.7-n");
    let long = of(&"x".repeat(300), "10.0.0.9", "n");
    assert_eq!((long.len(), long.ends_with("x-10.0.0.9-n")), (253, true));
}

#[test]
fn a_place_is_known_from_the_left() {
    let joined = |region: &str, zone: &str, sub_zone: &str| {
        place(&Locality { region: region.into(), zone: zone.into(), sub_zone: sub_zone.into() })
    };
    assert_eq!(joined("r", "z", "s"), "r/z/s");
    assert_eq!((joined("r", "", "s"), joined("", "", "")), ("r".into(), String::new()));
    assert_eq!(joined("", "z", ""), "/z");
}

proptest! {
    #[test]
    fn no_node_makes_it_panic(group in "\\PC{0,400}", ips in "[0-9a-f:., ]{0,40}", network in "\\PC{0,20}") {
        let metadata = json!({"AUTO_REGISTER_GROUP": group, "INSTANCE_IPS": ips, "NETWORK": network});
        let proxy = proxy(&metadata, None);
        let made = Registered::new(&group, &template(), &proxy);
        prop_assert!(made.name.len() <= 253);
        prop_assert!(made.to_json().is_ok());
    }
}
