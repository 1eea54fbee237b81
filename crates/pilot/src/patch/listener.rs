//! Patches of listeners and of their filter chains.

use std::collections::BTreeSet;

use proto::envoy::config::core::v3::transport_socket;
use proto::envoy::config::listener::v3::{FilterChain, Listener, ListenerFilter, listener_filter};
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, PatchContext};

use super::{Patches, Value, decoded, filter, is_merge, list, matching, merge, merging};
use crate::snapshot::envoy_filter::Patch;

pub(super) fn patch(context: PatchContext, patches: &Patches<'_>, listeners: Vec<Listener>) -> Vec<Listener> {
    let mut patched: Vec<Listener> =
        listeners.into_iter().filter_map(|listener| apply(patches, listener)).collect();
    patched.extend(patches.added::<Listener>(ApplyTo::Listener, context));
    // Envoy refuses all listeners when two have one name.
    let mut names = BTreeSet::new();
    patched.retain(|listener| !listener.name.is_empty() && names.insert(listener.name.clone()));
    patched
}

/// `None` when it is removed.
fn apply(patches: &Patches<'_>, mut listener: Listener) -> Option<Listener> {
    for patch in patches.of(ApplyTo::Listener) {
        if !matching::listener(patch, &listener) {
            continue;
        }
        if patch.operation == Operation::Remove {
            return None;
        }
        if let Some(value) = patch.value.as_ref().filter(|_| is_merge(patch.operation)) {
            merge::merge(patch.operation, &mut listener, value);
        }
    }
    for patch in patches.of(ApplyTo::ListenerFilter) {
        if matching::listener(patch, &listener) {
            listener_filter(patch, &mut listener.listener_filters);
        }
    }
    chains(patches, &mut listener);
    Some(listener)
}

fn listener_filter(patch: &Patch, filters: &mut Vec<ListenerFilter>) {
    let named = matching::listener_filter(patch);
    let fits = |filter: &ListenerFilter| Some(filter.name.as_str()) == named;
    if is_merge(patch.operation) {
        let Some(source) = patch.value.as_ref().and_then(merging::<ListenerFilter>) else { return };
        for filter in filters.iter_mut().filter(|filter| fits(filter)) {
            let pair = (&mut filter.config_type, &source.config_type);
            if let (
                Some(listener_filter::ConfigType::TypedConfig(own)),
                Some(listener_filter::ConfigType::TypedConfig(patched)),
            ) = pair
            {
                merge::merge_any(patch.operation, own, patched);
            }
            if !source.name.is_empty() {
                filter.name.clone_from(&source.name);
            }
        }
        return;
    }
    let fits: &dyn Fn(&ListenerFilter) -> bool = &fits;
    let end = filters.len();
    list::edit(filters, patch.operation, named.map(|_| fits), end, || decoded(patch));
}

fn chains(patches: &Patches<'_>, listener: &mut Listener) {
    const KINDS: [ApplyTo; 3] = [ApplyTo::FilterChain, ApplyTo::NetworkFilter, ApplyTo::HttpFilter];
    if !patches.has(&KINDS) {
        return;
    }
    let own = std::mem::take(&mut listener.filter_chains);
    let default = listener.default_filter_chain.take();
    // What chains are matched by stands in the listener itself.
    let kept: Vec<FilterChain> =
        own.into_iter().filter_map(|chain| filter_chain(patches, listener, chain)).collect();
    listener.default_filter_chain = default.and_then(|chain| filter_chain(patches, listener, chain));
    listener.filter_chains = kept;
    for patch in patches.of(ApplyTo::FilterChain) {
        if patch.operation == Operation::Add && matching::listener(patch, listener) {
            let chain = decoded::<FilterChain>(patch).filter(|chain| !chain.filters.is_empty());
            listener.filter_chains.extend(chain);
        }
    }
}

/// `None` when it is removed.
fn filter_chain(patches: &Patches<'_>, listener: &Listener, mut chain: FilterChain) -> Option<FilterChain> {
    for patch in patches.of(ApplyTo::FilterChain) {
        if !matching::listener(patch, listener) || !matching::chain(patch, listener, &chain) {
            continue;
        }
        if patch.operation == Operation::Remove {
            return None;
        }
        if let Some(value) = patch.value.as_ref().filter(|_| is_merge(patch.operation))
            && !merge_socket(patch.operation, &mut chain, value)
        {
            merge::merge(patch.operation, &mut chain, value);
        }
    }
    filter::patch(patches, listener, &mut chain);
    (!chain.filters.is_empty()).then_some(chain)
}

/// A patch with a transport socket of the same name as the chain's changes
/// that alone. Whether it is so.
fn merge_socket(operation: Operation, chain: &mut FilterChain, value: &Value) -> bool {
    let Some(patched) = merging::<FilterChain>(value).and_then(|patch| patch.transport_socket) else {
        return false;
    };
    let Some(own) = chain.transport_socket.as_mut().filter(|own| own.name == patched.name) else {
        return false;
    };
    if let (
        Some(transport_socket::ConfigType::TypedConfig(own)),
        Some(transport_socket::ConfigType::TypedConfig(patched)),
    ) = (&mut own.config_type, &patched.config_type)
    {
        merge::merge_any(operation, own, patched);
    }
    true
}
