//! The xDS transport protocol without its transport: what a server must
//! answer to a request, what a change must send, what was accepted.
//!
//! Both variants of the protocol (state of the world and incremental) run on
//! one [`session::Session`]; nothing here knows what is inside a resource or
//! opens a socket. [`frame`] reads just enough of a gRPC byte stream to tell
//! which messages pass.

pub mod frame;
pub mod resource;
pub mod session;
pub mod status;
pub mod wire;

pub use resource::Resource;
pub use session::{Answer, Reaction, Request, Session, TooManyNames, Variant, Verdict};
pub use status::{SyncState, TypeStatus};
