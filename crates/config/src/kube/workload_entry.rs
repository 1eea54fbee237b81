//! `WorkloadEntry` of `networking.istio.io`, with the part of its status that counts.

use std::collections::BTreeMap;
use std::ops::Deref;

use names::annotation;
use proto::istio::networking::v1alpha3 as api;
use serde::Deserialize;

/// Condition of a workload that passes its health checks.
const HEALTHY: &str = "Healthy";

/// A workload that is not a pod.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct WorkloadEntry {
    /// What the user wrote.
    pub spec: api::WorkloadEntry,
    /// What its proxy reports.
    pub status: WorkloadStatus,
}

/// What a workload's proxy reports.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct WorkloadStatus {
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// Something that is so, or not.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Deref for WorkloadEntry {
    type Target = api::WorkloadEntry;

    fn deref(&self) -> &api::WorkloadEntry {
        &self.spec
    }
}

impl WorkloadEntry {
    /// Whether it can be called: always, unless its annotations say that its
    /// health is checked; then once it is known to be healthy.
    #[must_use]
    pub fn is_healthy(&self, annotations: &BTreeMap<String, String>) -> bool {
        let checks = annotations.get(annotation::HEALTH_CHECKS).map(String::as_str);
        if !matches!(checks, Some("1" | "t" | "T" | "true" | "TRUE" | "True")) {
            return true;
        }
        let condition = self.status.conditions.iter().find(|condition| condition.kind == HEALTHY);
        condition.is_some_and(|condition| condition.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checked_workload_is_healthy_once_that_is_known() {
        let healthy = |checks: Option<&str>, status: &[(&str, &str)]| {
            let condition =
                |(kind, status): &(&str, &str)| Condition { kind: (*kind).into(), status: (*status).into() };
            let status = WorkloadStatus { conditions: status.iter().map(condition).collect() };
            let entry = WorkloadEntry { status, ..WorkloadEntry::default() };
            let checks = checks.map(|value| (annotation::HEALTH_CHECKS.to_owned(), value.to_owned()));
            entry.is_healthy(&checks.into_iter().collect())
        };
        let (yes, no) = (&[("Healthy", "True")][..], &[("Ready", "True"), ("Healthy", "False")][..]);
        assert!(healthy(None, no) && healthy(Some("false"), no) && healthy(Some("yes"), no));
        assert!(healthy(Some("true"), yes) && healthy(Some("1"), yes));
        assert!(!healthy(Some("true"), no) && !healthy(Some("true"), &[]));
        assert!(!healthy(Some("true"), &[("Healthy", "Unknown")]));
    }
}
