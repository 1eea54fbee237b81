//! Annotations of Istio on objects of Kubernetes: unknown, misplaced, wrong.

use super::Report;
use crate::annotation::{self, Known};
use crate::kube::PodSpec;
use crate::{Body, Code, Kind, Resource, World};

const KINDS: [Kind; 4] = [Kind::Namespace, Kind::Service, Kind::Pod, Kind::Deployment];

/// Those that are not the user's.
const ALWAYS_IGNORED: [&str; 3] =
    [names::annotation::INJECTION_STATUS, "gateway.istio.io/controller-version", "istio.io/rev"];

/// Those that the injector writes itself where a plugin redirects traffic.
const IGNORED_WITH_CNI: [&str; 4] = [
    "sidecar.istio.io/interceptionMode",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
];

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for one in KINDS.into_iter().flat_map(|kind| world.of(kind)) {
        for (name, value) in one.annotations.iter().filter(|(name, _)| annotation::is_istio(name)) {
            if !ALWAYS_IGNORED.contains(&name) {
                check(one, name, value, report);
            }
        }
    }
}

fn check<'a>(one: &'a Resource, name: &str, value: &str, report: &mut Report<'a>) {
    let field = format!("metadata.annotations.{name}");
    let Some(Known { resources, is_deprecated, .. }) = annotation::find(name) else {
        return report.add_at(Code::UnknownAnnotation, one, &field, &[name]);
    };
    let is_inject = name == names::label::INJECT;
    // Who writes both knows.
    if *is_deprecated && !(is_inject && one.labels.has(names::label::INJECT)) {
        let hint = if is_inject { " in favor of the \"sidecar.istio.io/inject\" label" } else { "" };
        report.add_at(Code::DeprecatedAnnotation, one, &field, &[name, hint]);
    }
    if resources.contains(&"Any") {
        return;
    }
    if !resources.contains(&one.kind.as_str()) {
        return report.add_at(Code::MisplacedAnnotation, one, &field, &[name, &resources.join(", ")]);
    }
    if let Err(why) = annotation::check(name, value) {
        report.add_at(Code::InvalidAnnotation, one, &field, &[name, &why]);
    }
}

/// Annotations of features that may change or go.
pub(super) fn alpha<'a>(world: &'a World, report: &mut Report<'a>) {
    for one in KINDS.into_iter().flat_map(|kind| world.of(kind)) {
        let by_plugin = matches!(&one.body, Body::Pod(spec) if !has_init(spec));
        for (name, _) in one.annotations.iter().filter(|(name, _)| !ALWAYS_IGNORED.contains(name)) {
            let is_alpha = annotation::find(name).is_some_and(|known| known.is_alpha);
            if is_alpha && !(by_plugin && IGNORED_WITH_CNI.contains(&name)) {
                report.add_at(Code::AlphaAnnotation, one, &format!("metadata.annotations.{name}"), &[name]);
            }
        }
    }
}

fn has_init(spec: &PodSpec) -> bool {
    spec.init_containers.iter().any(|one| *one.name == *"istio-init")
}
