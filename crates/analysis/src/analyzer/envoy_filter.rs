//! Patches of EnvoyFilters that depend on what others have done before.

use proto::istio::networking::v1alpha3::EnvoyFilter;
use proto::istio::networking::v1alpha3::envoy_filter::envoy_config_object_match::ObjectTypes;
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch};

use super::Report;
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    // Names of filters that some patch is for in one version of the proxy only.
    let mut versioned: Vec<Name> = Vec::new();
    for (one, filter) in world.all::<EnvoyFilter>(Kind::EnvoyFilter) {
        for (index, patch) in filter.config_patches.iter().enumerate() {
            let Some(change) = &patch.patch else { break };
            let name = name(patch);
            let code = match (change.operation(), patch.apply_to()) {
                (Operation::Add, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute) => {
                    Some(Code::EnvoyFilterUsesAddOperationIncorrectly)
                }
                (Operation::Remove, ApplyTo::RouteConfiguration | ApplyTo::HttpRoute) => {
                    Some(Code::EnvoyFilterUsesRemoveOperationIncorrectly)
                }
                (Operation::Replace, ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::VirtualHost)
                | (Operation::Remove | Operation::InsertBefore | Operation::InsertAfter, _) => {
                    (filter.priority == 0).then(|| {
                        if versioned.contains(&name) {
                            Code::EnvoyFilterUsesRelativeOperationWithProxyVersion
                        } else {
                            Code::EnvoyFilterUsesRelativeOperation
                        }
                    })
                }
                (Operation::Replace, _) => Some(Code::EnvoyFilterUsesReplaceOperationIncorrectly),
                _ => None,
            };
            if let Some(code) = code {
                tell(code, one, index, report);
            }
            let proxy = patch.r#match.as_ref().and_then(|place| place.proxy.as_ref());
            if proxy.is_some_and(|proxy| !proxy.proxy_version.is_empty()) {
                versioned.push(name);
            }
        }
    }
}

fn tell<'a>(code: Code, one: &'a Resource, index: usize, report: &mut Report<'a>) {
    report.add_at(code, one, &format!("spec.configPatches[{index}].patch.value"), &[]);
}

/// What a patch is known by: the name in its value, or that of the filter that it is at.
#[derive(PartialEq)]
enum Name {
    Own(pbjson_types::Value),
    Other(String),
}

fn name(patch: &EnvoyConfigObjectPatch) -> Name {
    let value = patch.patch.as_ref().and_then(|change| change.value.as_ref());
    let Some(value) = value.filter(|value| !value.fields.is_empty()) else {
        return Name::Other(String::new());
    };
    if let Some(name) = value.fields.get("name") {
        return Name::Own(name.clone());
    }
    let place = patch.r#match.as_ref().and_then(|place| place.object_types.as_ref());
    let Some(ObjectTypes::Listener(listener)) = place else { return Name::Other(String::new()) };
    let filter = listener.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref());
    Name::Other(filter.map_or_else(String::new, |filter| filter.name.clone()))
}
