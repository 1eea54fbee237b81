//! Keys and certificates of the mesh: make, request, issue, check, renew.
//!
//! No file, no socket and no clock is touched here: the caller passes bytes
//! and the time.

pub mod certificate;
pub mod csr;
pub mod issuer;
pub mod key;
mod path;
pub mod renew;
pub mod verify;
