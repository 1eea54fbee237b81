//! What every program of the mesh needs to run: logs, named tasks, retries, a
//! small HTTP server, file watching, addresses that are asked with care. Nothing here knows a word of the mesh.

pub mod address;
#[cfg(feature = "async")]
pub mod backoff;
#[cfg(feature = "async")]
pub mod code;
#[cfg(feature = "async")]
pub mod http;
pub mod log;
#[cfg(feature = "async")]
pub mod tasks;
#[cfg(feature = "async")]
pub mod watch;
