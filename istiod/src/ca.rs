//! Citadel: the certificate authority of the mesh.

pub mod authority;
pub mod config_maps;
pub mod crl;
pub mod expiry;
pub mod follow;
pub mod node;
pub mod overlap;
pub mod plugged;
pub mod registrar;
pub mod requests;
pub mod secret;
pub mod selfsigned;
pub mod service;
pub mod serving;
pub mod start;
pub mod trust_bundle;
