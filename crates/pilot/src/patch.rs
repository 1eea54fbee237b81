//! Applies patches (EnvoyFilter) to what a proxy gets.
//!
//! Only proxies that have patches pay for them. A patch that does not fit what
//! it meets is skipped; it never harms anything else.

mod cluster;
mod filter;
mod http;
mod list;
mod listener;
mod matching;
mod merge;
mod route;

use std::collections::BTreeMap;

use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::core::v3::TypedExtensionConfig;
use proto::envoy::config::listener::v3::Listener;
use proto::envoy::config::route::v3::RouteConfiguration;
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, PatchContext};

use crate::generate::Side;
use crate::proxy::{Proxy, ProxyKind};
use crate::scope::{Scope, labels};
use crate::snapshot::Snapshot;
use crate::snapshot::attach::Workload;
use crate::snapshot::envoy_filter::{Patch, Value};

/// The patches of a proxy, by what they are applied to, in their order.
struct Patches<'a>(BTreeMap<i32, Vec<&'a Patch>>);

impl<'a> Patches<'a> {
    /// Those of a proxy for a context; `None` when it has none.
    fn new(scope: Scope<'a>, context: PatchContext) -> Option<Self> {
        let filters = &scope.snapshot.envoy_filters;
        if filters.is_empty() {
            return None;
        }
        let proxy = scope.proxy;
        let workload = scope.workload();
        let mut patches: BTreeMap<i32, Vec<&Patch>> = BTreeMap::new();
        for patch in filters.select(workload) {
            let fits = patch.context == context || patch.context == PatchContext::Any;
            if fits && patch.is_for(&proxy.istio_version, |key| proxy.says(key)) {
                patches.entry(patch.apply_to.into()).or_default().push(patch);
            }
        }
        (!patches.is_empty()).then_some(Self(patches))
    }

    fn of(&self, apply_to: ApplyTo) -> &[&'a Patch] {
        self.0.get(&i32::from(apply_to)).map_or(&[], Vec::as_slice)
    }

    fn has(&self, kinds: &[ApplyTo]) -> bool {
        kinds.iter().any(|kind| !self.of(*kind).is_empty())
    }

    /// What is added as a whole. Without a context that is for what leaves the
    /// workload, so that it is not there twice.
    fn added<M: prost::Message + Default>(&self, apply_to: ApplyTo, context: PatchContext) -> Vec<M> {
        let adds = self.of(apply_to).iter().filter(|patch| {
            let for_it = patch.context == context || context != PatchContext::SidecarInbound;
            patch.operation == Operation::Add && for_it
        });
        adds.filter_map(|patch| decoded(patch)).collect()
    }
}

fn is_merge(operation: Operation) -> bool {
    matches!(operation, Operation::Merge | Operation::MergeAndReplaceList)
}

/// The value of a patch by itself.
fn decoded<M: prost::Message + Default>(patch: &Patch) -> Option<M> {
    patch.value.as_ref().and_then(|value| M::decode(value.encoded.clone()).ok())
}

/// The value of a patch as it is merged.
fn merging<M: prost::Message + Default>(value: &Value) -> Option<M> {
    M::decode(value.merging.clone()).ok()
}

fn context(scope: Scope<'_>, side: Side) -> PatchContext {
    match (scope.proxy.kind, side) {
        (ProxyKind::Router, _) => PatchContext::Gateway,
        (ProxyKind::Sidecar, Side::Shared) => PatchContext::SidecarOutbound,
        (ProxyKind::Sidecar, Side::Own) => PatchContext::SidecarInbound,
    }
}

/// Clusters of one side.
pub(crate) fn clusters(scope: Scope<'_>, side: Side, clusters: Vec<Cluster>) -> Vec<Cluster> {
    // All of a gateway is shared: its other side has nothing, and would add twice.
    if scope.proxy.kind == ProxyKind::Router && side == Side::Own {
        return clusters;
    }
    let context = context(scope, side);
    match Patches::new(scope, context).filter(|patches| patches.has(&[ApplyTo::Cluster])) {
        Some(patches) => cluster::patch(scope, context, &patches, clusters),
        None => clusters,
    }
}

/// Listeners of one side.
pub(crate) fn listeners(scope: Scope<'_>, side: Side, listeners: Vec<Listener>) -> Vec<Listener> {
    if scope.proxy.kind == ProxyKind::Router && side == Side::Own {
        return listeners;
    }
    let context = context(scope, side);
    match Patches::new(scope, context) {
        Some(patches) => listener::patch(context, &patches, listeners),
        None => listeners,
    }
}

/// Routes of a proxy's own workload, which stand in its listeners.
pub(crate) fn inbound_routes(scope: Scope<'_>, routes: RouteConfiguration) -> RouteConfiguration {
    routes_of(scope, PatchContext::SidecarInbound, routes)
}

/// Routes that come by themselves.
pub(crate) fn routes(scope: Scope<'_>, routes: RouteConfiguration) -> RouteConfiguration {
    routes_of(scope, context(scope, Side::Shared), routes)
}

/// What routes are patched by.
const OF_ROUTES: [ApplyTo; 3] = [ApplyTo::RouteConfiguration, ApplyTo::VirtualHost, ApplyTo::HttpRoute];

/// Whether [`routes`] may change anything.
pub(crate) fn has_routes(scope: Scope<'_>) -> bool {
    Patches::new(scope, context(scope, Side::Shared)).is_some_and(|patches| patches.has(&OF_ROUTES))
}

fn routes_of(scope: Scope<'_>, context: PatchContext, mut routes: RouteConfiguration) -> RouteConfiguration {
    if let Some(patches) = Patches::new(scope, context).filter(|patches| patches.has(&OF_ROUTES)) {
        route::patch(scope, context, &patches, &mut routes);
    }
    routes
}

/// Extension configurations that patches bring, whatever their context.
pub(crate) fn extensions(
    snapshot: &Snapshot,
    proxy: &Proxy,
    wanted: impl Fn(&str) -> bool,
) -> Vec<TypedExtensionConfig> {
    let workload = Workload { namespace: &proxy.namespace, labels: labels(snapshot, proxy) };
    let patches = snapshot.envoy_filters.select(workload).filter(|patch| {
        patch.apply_to == ApplyTo::ExtensionConfig
            && patch.operation == Operation::Add
            && patch.is_for(&proxy.istio_version, |key| proxy.says(key))
    });
    let mut found: BTreeMap<String, TypedExtensionConfig> = BTreeMap::new();
    for config in patches.filter_map(decoded::<TypedExtensionConfig>) {
        if wanted(&config.name) {
            found.entry(config.name.clone()).or_insert(config);
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests;
