//! Which proxies a change reaches, by their namespaces.

use config::{Object, Spec};
use mesh::MeshConfig;

use super::Change;
use crate::snapshot::Service;
use crate::snapshot::visibility::Visibility;

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
    if *namespace == mesh.root_namespace || namespace.is_empty() {
        return Audience::Everyone;
    }
    let own = Audience::Namespaces(vec![namespace.clone()]);
    let exported =
        |list: &[String], default: &[String]| of_visibility(&Visibility::new(list, default, namespace));
    match &object.spec {
        // One without hosts is part of others, perhaps of other namespaces.
        Spec::VirtualService(spec) if spec.hosts.is_empty() => Audience::Everyone,
        Spec::VirtualService(spec) => exported(&spec.export_to, &mesh.default_virtual_service_export_to),
        // Proxies of its own namespace follow a rule whatever it says of others.
        Spec::DestinationRule(spec) => {
            own.and(exported(&spec.export_to, &mesh.default_destination_rule_export_to))
        }
        _ => own,
    }
}

fn of_visibility(visibility: &Visibility) -> Audience {
    visibility.namespaces().map_or(Audience::Everyone, |list| Audience::Namespaces(list.to_vec()))
}
