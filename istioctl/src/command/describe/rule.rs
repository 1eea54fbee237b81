//! What a DestinationRule says of pods.

use std::fmt::Write as _;

use serde_json::Value;

use super::pod::{is_selected, items};

/// The subsets of a rule: those that a pod belongs to, and the others.
#[derive(Debug, Default)]
pub(super) struct Subsets {
    pub(super) matching: Vec<String>,
    pub(super) others: Vec<String>,
}

impl Subsets {
    pub(super) fn of(rule: &Value, pods: &[&Value]) -> Self {
        let mut found = Self::default();
        for subset in items(&rule["spec"]["subsets"]) {
            let name = subset["name"].as_str().unwrap_or_default().to_owned();
            let labels = &subset["labels"];
            let has_none = labels.as_object().is_none_or(serde_json::Map::is_empty);
            let matches = pods.iter().any(|pod| has_none || is_selected(labels, pod));
            if matches { &mut found.matching } else { &mut found.others }.push(name);
        }
        found
    }
}

/// Describes it.
pub(super) fn text(rule: &Value, name: &str, subsets: &Subsets, indent: usize) -> String {
    let pad = |level: usize| " ".repeat(indent + level);
    let spec = &rule["spec"];
    let mut told =
        format!("{}DestinationRule: {name} for {:?}\n", pad(0), spec["host"].as_str().unwrap_or_default());
    // Writing into text cannot fail.
    let Subsets { matching, others } = subsets;
    if !matching.is_empty() || !others.is_empty() {
        if matching.is_empty() {
            let _ = writeln!(
                told,
                "{}WARNING POD DOES NOT MATCH ANY SUBSETS.  (Non matching subsets {})",
                pad(3),
                others.join(",")
            );
        }
        let _ = writeln!(told, "{}Matching subsets: {}", pad(3), matching.join(","));
        if !others.is_empty() {
            let _ = writeln!(told, "{}(Non-matching subsets {})", pad(6), others.join(","));
        }
    }
    let policy = &spec["trafficPolicy"];
    if policy.is_null() {
        let _ = writeln!(told, "{}No Traffic Policy", pad(3));
        return told;
    }
    if let Some(mode) = mode(policy) {
        let _ = writeln!(told, "{}Traffic Policy TLS Mode: {mode}", pad(3));
    }
    if let Some(named) = policies(policy) {
        let _ = writeln!(told, "{}{named}", pad(3));
    }
    let ports = items(&policy["portLevelSettings"]);
    if !ports.is_empty() {
        let _ = writeln!(told, "{}Port Level Settings:", pad(3));
    }
    for port in ports {
        let _ = writeln!(told, "{}{}:", " ".repeat(4), port["port"]["number"].as_i64().unwrap_or_default());
        if let Some(mode) = mode(port) {
            let _ = writeln!(told, "{}TLS Mode: {mode}", pad(6));
        }
        if let Some(named) = policies(port) {
            let _ = writeln!(told, "{}{named}", pad(6));
        }
    }
    told
}

fn mode(policy: &Value) -> Option<&str> {
    let tls = policy["tls"].as_object()?;
    Some(tls.get("mode").and_then(Value::as_str).unwrap_or("DISABLE"))
}

fn policies(policy: &Value) -> Option<String> {
    let known = [
        ("loadBalancer", "load balancer"),
        ("connectionPool", "connection pool"),
        ("outlierDetection", "outlier detection"),
    ];
    let named: Vec<&str> =
        known.iter().filter(|(field, _)| !policy[field].is_null()).map(|(_, name)| *name).collect();
    if named.is_empty() { None } else { Some(format!("Policies: {}", named.join("/"))) }
}
