//! Which proxies a change reaches, by their namespaces.

use config::{Object, Spec};
use mesh::MeshConfig;
use proto::istio::networking::v1alpha3::DestinationRule;

use super::Change;
use crate::snapshot::visibility::Visibility;
use crate::snapshot::{Service, destination_rule};

/// Proxies by namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Those of all namespaces.
    Everyone,
    /// Those of these namespaces.
    Namespaces(Vec<String>),
}

impl Audience {
    /// Who sees an object, before the change or after it.
    pub(super) fn of(change: &Change, mesh: &MeshConfig) -> Self {
        let objects = change.old.iter().chain(&change.new);
        objects.map(|object| of_object(object, mesh)).fold(Self::Namespaces(Vec::new()), Self::and)
    }

    /// Whom an object of a namespace concerns that is not exported.
    pub(super) fn of_namespace(namespace: &str, mesh: &MeshConfig) -> Self {
        if namespace == mesh.root_namespace || namespace.is_empty() {
            return Self::Everyone;
        }
        Self::Namespaces(vec![namespace.to_owned()])
    }

    /// Who sees one of some services.
    pub(super) fn of_services<'a>(services: impl Iterator<Item = &'a Service>) -> Self {
        let seen = services.map(|service| of_visibility(&service.visibility));
        seen.fold(Self::Namespaces(Vec::new()), Self::and)
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Namespaces(mut some), Self::Namespaces(more)) => {
                some.extend(more);
                Self::Namespaces(some)
            }
            _ => Self::Everyone,
        }
    }
}

fn of_object(object: &Object, mesh: &MeshConfig) -> Audience {
    let namespace = &object.meta.namespace;
    let own = match Audience::of_namespace(namespace, mesh) {
        Audience::Everyone => return Audience::Everyone,
        own @ Audience::Namespaces(_) => own,
    };
    let exported =
        |list: &[String], default: &[String]| of_visibility(&Visibility::new(list, default, namespace));
    match &object.spec {
        // One without hosts is part of others, perhaps of other namespaces.
        Spec::VirtualService(spec) if spec.hosts.is_empty() => Audience::Everyone,
        Spec::VirtualService(spec) => exported(&spec.export_to, &mesh.default_virtual_service_export_to),
        // Proxies of its own namespace follow a rule whatever it says of others.
        Spec::DestinationRule(spec) => own.and(of_rule(spec, namespace, mesh)),
        _ => own,
    }
}

/// Whom a DestinationRule is for, as [`destination_rule::Index`] has it: one
/// that selects clients has those of its own namespace, and of the mesh's
/// default nothing but `.` keeps one from anybody.
fn of_rule(rule: &DestinationRule, namespace: &str, mesh: &MeshConfig) -> Audience {
    let none = Audience::Namespaces(Vec::new());
    if rule.workload_selector.is_some() {
        return none;
    }
    if !rule.export_to.is_empty() {
        return of_visibility(&Visibility::new(&rule.export_to, &[], namespace));
    }
    if destination_rule::is_private_by_default(mesh) { none } else { Audience::Everyone }
}

fn of_visibility(visibility: &Visibility) -> Audience {
    visibility.namespaces().map_or(Audience::Everyone, |list| Audience::Namespaces(list.to_vec()))
}
