//! Patches of HTTP filters.

use proto::Any;
use proto::envoy::config::listener::v3::{Filter, filter};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};

use super::{decoded, is_merge, list, matching, merge, merging};
use crate::snapshot::envoy_filter::Patch;

/// The filter that nothing can stand behind.
const ROUTER: &str = "envoy.filters.http.router";

/// Patches the filters of a connection manager.
pub(super) fn patch(patches: &[&Patch], filter: &mut Filter) {
    if patches.is_empty() {
        return;
    }
    let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { return };
    let Ok(mut manager) = config.unpack::<HttpConnectionManager>() else { return };
    for patch in patches {
        let filters = &mut manager.http_filters;
        let named = matching::http_filter(patch);
        let fits = |filter: &HttpFilter| Some(filter.name.as_str()) == named;
        let fits: &dyn Fn(&HttpFilter) -> bool = &fits;
        let ends = filters.last().is_some_and(|filter| filter.name == ROUTER);
        let end = filters.len() - usize::from(ends);
        list::edit(filters, patch.operation, named.map(|_| fits), end, || decoded(patch));
    }
    for filter in &mut manager.http_filters {
        for patch in patches.iter().filter(|patch| is_merge(patch.operation)) {
            if matching::http_filter(patch).is_none_or(|name| name == filter.name) {
                merge_filter(patch, filter);
            }
        }
    }
    *config = Any::pack(&manager);
}

fn merge_filter(patch: &Patch, filter: &mut HttpFilter) {
    let Some(source) = patch.value.as_ref().and_then(merging::<HttpFilter>) else { return };
    let Some(http_filter::ConfigType::TypedConfig(own)) = &mut filter.config_type else { return };
    if let Some(http_filter::ConfigType::TypedConfig(patched)) = &source.config_type {
        merge::merge_any(patch.operation, own, patched);
    }
    if !source.name.is_empty() {
        filter.name = source.name;
    }
}
