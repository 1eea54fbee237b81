//! Puts sidecars and gateways into pods: a pod and settings in, the changed pod
//! out, as a JSON patch. No text is ever rendered: what a user writes in an
//! annotation can only become the value of the field that it is meant for.

mod annotation;
mod custom;
mod decide;
pub mod file;
mod merge;
pub mod native_sidecar;
mod openshift;
pub mod owner;
pub mod patch;
mod pipeline;
pub mod pod;
mod probe;
mod prometheus;
pub mod proxy_config;
mod quantity;
mod reinject;
pub mod select;
pub mod settings;
mod shape;
mod template;
mod url;
pub mod webhook;

pub use custom::Error as CustomError;
pub use decide::{IGNORED_NAMESPACES, Verdict, decide};
pub use pipeline::{Error, Request, inject};
pub use settings::Settings;
pub use shape::check as check_pod;
pub use url::variables;
