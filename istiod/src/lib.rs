//! istiod, the control plane: configuration in, xDS and certificates out.
//!
//! [`app::build`] puts the parts together; [`world`] is the only writer of the
//! configuration, [`push`] brings it to the proxies, [`ca`] signs their
//! certificates, [`auth`] says who calls. Translation itself is in the crate
//! `pilot` and knows none of this.

pub mod ads;
pub mod app;
pub mod auth;
pub mod ca;
pub mod config;
pub mod debug;
pub mod drain;
pub mod front;
pub mod gateway_names;
pub mod grpc;
pub mod hosts;
pub mod jwks;
pub mod kube;
pub mod listener;
pub mod metrics;
pub mod origin;
pub mod program;
pub mod push;
pub mod register;
pub mod request;
pub mod scopes;
pub mod state_dir;
pub mod token;
pub mod webhook;
pub mod world;
