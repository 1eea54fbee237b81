//! AuthorizationPolicies for workloads and of namespaces that there are not.

use std::collections::HashSet;

use proto::istio::security::v1beta1::AuthorizationPolicy;

use super::Report;
use super::mesh::{has_sidecar, is_ambient};
use crate::kube::PodSpec;
use crate::labels::{pairs, selector};
use crate::{Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let namespaces = Namespaces::new(world);
    for (one, policy) in world.all::<AuthorizationPolicy>(Kind::AuthorizationPolicy) {
        workloads(world, one, &policy, report);
        sources(&namespaces, one, &policy, report);
    }
}

fn is_in_mesh(world: &World, one: &Resource, spec: &PodSpec) -> bool {
    let containers = spec.containers.iter().chain(&spec.init_containers);
    is_ambient(one) || has_sidecar(world, &one.namespace, &one.labels, &one.annotations, containers)
}

fn workloads<'a>(world: &'a World, one: &'a Resource, policy: &AuthorizationPolicy, report: &mut Report<'a>) {
    let is_for_all = *one.namespace == *world.mesh.root_namespace;
    let namespace = (!is_for_all).then_some(&*one.namespace);
    let Some(wanted) = &policy.selector else {
        let has_target = policy.target_ref.is_some() || !policy.target_refs.is_empty();
        let mut pods = world.selected_pods(namespace, std::iter::empty());
        if !is_for_all && !has_target && !pods.any(|(pod, spec)| is_in_mesh(world, pod, spec)) {
            report.add(Code::NoMatchingWorkloadsFound, one, &[""]);
        }
        return;
    };
    let labels = pairs(&wanted.match_labels);
    let mut pods = world.selected_pods(namespace, labels.clone());
    if !pods.any(|(pod, spec)| is_in_mesh(world, pod, spec)) {
        report.add(Code::NoMatchingWorkloadsFound, one, &[&selector(labels)]);
    }
}

fn sources<'a>(
    namespaces: &Namespaces,
    one: &'a Resource,
    policy: &AuthorizationPolicy,
    report: &mut Report<'a>,
) {
    for (i, rule) in policy.rules.iter().enumerate() {
        for (j, from) in rule.from.iter().enumerate() {
            let Some(source) = &from.source else { continue };
            for (list, patterns) in
                [("namespaces", &source.namespaces), ("notNamespaces", &source.not_namespaces)]
            {
                for (k, pattern) in patterns.iter().enumerate() {
                    if !namespaces.has(pattern) {
                        let field = format!("spec.rules[{i}].from[{j}].source.{list}[{k}]");
                        report.add_at(Code::ReferencedResourceNotFound, one, &field, &["namespace", pattern]);
                    }
                }
            }
        }
    }
}

struct Namespaces(HashSet<String>);

impl Namespaces {
    fn new(world: &World) -> Self {
        Self(world.of(Kind::Namespace).map(|one| one.name.to_ascii_lowercase()).collect())
    }

    fn has(&self, pattern: &str) -> bool {
        if pattern == "*" {
            true
        } else if let Some(end) = pattern.strip_prefix('*') {
            self.0.iter().any(|name| name.ends_with(end))
        } else if let Some(start) = pattern.strip_suffix('*') {
            self.0.iter().any(|name| name.starts_with(start))
        } else {
            self.0.contains(&pattern.to_ascii_lowercase())
        }
    }
}
