//! `/debug/push_status`: by metric and key, what it counts.

use std::collections::BTreeMap;

use config::Problem;
use pilot::finding::Finding;
use serde_json::{Map, Value};

/// What is wrong with objects, beside Istio's metrics.
const PROBLEMS: &str = "pilot_config_problems";

/// The page.
#[must_use]
pub fn page(findings: &[Finding], problems: &[Problem]) -> Value {
    let mut page: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for finding in findings {
        let event = event(&finding.proxy, &finding.message);
        page.entry(finding.topic.metric()).or_default().insert(finding.key.clone(), event);
    }
    let mut by_object: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for problem in problems {
        let object = problem.object.as_ref();
        let key = object.map_or_else(|| problem.position.to_string(), ToString::to_string);
        by_object.entry(key).or_default().push(problem.to_string());
    }
    for (key, messages) in by_object {
        page.entry(PROBLEMS).or_default().insert(key, event("", &messages.join("\n")));
    }
    page.into_iter().map(|(metric, events)| (metric.to_owned(), Value::from(events))).collect()
}

fn event(proxy: &str, message: &str) -> Value {
    let fields = [("proxy", proxy), ("message", message)];
    let said = fields.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| (name.to_owned(), Value::from(text))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use config::{Key, Kind, Position, Severity};
    use pilot::finding::Topic;
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_told_by_metric_and_key() {
        let finding = |topic, key: &str, proxy: &str, message: &str| Finding {
            topic,
            key: key.into(),
            message: message.into(),
            proxy: proxy.into(),
            object: None,
        };
        let findings = [
            finding(Topic::OutboundListener, "0.0.0.0_9000", "web.a", "taken"),
            finding(Topic::NoEndpoints, "outbound|80||a", "web.a", ""),
            finding(Topic::NoPod, "b", "", "10.0.0.1"),
        ];
        let problem = |field: &str| Problem {
            severity: Severity::Error,
            object: Some(Key { kind: Kind::Gateway, namespace: "n".into(), name: "g".into() }),
            position: Position::default(),
            field: field.into(),
            message: "bad".into(),
        };
        let want = json!({
            "endpoint_no_pod": {"b": {"message": "10.0.0.1"}},
            "pilot_config_problems": {
                "Gateway n/g": {"message": ": Gateway n/g: x: bad\n: Gateway n/g: y: bad"},
            },
            "pilot_conflict_outbound_listener_tcp_over_current_tcp": {
                "0.0.0.0_9000": {"proxy": "web.a", "message": "taken"},
            },
            "pilot_eds_no_instances": {"outbound|80||a": {"proxy": "web.a"}},
        });
        assert_eq!(page(&findings, &[problem("x"), problem("y")]), want);
    }
}
