//! Rules of `EnvoyFilter`.

use proto::istio::networking::v1alpha3::EnvoyFilter;
use proto::istio::networking::v1alpha3::envoy_filter::envoy_config_object_match::ObjectTypes;
use proto::istio::networking::v1alpha3::envoy_filter::patch::{FilterClass, Operation};
use proto::istio::networking::v1alpha3::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, ListenerMatch, Patch, PatchContext,
};

use crate::patch;
use crate::validate::Checker;

/// Longer expressions are not compiled.
const MAX_PROXY_VERSION: usize = 1024;
const HTTP_MANAGER: &str = "envoy.filters.network.http_connection_manager";

pub(super) fn check(filter: &EnvoyFilter, checker: &mut Checker) {
    let message = "changes Envoy's configuration as it is now, which may be another one after an upgrade: use other objects where they can do it";
    checker.warn("", message);
    if filter.workload_selector.is_some() && !filter.target_refs.is_empty() {
        checker.error("targetRefs", "excludes workloadSelector: leave one of them");
    }
    if let Some(selector) = &filter.workload_selector {
        checker.selector("workloadSelector.labels", &selector.labels);
    }
    checker.selection(None, None, &filter.target_refs);
    for (index, item) in filter.config_patches.iter().enumerate() {
        config_patch(&format!("configPatches[{index}]"), item, checker);
    }
}

fn config_patch(at: &str, item: &EnvoyConfigObjectPatch, checker: &mut Checker) {
    let matcher = item.r#match.as_ref();
    if matcher.is_some_and(|matcher| matcher.context() == PatchContext::Waypoint) {
        let message = "WAYPOINT: this mesh has no waypoints, so the patch has no effect";
        return checker.warn(format!("{at}.match.context"), message);
    }
    if item.apply_to() == ApplyTo::Invalid {
        return checker
            .error(format!("{at}.applyTo"), "is missing: say what is to be patched, such as HTTP_FILTER");
    }
    let Some(change) = &item.patch else {
        return checker.error(format!("{at}.patch"), "is missing: say what is to be done");
    };
    let operation = change.operation();
    if operation == Operation::Invalid {
        let message = "is missing: expected MERGE, ADD, REMOVE, INSERT_BEFORE or the like";
        return checker.error(format!("{at}.patch.operation"), message);
    }
    if operation != Operation::Remove && change.value.is_none() {
        let message = format!("is missing: {} needs a value", operation.as_str_name());
        return checker.error(format!("{at}.patch.value"), message);
    }
    if change.filter_class() != FilterClass::Unspecified {
        let message =
            "has no effect: use INSERT_BEFORE or INSERT_AFTER with a match to say where a filter stands";
        checker.warn(format!("{at}.patch.filterClass"), message);
    }
    if item.apply_to() == ApplyTo::Bootstrap {
        let message =
            "BOOTSTRAP is read when Envoy starts, before the control plane is asked: the patch has no effect";
        checker.warn(format!("{at}.applyTo"), message);
    }
    if !fits(item.apply_to(), operation) {
        let message = format!(
            "{} does nothing with applyTo {}",
            operation.as_str_name(),
            item.apply_to().as_str_name()
        );
        checker.warn(format!("{at}.patch.operation"), message);
    }
    if let Some(matcher) = matcher
        && !matching(&format!("{at}.match"), item.apply_to(), matcher, checker)
    {
        return;
    }
    value(at, item.apply_to(), change, checker);
}

/// Whether an operation exists for what is patched.
fn fits(apply_to: ApplyTo, operation: Operation) -> bool {
    use Operation::{Add, InsertFirst, Merge, MergeAndReplaceList, Remove, Replace};
    match apply_to {
        ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::ListenerFilter => true,
        ApplyTo::VirtualHost => matches!(operation, Merge | MergeAndReplaceList | Add | Remove | Replace),
        ApplyTo::HttpRoute => operation != Replace,
        ApplyTo::RouteConfiguration => matches!(operation, Merge | MergeAndReplaceList),
        ApplyTo::ExtensionConfig => operation == Add,
        // Inserting is adding where the order means nothing.
        ApplyTo::Cluster | ApplyTo::Listener | ApplyTo::FilterChain => {
            operation != Replace && operation != InsertFirst
        }
        ApplyTo::Invalid | ApplyTo::Bootstrap => true,
    }
}

