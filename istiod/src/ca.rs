//! Citadel: the certificate authority of the mesh.

pub mod authority;
pub mod plugged;
pub mod selfsigned;
pub mod service;
