use serde_json::{Value, json};

use super::super::Options;
use super::super::object::decode;
use super::super::selectors::Selector;
use super::*;

fn seen(kind: Kind, value: Value) -> Seen {
    decode(kind, value, &Options { revision: String::new(), cluster: "c".into(), namespace: None })
}

fn namespace(name: &str, labels: &Value) -> Seen {
    seen(Kind::Namespace, json!({"metadata": {"name": name, "labels": labels}}))
}

fn rule(namespace: &str, name: &str, host: &str) -> Seen {
    let metadata = json!({"name": name, "namespace": namespace, "resourceVersion": host.len().to_string()});
    seen(Kind::DestinationRule, json!({"metadata": metadata, "spec": {"host": host}}))
}

fn cluster(selectors: Selectors) -> Cluster {
    Cluster::new(vec![Kind::Namespace, Kind::DestinationRule], selectors)
}

fn names(update: &Update) -> (Vec<String>, Vec<String>) {
    let applied = update.apply.iter().map(|object| object.key.to_string()).collect();
    (applied, update.delete.iter().map(ToString::to_string).collect())
}

#[test]
fn is_whole_when_every_kind_was_listed() {
    let mut cluster = cluster(Selectors::new());
    cluster.take(Kind::DestinationRule, Event::Listed(vec![rule("n", "a", "a.b")]));
    assert!(!cluster.is_synced());
    cluster.take(Kind::Namespace, Event::Listed(Vec::new()));
    assert!(cluster.is_synced());
    assert_eq!(names(&cluster.update()).0, ["DestinationRule n/a"]);
}

#[test]
fn a_relist_tells_only_what_is_different() {
    let mut cluster = cluster(Selectors::new());
    let all = vec![rule("n", "a", "a.b"), rule("n", "b", "b.b"), rule("n", "c", "c.b")];
    cluster.take(Kind::DestinationRule, Event::Listed(all));
    cluster.update();
    let all = vec![rule("n", "a", "a.b"), rule("n", "b", "x.b"), rule("n", "d", "d.b")];
    cluster.take(Kind::DestinationRule, Event::Listed(all));
    let update = cluster.update();
    let applied = ["DestinationRule n/b", "DestinationRule n/d"].map(str::to_owned).to_vec();
    assert_eq!(names(&update), (applied, vec!["DestinationRule n/c".to_owned()]));
    cluster.take(Kind::DestinationRule, Event::Set(rule("n", "a", "a.b")));
    cluster.take(Kind::DestinationRule, Event::Gone(rule("n", "zz", "a.b")));
    assert!(!cluster.has_news());
}

#[test]
fn what_comes_and_goes_before_anybody_asks_is_told_as_gone() {
    let mut cluster = cluster(Selectors::new());
    cluster.take(Kind::DestinationRule, Event::Set(rule("n", "a", "a.b")));
    cluster.take(Kind::DestinationRule, Event::Gone(rule("n", "a", "a.b")));
    assert_eq!(names(&cluster.update()), (vec![], vec!["DestinationRule n/a".to_owned()]));
    cluster.take(Kind::DestinationRule, Event::Gone(rule("n", "b", "a.b")));
    cluster.take(Kind::DestinationRule, Event::Set(rule("n", "b", "a.b")));
    assert_eq!(names(&cluster.update()), (vec!["DestinationRule n/b".to_owned()], vec![]));
}

#[test]
fn objects_count_in_selected_namespaces_only() {
    let labels = BTreeMap::from([("mesh".to_owned(), "yes".to_owned())]);
    let mut cluster = cluster(vec![Selector { labels, requirements: Vec::new() }]);
    let rules = || vec![rule("in", "a", "a.b"), rule("out", "a", "a.b"), rule("late", "a", "a.b")];
    // Objects may be seen before their namespace.
    cluster.take(Kind::DestinationRule, Event::Listed(rules()));
    assert!(cluster.update().apply.is_empty());
    let namespaces = vec![namespace("in", &json!({"mesh": "yes"})), namespace("out", &json!({}))];
    cluster.take(Kind::Namespace, Event::Listed(namespaces));
    let applied = names(&cluster.update()).0;
    assert_eq!(applied, ["Namespace in", "Namespace out", "DestinationRule in/a"]);
    cluster.take(Kind::Namespace, Event::Set(namespace("late", &json!({"mesh": "yes"}))));
    assert_eq!(names(&cluster.update()).0, ["Namespace late", "DestinationRule late/a"]);
    cluster.take(Kind::Namespace, Event::Set(namespace("late", &json!({"mesh": "no"}))));
    assert_eq!(names(&cluster.update()).1, ["DestinationRule late/a"]);
    cluster.take(Kind::DestinationRule, Event::Set(rule("out", "a", "c.b")));
    assert!(!cluster.has_news());
    cluster.select(Selectors::new());
    assert_eq!(names(&cluster.update()).0, ["DestinationRule late/a", "DestinationRule out/a"]);
}

#[test]
fn problems_last_as_long_as_their_object() {
    let mut cluster = cluster(Selectors::new());
    let broken = || {
        let metadata = json!({"name": "a", "namespace": "n"});
        seen(Kind::DestinationRule, json!({"metadata": metadata, "spec": {"host": 1}}))
    };
    cluster.take(Kind::DestinationRule, Event::Set(rule("n", "a", "a.b")));
    cluster.take(Kind::DestinationRule, Event::Set(broken()));
    let update = cluster.update();
    assert_eq!((update.problems.len(), names(&update).1.len()), (1, 1));
    cluster.take(Kind::DestinationRule, Event::Listed(Vec::new()));
    assert!(cluster.has_news());
    assert!(cluster.update().problems.is_empty());
}