/// Whether the rest of the patch is worth a look.
fn matching(at: &str, apply_to: ApplyTo, matcher: &EnvoyConfigObjectMatch, checker: &mut Checker) -> bool {
    if let Some(proxy) = &matcher.proxy
        && !proxy.proxy_version.is_empty()
    {
        let field = format!("{at}.proxy.proxyVersion");
        if proxy.proxy_version.len() > MAX_PROXY_VERSION {
            let message =
                format!("is longer than {MAX_PROXY_VERSION} characters: the patch applies to no proxy");
            checker.warn(field, message);
        } else {
            checker.regex(&field, &proxy.proxy_version);
        }
    }
    let Some(object) = &matcher.object_types else { return true };
    let (name, fits) = match apply_to {
        ApplyTo::Listener
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::ListenerFilter => ("listener", matches!(object, ObjectTypes::Listener(_))),
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            ("routeConfiguration", matches!(object, ObjectTypes::RouteConfiguration(_)))
        }
        ApplyTo::Cluster => ("cluster", matches!(object, ObjectTypes::Cluster(_))),
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => return true,
    };
    if !fits {
        let message = format!("is of another kind: applyTo {} is matched by {name}", apply_to.as_str_name());
        checker.error(at, message);
        return false;
    }
    match object {
        ObjectTypes::Listener(listener) => {
            listener_match(&format!("{at}.listener"), apply_to, listener, checker)
        }
        _ => true,
    }
}

fn listener_match(at: &str, apply_to: ApplyTo, listener: &ListenerMatch, checker: &mut Checker) -> bool {
    if !listener.port_name.is_empty() {
        checker.warn(format!("{at}.portName"), "has no effect: use portNumber");
    }
    let Some(chain) = &listener.filter_chain else { return true };
    if !chain.transport_socket.is_empty() {
        checker.warn(format!("{at}.filterChain.transportSocket"), "has no effect: use transportProtocol");
    }
    let Some(filter) = &chain.filter else { return true };
    let at = format!("{at}.filterChain.filter");
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        checker.warn(&at, format!("has no effect with applyTo {}", apply_to.as_str_name()));
    }
    if filter.name.is_empty() {
        checker.error(format!("{at}.name"), "is missing: a filter is found by its name");
        return false;
    }
    let Some(inner) = &filter.sub_filter else { return true };
    if apply_to != ApplyTo::HttpFilter {
        checker.error(format!("{at}.subFilter"), "is for applyTo HTTP_FILTER only");
        return false;
    }
    if ![HTTP_MANAGER, "envoy.http_connection_manager"].contains(&filter.name.as_str()) {
        let message = format!("{:?} has no HTTP filters: expected {HTTP_MANAGER}", filter.name);
        checker.error(format!("{at}.name"), message);
        return false;
    }
    if inner.name.is_empty() {
        checker.error(format!("{at}.subFilter.name"), "is missing: a filter is found by its name");
        return false;
    }
    true
}

fn value(at: &str, apply_to: ApplyTo, change: &Patch, checker: &mut Checker) {
    let field = |inside: &str| match inside {
        "" => format!("{at}.patch.value"),
        inside => format!("{at}.patch.value.{inside}"),
    };
    match patch::read(apply_to, change) {
        Err(error) => checker.error(field(&error.field), format!("Envoy does not know it: {error}")),
        Ok(Some(patch::Value { unknown: Some(error), .. })) => {
            checker.warn(field(&error.field), format!("Envoy does not know it, so it is left out: {error}"));
        }
        Ok(_) => {}
    }
    let is_whole = !matches!(
        change.operation(),
        Operation::Merge | Operation::MergeAndReplaceList | Operation::Remove | Operation::Invalid
    );
    let is_filter =
        matches!(apply_to, ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::ListenerFilter);
    let has = |names: [&str; 2]| {
        change.value.as_ref().is_some_and(|value| names.iter().any(|name| value.fields.contains_key(*name)))
    };
    if is_whole
        && is_filter
        && !has(["typed_config", "typedConfig"])
        && !has(["config_discovery", "configDiscovery"])
    {
        let message =
            "is missing: Envoy finds filters by the type of their configuration, so the patch is left out";
        checker.warn(field("typed_config"), message);
    }
}
