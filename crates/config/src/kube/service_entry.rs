//! `ServiceEntry` of `networking.istio.io`, with the part of its status that counts.

use std::ops::Deref;

use proto::istio::networking::v1alpha3::{self as api, ServiceEntryStatus};
use serde::Deserialize;

/// A service that is not of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct ServiceEntry {
    /// What the user wrote.
    pub spec: api::ServiceEntry,
    /// Addresses that were allocated for its hosts.
    pub status: ServiceEntryStatus,
}

impl Deref for ServiceEntry {
    type Target = api::ServiceEntry;

    fn deref(&self) -> &api::ServiceEntry {
        &self.spec
    }
}
