//! Label selectors.

use std::collections::BTreeMap;

use proto::istio::r#type::v1beta1::WorkloadSelector;

/// Whether `labels` has every pair of `wanted`; an empty `wanted` fits all.
#[must_use]
pub fn matches(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether a policy's selector fits a workload; no selector fits all.
#[must_use]
pub fn workload_matches(selector: Option<&WorkloadSelector>, labels: &BTreeMap<String, String>) -> bool {
    selector.is_none_or(|selector| matches(&selector.match_labels, labels))
}
