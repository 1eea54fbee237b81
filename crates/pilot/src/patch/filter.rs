//! Patches of network filters.

use proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use proto::istio::networking::v1alpha3::envoy_filter::ApplyTo;

use super::{Patches, decoded, http, is_merge, list, matching, merge, merging};
use crate::snapshot::envoy_filter::Patch;

pub(super) const HTTP_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// Filters that nothing can stand behind.
const LAST: [&str; 2] = ["envoy.filters.network.tcp_proxy", HTTP_MANAGER];

pub(super) fn patch(patches: &Patches<'_>, listener: &Listener, chain: &mut FilterChain) {
    let fitting = |kind: ApplyTo, chain: &FilterChain| -> Vec<&Patch> {
        let all = patches.of(kind).iter().copied();
        all.filter(|patch| matching::listener(patch, listener) && matching::chain(patch, listener, chain))
            .collect()
    };
    let on_network = fitting(ApplyTo::NetworkFilter, chain);
    for patch in &on_network {
        let filters = &mut chain.filters;
        let named = matching::filter(patch).map(|matcher| matcher.name.as_str());
        let fits = |filter: &Filter| Some(filter.name.as_str()) == named;
        let fits: &dyn Fn(&Filter) -> bool = &fits;
        let ends = filters.last().is_some_and(|filter| LAST.contains(&filter.name.as_str()));
        let end = filters.len() - usize::from(ends);
        list::edit(filters, patch.operation, named.map(|_| fits), end, || decoded(patch));
    }
    let on_http = fitting(ApplyTo::HttpFilter, chain);
    for filter in &mut chain.filters {
        for patch in on_network.iter().filter(|patch| is_merge(patch.operation)) {
            if matching::is_filter(patch, &filter.name) {
                merge_filter(patch, filter);
            }
        }
        if filter.name == HTTP_MANAGER {
            let fitting: Vec<&Patch> =
                on_http.iter().copied().filter(|patch| matching::is_filter(patch, HTTP_MANAGER)).collect();
            http::patch(&fitting, filter);
        }
    }
}

fn merge_filter(patch: &Patch, filter: &mut Filter) {
    let Some(source) = patch.value.as_ref().and_then(merging::<Filter>) else { return };
    let Some(filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else { return };
    if let Some(filter::ConfigType::TypedConfig(patched)) = &source.config_type {
        merge::merge_any(patch.operation, own, patched);
    }
    if !source.name.is_empty() {
        filter.name = source.name;
    }
}
