//! What is wrong with the objects of a mesh when they are looked at together,
//! and with each one alone: findings over a set of objects.
//!
//! [`analyzer`] is the table of analyzers; a new one is one row there and one
//! file beside the others. Nothing here reads files or asks a cluster: see
//! [`World`] for what is looked at, [`read`] for how text becomes that.

pub mod analyzer;
mod annotation;
mod finding;
mod hosts;
mod kind;
pub mod kube;
mod labels;
mod message;
mod pods;
pub mod read;
mod resource;
mod world;

pub use finding::{Finding, Message, Suppression, messages};
pub use kind::Kind;
pub use labels::Labels;
pub use message::{Code, DOCUMENTATION, Level, UnknownLevel};
pub use resource::{Body, Condition, Content, Resource, Source};
pub use world::{Scope, World};
