//! What is done to headers.

use std::collections::BTreeMap;

use proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use proto::istio::networking::v1alpha3::Headers;
use proto::istio::networking::v1alpha3::headers::HeaderOperations;

/// Operations as Envoy has them on routes and on weighted clusters.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) request_add: Vec<HeaderValueOption>,
    pub(super) request_remove: Vec<String>,
    pub(super) response_add: Vec<HeaderValueOption>,
    pub(super) response_remove: Vec<String>,
    /// What the host of the request becomes, which is no header for Envoy.
    pub(super) authority: Option<String>,
}

impl Operations {
    /// Envoy's form.
    pub(super) fn new(headers: Option<&Headers>) -> Self {
        let Some(headers) = headers else { return Self::default() };
        let nothing = HeaderOperations::default();
        let request = headers.request.as_ref().unwrap_or(&nothing);
        let response = headers.response.as_ref().unwrap_or(&nothing);
        Self {
            request_add: added(request),
            request_remove: removed(request),
            response_add: added(response),
            response_remove: removed(response),
            authority: authority(&request.set).or_else(|| authority(&request.add)),
        }
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Whether Envoy makes the header itself and refuses to change it.
fn is_internal(name: &str) -> bool {
    name.starts_with(':') || name.eq_ignore_ascii_case("host")
}

fn authority(values: &BTreeMap<String, String>) -> Option<String> {
    let found = values.iter().find(|(name, value)| is_authority(name) && !value.is_empty());
    found.map(|(_, value)| value.clone())
}

fn added(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let mut all = options(&operations.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    all.extend(options(&operations.add, HeaderAppendAction::AppendIfExistsOrAdd));
    all
}

fn removed(operations: &HeaderOperations) -> Vec<String> {
    operations.remove.iter().filter(|name| !is_internal(name)).cloned().collect()
}

fn options(values: &BTreeMap<String, String>, action: HeaderAppendAction) -> Vec<HeaderValueOption> {
    let values = values.iter().filter(|(name, _)| !is_internal(name));
    let option = |(name, value): (&String, &String)| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    values.map(option).collect()
}
