//! Keys and certificates of the mesh: make, request, issue, check, renew.
//!
//! No file, no socket and no clock is touched here: the caller passes bytes
//! and the time.

pub mod bundle;
pub mod certificate;
pub mod crl;
pub mod csr;
pub mod issuer;
pub mod key;
pub mod pair;
mod path;
mod pem;
pub mod renew;
pub mod verify;
