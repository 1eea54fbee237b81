//! TLS to an application whose certificate nobody checks: the kubelet does not
//! either, and the connection does not leave the pod.

use std::sync::Arc;

use pki::verify::{Error, Proof, unverified_client_config};
use tokio_rustls::TlsConnector;

/// Name of HTTP/2 in the handshake.
pub(super) const H2: &[u8] = b"h2";

/// A client that takes any certificate, and offers HTTP/2 if asked to.
pub(super) fn connector(http2: bool) -> Result<TlsConnector, Error> {
    let protocols: &[&[u8]] = if http2 { &[H2, b"http/1.1"] } else { &[] };
    Ok(TlsConnector::from(Arc::new(unverified_client_config(Proof::Nothing, protocols)?)))
}
