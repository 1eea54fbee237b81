//! What the API server asks before it stores an object.
//!
//! [`server`] takes the questions over HTTPS and gives them to whoever is
//! responsible for their path; [`inject`] puts sidecars into pods, [`validate`]
//! refuses objects that are wrong. [`bundle`] makes the API server trust us.

pub mod bundle;
pub mod config_map;
pub mod files;
pub mod inject;
pub mod metrics;
mod places;
pub mod server;
pub mod validate;
pub mod vet;

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings of the webhooks.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where they listen, if they do.
    pub address: Option<SocketAddr>,
    /// Whether configurations of the injector are kept right.
    pub keeps_injection: bool,
    /// Whether those of the validator are.
    pub keeps_validation: bool,
    /// Directory of the injector's two documents, `config` and `values`.
    pub dir: PathBuf,
    /// Revision of the control plane; empty for the default one.
    pub revision: String,
    /// Rules of cryptography that proxies are told.
    pub compliance_policy: String,
    /// The platform of the cluster.
    pub platform: String,
    /// Whether sidecars are restartable init containers.
    pub native: ::inject::native_sidecar::Mode,
}
