//! What istiod has to do with a Kubernetes API server.
//!
//! [`connect`] makes the one client of the program. Parts that ask the API
//! server for something (tokens, locks, ConfigMaps) get a [`Connection`], a
//! clone of which is cheap: its client keeps to the limits that were asked for,
//! and its `health` says whether the API server answers at all.

pub mod access;
mod connection;
pub mod leader;
mod limit;
pub mod mesh;

pub use connection::{Connection, Error, Settings, connect};

/// The name of a ConfigMap of the control plane's revision; the default one's
/// has no revision in it.
#[must_use]
pub fn of_revision(name: &str, revision: &str) -> String {
    match revision {
        "" | "default" => name.to_owned(),
        revision => format!("{name}-{revision}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_revision_is_not_in_names() {
        for (revision, want) in [("", "istio"), ("default", "istio"), ("canary", "istio-canary")] {
            assert_eq!(super::of_revision("istio", revision), want);
        }
    }
}
