//! Rules that look beside `spec`: at annotations, labels, the own namespace,
//! and at fields that are written and empty.

use proto::istio::networking::v1alpha3::Sidecar;
use proto::istio::networking::v1alpha3::service_entry::{Location, Resolution};
use proto::istio::security::v1beta1::authorization_policy::Action;
use serde_json::Value;

use super::sidecar::hosts;
use super::{Kind, Spec};
use crate::Meta;
use crate::validate::Checker;

/// On an AuthorizationPolicy: it only tells what it would do.
const DRY_RUN: &str = "istio.io/dry-run";
/// Objects that are to be refused whatever they say: somebody tries the webhook.
const ALWAYS_REJECT: [&str; 2] = ["istio.io/always-reject", "internal.istio.io/webhook-always-reject"];
/// With these the control plane marks objects that it has made of others.
const INTERNAL: [&str; 2] = ["internal.istio.io/parents", "internal.istio.io/parent-namespace"];
/// Name of the waypoint that traffic to a service goes through; `none` for none.
const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// Applies the rules to an object of Istio's kinds; fields are those of the
/// whole object.
pub(crate) fn check(value: &Value, meta: &Meta, spec: &Spec, checker: &mut Checker) {
    let annotation = |name: &str| format!("metadata.annotations.{name}");
    for name in ALWAYS_REJECT.into_iter().filter(|name| meta.annotations.contains_key(*name)) {
        checker.error(annotation(name), "the object is refused, as this annotation asks for");
    }
    for name in INTERNAL.into_iter().filter(|name| meta.annotations.contains_key(*name)) {
        checker.error(annotation(name), "is for objects that the control plane makes itself: remove it");
    }
    if let Some(text) = meta.annotations.get(DRY_RUN) {
        dry_run(&annotation(DRY_RUN), text, spec, checker);
    }
    match spec {
        Spec::ServiceEntry(entry) => {
            let waypoint = meta.labels.get(USE_WAYPOINT).map_or("", String::as_str);
            let has_waypoint = !waypoint.is_empty() && !waypoint.eq_ignore_ascii_case("none");
            let is_inside = entry.spec.location == i32::from(Location::MeshInternal);
            if has_waypoint && is_inside && entry.spec.resolution == i32::from(Resolution::DynamicDns) {
                let message = format!(
                    "MESH_INTERNAL with resolution DYNAMIC_DNS does not go through waypoints: write MESH_EXTERNAL, or remove the label {USE_WAYPOINT}"
                );
                checker.error("spec.location", message);
            }
        }
        Spec::Sidecar(sidecar) => own_namespace(meta, sidecar, checker),
        Spec::PeerAuthentication(_) if is_empty_map(value.pointer("/spec/portLevelMtls")) => {
            checker.error("spec.portLevelMtls", "is empty: name a port, or leave it out");
        }
        _ => {}
    }
}

fn dry_run(field: &str, text: &str, spec: &Spec, checker: &mut Checker) {
    let Spec::AuthorizationPolicy(policy) = spec else {
        return checker.error(field, format!("is for a {} only: remove it", Kind::AuthorizationPolicy));
    };
    if !matches!(policy.action(), Action::Allow | Action::Deny) {
        let message = format!("is for the actions ALLOW and DENY, not for {}", policy.action().as_str_name());
        checker.error(field, message);
    } else if !is_bool(text) {
        checker.error(field, format!("{text:?} is neither true nor false"));
    }
}

/// Whether Istio takes a text for a truth value.
fn is_bool(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"].contains(&text)
}

/// Hosts of egress listeners that are double once `.` is the own namespace.
fn own_namespace(meta: &Meta, sidecar: &Sidecar, checker: &mut Checker) {
    for (number, listener) in sidecar.egress.iter().enumerate() {
        let known = hosts::double(&listener.hosts, None);
        for index in hosts::double(&listener.hosts, Some(&meta.namespace)) {
            if !known.contains(&index) {
                let message = format!(
                    "{:?} is double: \".\" is the namespace {} as well",
                    listener.hosts[index], meta.namespace
                );
                checker.warn(format!("spec.egress[{number}].hosts[{index}]"), message);
            }
        }
    }
}

fn is_empty_map(value: Option<&Value>) -> bool {
    value.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
}

#[cfg(test)]
mod tests {
    use crate::{Severity, yaml};

    fn found(group: &str, kind: &str, metadata: &str, spec: &str) -> Vec<(Severity, String)> {
        let text = format!(
            "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: ns, {metadata}}}\nspec: {spec}\n"
        );
        let problems = yaml::read("a.yaml", &text).problems.into_iter();
        problems.map(|problem| (problem.severity, problem.field)).collect()
    }

    #[test]
    fn annotations_are_for_those_who_may_use_them() {
        let field = |name: &str| vec![(Severity::Error, format!("metadata.annotations.{name}"))];
        let dry_run = |value: &str| format!("annotations: {{istio.io/dry-run: '{value}'}}");
        let policy = |metadata: &str, spec: &str| found("security", "AuthorizationPolicy", metadata, spec);
        assert_eq!(policy(&dry_run("true"), "{}"), []);
        assert_eq!(policy(&dry_run("maybe"), "{}"), field("istio.io/dry-run"));
        assert_eq!(policy(&dry_run("true"), "{action: AUDIT}"), field("istio.io/dry-run"));
        assert_eq!(
            found("security", "RequestAuthentication", &dry_run("true"), "{}"),
            field("istio.io/dry-run")
        );
        for name in ["istio.io/always-reject", "internal.istio.io/parents"] {
            assert_eq!(policy(&format!("annotations: {{{name}: a}}"), "{}"), field(name));
        }
    }

    #[test]
    fn labels_and_the_own_namespace_count() {
        let entry = "{hosts: ['*.a.com'], location: MESH_INTERNAL, resolution: DYNAMIC_DNS, \
                     ports: [{name: http, number: 80, protocol: HTTP}]}";
        let with = |label: &str| {
            found("networking", "ServiceEntry", &format!("labels: {{istio.io/use-waypoint: {label}}}"), entry)
        };
        assert_eq!(with("w"), [(Severity::Error, "spec.location".into())]);
        assert_eq!(with("None"), []);
        let sidecar =
            |hosts: &str| found("networking", "Sidecar", "", &format!("{{egress: [{{hosts: {hosts}}}]}}"));
        assert_eq!(sidecar("['./*', ns/a.com]"), [(Severity::Warning, "spec.egress[0].hosts[1]".into())]);
        assert_eq!(sidecar("['./*', './a.com']"), [(Severity::Warning, "spec.egress[0].hosts[1]".into())]);
        assert_eq!(sidecar("['./*', other/a.com]"), []);
    }

    #[test]
    fn an_empty_map_of_ports_is_a_mistake() {
        let spec = "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}";
        assert_eq!(
            found("security", "PeerAuthentication", "", spec),
            [(Severity::Error, "spec.portLevelMtls".into())]
        );
    }
}
