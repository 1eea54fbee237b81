//! TLS by the roots of the system, or without any.

use std::path::Path;

use pki::verify::{Proof, client_config, unverified_client_config};
use tokio_rustls::rustls::ClientConfig;

use super::Error;

/// Servers are verified by the roots of that file, or by those of the system.
/// They are read each time: hardly ever, and they are large in memory.
pub(super) fn verified(file: Option<&Path>) -> Result<ClientConfig, Error> {
    let none = "the system has none; install ca-certificates, or name a file in SSL_CERT_FILE";
    let file = match file {
        Some(file) => file,
        None => crate::identity::roots::system().ok_or_else(|| Error::Roots(none.into()))?,
    };
    let unusable = |why: &dyn std::fmt::Display| Error::Roots(format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| unusable(&error))?;
    // Bundles have comments in any encoding.
    client_config(&String::from_utf8_lossy(&pem), None, &[]).map_err(|error| unusable(&error))
}

/// Nobody is verified, as `WASM_INSECURE_REGISTRIES` wishes.
pub(super) fn unverified() -> Result<ClientConfig, Error> {
    unverified_client_config(Proof::Key, &[]).map_err(|error| Error::Roots(error.to_string()))
}
