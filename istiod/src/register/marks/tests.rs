use super::*;

const HERE: &str = "istiod-a";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

fn made() -> Value {
    json!({"metadata": {"name": "a", "annotations": {AUTO_REGISTRATION_GROUP: "web"}}, "spec": {"x": 1}})
}

fn is_due(entry: &Value, now: i64, age: Option<u64>) -> bool {
    Marks::of_json(entry).is_due(at(now), Duration::from_secs(10), age.map(Duration::from_secs))
}

#[test]
fn a_proxy_comes_and_goes() {
    let entry = connected(&made(), HERE, at(1)).unwrap();
    let marks = &entry["metadata"]["annotations"];
    assert_eq!(
        (&marks[WORKLOAD_CONTROLLER], &marks[CONNECTED_AT]),
        (&json!(HERE), &json!("2027-01-15T08:00:01Z"))
    );
    assert_eq!(entry["spec"], json!({"x": 1}), "the rest stays");
    assert_eq!(connected(&entry, HERE, at(1)), None, "it says so already");
    let gone = disconnected(&entry, HERE, at(1), at(2)).unwrap();
    let marks = &gone["metadata"]["annotations"];
    assert_eq!(
        (&marks[CONNECTED_AT], &marks[DISCONNECTED_AT]),
        (&Value::Null, &json!("2027-01-15T08:00:02Z"))
    );
    let back = connected(&gone, HERE, at(3)).unwrap();
    assert_eq!(back["metadata"]["annotations"][DISCONNECTED_AT], Value::Null);
}

#[test]
fn a_proxy_that_is_connected_elsewhere_is_left_alone() {
    let there = connected(&made(), "istiod-b", at(5)).unwrap();
    assert_eq!(connected(&there, HERE, at(4)), None);
    assert_eq!(disconnected(&there, HERE, at(4), at(6)), None);
    assert_eq!(with_health(&there, HERE, &Health { why: None, at: at(6) }), None);
    let here = connected(&there, HERE, at(7)).unwrap();
    assert_eq!(disconnected(&here, HERE, at(6), at(8)), None, "it has come back since");
    assert!(disconnected(&here, HERE, at(7), at(8)).is_some());
    // The same moment at both: whoever writes last has it.
    assert!(connected(&there, HERE, at(5)).is_some());
    // What is slow must not bring back what has gone meanwhile.
    let gone = disconnected(&here, HERE, at(7), at(9)).unwrap();
    assert_eq!(connected(&gone, HERE, at(8)), None);
    // That it has come here later may not have been written.
    let left = disconnected(&there, HERE, at(6), at(8)).unwrap();
    assert_eq!(left["metadata"]["annotations"][WORKLOAD_CONTROLLER], HERE);
    assert_eq!(disconnected(&left, "istiod-b", at(5), at(9)), None);
}

#[test]
fn health_is_one_condition_among_others() {
    let mut entry = connected(&made(), HERE, at(1)).unwrap();
    entry["status"] = json!({"conditions": [{"type": "Other"}], "observedGeneration": "3"});
    let ill = with_health(&entry, HERE, &Health { why: Some("no answer".into()), at: at(2) }).unwrap();
    assert_eq!(
        ill["status"],
        json!({"observedGeneration": "3", "conditions": [{"type": "Other"}, {
            "type": "Healthy", "status": "False", "message": "no answer",
            "lastProbeTime": "2027-01-15T08:00:02Z", "lastTransitionTime": "2027-01-15T08:00:02Z",
        }]})
    );
    let well = with_health(&ill, HERE, &Health { why: None, at: at(3) }).unwrap();
    assert_eq!(well["status"]["conditions"][1]["status"], "True");
    assert_eq!(well["status"]["conditions"][1].get("message"), None);
    assert_eq!(with_health(&well, HERE, &Health { why: Some("old".into()), at: at(2) }), None);
    let unknown = without_health(&well).unwrap();
    assert_eq!(unknown["status"]["conditions"], json!([{"type": "Other"}]));
    assert_eq!(without_health(&unknown), None);
    let first = json!({"metadata": {"annotations": {WORKLOAD_CONTROLLER: HERE}}, "status": null});
    assert!(with_health(&first, HERE, &Health { why: None, at: at(2) }).is_some());
}

#[test]
fn an_entry_is_due_when_its_proxy_is_away_for_too_long() {
    let entry = connected(&made(), HERE, at(0)).unwrap();
    assert!(!is_due(&entry, 1000, None) && !is_due(&entry, 100, Some(100)) && is_due(&entry, 101, Some(100)));
    let gone = disconnected(&entry, HERE, at(0), at(5)).unwrap();
    assert!(!is_due(&gone, 15, None) && is_due(&gone, 16, None));
    assert!(!is_due(&made(), 1000, Some(1)), "nothing says that it was ever in use");
    // One of the user's is due as long as it has a condition.
    let users = json!({"metadata": {}, "spec": {}});
    let users = connected(&users, HERE, at(0)).unwrap();
    let gone = disconnected(&users, HERE, at(0), at(5)).unwrap();
    assert!(!is_due(&gone, 100, None));
    let told = with_health(&gone, HERE, &Health { why: None, at: at(1) }).unwrap();
    assert!(is_due(&told, 100, None) && !Marks::of_json(&told).is_registered());
}

#[test]
fn nonsense_on_an_entry_harms_nobody() {
    for entry in [json!(null), json!([]), json!({"metadata": 1}), json!({"metadata": {"annotations": "x"}})] {
        assert_eq!(connected(&entry, HERE, at(1)), None, "{entry}");
        assert_eq!(disconnected(&entry, HERE, at(1), at(2)), None);
        assert_eq!(without_health(&entry), None);
        assert!(!is_due(&entry, 100, None));
    }
    let mut entry = made();
    entry["metadata"]["annotations"][CONNECTED_AT] = "yesterday".into();
    entry["status"] = json!({"conditions": {"type": 1}});
    assert!(!is_due(&entry, 100, Some(1)));
    let now = connected(&entry, HERE, at(1)).unwrap();
    assert!(with_health(&now, HERE, &Health { why: None, at: at(2) }).is_some());
}
