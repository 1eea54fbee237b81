//! Brings configuration to proxies: when ([`debounce`]), to whom and in which
//! order ([`connection`]), and what came of it ([`status`]).

mod admit;
pub mod bundles;
pub mod connection;
pub mod debounce;
mod proxyless;
mod secret;
pub mod status;
pub mod trust;
pub mod work;
