//! Whether the sidecar is a restartable init container.

use std::collections::BTreeMap;

/// Nodes that run them without doubt (Kubernetes made them stable in 1.33).
const MINOR: u32 = 33;

/// The switch `ENABLE_NATIVE_SIDECARS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where all nodes can.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "true" => Ok(Self::On),
            "false" => Ok(Self::Off),
            _ => Err("expected auto, true or false".into()),
        }
    }
}

/// Whether a pod gets one. `nodes` are the kubelets' versions by node, if they
/// are known; `node` is the pod's own, if it is assigned already.
#[must_use]
pub fn is_on(mode: Mode, nodes: Option<&BTreeMap<String, String>>, node: &str) -> bool {
    match (mode, nodes) {
        (Mode::On, _) => true,
        (Mode::Off, _) | (Mode::Auto, None) => false,
        (Mode::Auto, Some(nodes)) => match nodes.get(node) {
            Some(version) => can(version),
            None => nodes.values().all(|version| can(version)),
        },
    }
}

/// Whether a kubelet of that version can, `v1.33.1-gke.5`.
fn can(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.');
    let mut number = || -> Option<u32> {
        let part = parts.next()?;
        let digits = part.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let (Some(major), Some(minor)) = (number(), number()) else { return false };
    (major, minor) >= (1, MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_must_know_them_unless_the_pod_has_one() {
        let nodes: BTreeMap<String, String> =
            [("new", "v1.34.0"), ("old", "v1.28.5+k3s1")].map(|(k, v)| (k.into(), v.into())).into();
        assert!(!is_on(Mode::Auto, Some(&nodes), ""));
        assert!(is_on(Mode::Auto, Some(&nodes), "new"));
        assert!(!is_on(Mode::Auto, Some(&nodes), "old"));
        assert!(!is_on(Mode::Auto, Some(&nodes), "unknown"));
        assert!(is_on(Mode::Auto, Some(&BTreeMap::new()), ""));
        assert!(!is_on(Mode::Auto, None, ""));
        assert!(is_on(Mode::On, Some(&nodes), "old"));
        assert!(!is_on(Mode::Off, None, "new"));
        assert!(can("v1.33+") && can("1.40.1-gke.100") && can("v2.0.0"));
        assert!(!can("") && !can("v1") && !can("x.y"));
    }
}
