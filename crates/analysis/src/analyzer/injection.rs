//! Namespaces that take no part in the mesh, and pods without the sidecar that
//! they should have.

use std::collections::HashMap;

use serde_json::Value;

use super::Report;
use super::mesh::{MODE, PROXY, injector, injects, is_ambient};
use crate::message::list;
use crate::{Body, Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let by_default = by_default(world);
    for one in world.of(Kind::Namespace).filter(|one| *one.name != *"istio-system") {
        let labels = &one.labels;
        let injection = labels.get(names::label::INJECTION);
        let revision = labels.get(names::label::REVISION);
        let mut said: Vec<String> = Vec::new();
        said.extend(injection.map(|word| format!("{}={word}", names::label::INJECTION)));
        if injection.is_none_or(|word| word == "enabled") {
            let others = [names::label::REVISION, MODE];
            said.extend(others.iter().filter_map(|name| Some(format!("{name}={}", labels.get(name)?))));
        }
        if said.len() > 1 {
            report.add(Code::NamespaceMultipleInjectionLabels, one, &[&list(&said)]);
        }
        if labels.get(MODE) == Some("ambient")
            || injection.is_some_and(|word| !word.is_empty())
            || revision.is_some()
        {
            continue;
        }
        if by_default.get(&injector("")).copied().unwrap_or_default() {
            report.add(Code::NamespaceInjectionEnabledByDefault, one, &[]);
        } else {
            let values = [&*one.name, &*one.name];
            report.add_at(Code::NamespaceNotInjected, one, "metadata.name", &values);
        }
    }
    pods(world, report);
}

/// Whether namespaces take part without a label, by the injector's ConfigMap.
fn by_default(world: &World) -> HashMap<String, bool> {
    let maps = world.of(Kind::ConfigMap).filter(|one| one.name.starts_with(&injector("")));
    maps.filter_map(|one| {
        let Body::ConfigMap(data) = &one.body else { return None };
        let values: Value = serde_json::from_str(data.get("values")?).ok()?;
        let is_set = values.pointer("/sidecarInjectorWebhook/enableNamespacesByDefault")?.as_bool()?;
        Some((one.name.to_string(), is_set))
    })
    .collect()
}

fn pods<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, spec) in world.pods() {
        let is_injected =
            *one.namespace != *"istio-system" && world.namespace_labels(&one.namespace).is_some_and(injects);
        if !is_injected || spec.host_network || is_ambient(one) {
            continue;
        }
        let said = one.labels.get(names::label::INJECT).or_else(|| one.annotations.get(names::label::INJECT));
        if said.is_some_and(|word| word.eq_ignore_ascii_case("false")) {
            continue;
        }
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        if !containers.any(|container| *container.name == *PROXY && !container.image.is_empty()) {
            report.add(Code::PodMissingProxy, one, &[&one.full_name()]);
        }
    }
}
