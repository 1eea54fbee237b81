//! What `apiVersion` and `kind` mean: one of our kinds, somebody else's, or a
//! mistake.

use super::Kind;
use crate::Severity;
use crate::validate::nearest;

/// Kinds that Istio has and that have no effect here yet.
const NOT_YET: &[(&str, &str)] = &[
    ("install.istio.io", "IstioOperator"),
    ("gateway.networking.k8s.io", "GatewayClass"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
    ("gateway.networking.k8s.io", "TCPRoute"),
    ("gateway.networking.k8s.io", "TLSRoute"),
    ("gateway.networking.k8s.io", "UDPRoute"),
    ("gateway.networking.k8s.io", "BackendTLSPolicy"),
    ("gateway.networking.k8s.io", "ReferenceGrant"),
];

/// What an object is.
pub(crate) enum Found {
    /// One of ours.
    Kind(Kind),
    /// Something that the mesh has nothing to do with.
    Foreign,
    /// Something that will not do what was meant.
    Problem { severity: Severity, field: &'static str, message: String },
}

impl Kind {
    /// What `apiVersion` and `kind` name.
    pub(crate) fn find(api_version: &str, kind: &str) -> Found {
        let error = |field, message| Found::Problem { severity: Severity::Error, field, message };
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let ours = |known: &&Self| known.as_str() == kind && known.group() == group;
        if let Some(found) = Self::ALL.iter().find(ours) {
            if found.versions().contains(&version) {
                return Found::Kind(*found);
            }
            let known: Vec<String> = found.versions().iter().map(|version| join(group, version)).collect();
            let message = format!("{api_version:?} is no version of {kind}: use {}", known.join(" or "));
            return error("apiVersion", message);
        }
        if NOT_YET.contains(&(group, kind)) {
            let message = format!("{kind} of {group} is not supported yet and has no effect");
            return Found::Problem { severity: Severity::Warning, field: "kind", message };
        }
        let known = || {
            let ours = Self::ALL.iter().map(|kind| (kind.group(), kind.as_str()));
            ours.chain(NOT_YET.iter().copied())
        };
        if let Some(near) = nearest(kind, known().filter(|known| known.0 == group).map(|known| known.1)) {
            return error("kind", format!("{api_version} has no kind {kind:?}: did you mean {near}?"));
        }
        if group.ends_with(".istio.io") && known().any(|known| known.0 == group) {
            return error("kind", format!("{api_version} has no kind {kind:?}"));
        }
        let groups = known().filter(|known| known.1 == kind && !known.0.is_empty()).map(|known| known.0);
        match nearest(group, groups) {
            Some(near) => {
                let message =
                    format!("{group:?} is no group of {kind}: did you mean {}?", join(near, version));
                error("apiVersion", message)
            }
            None => Found::Foreign,
        }
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
