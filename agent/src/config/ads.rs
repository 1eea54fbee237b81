//! Settings of xDS streams.

use std::time::Duration;

use crate::upstream::Keepalive;

/// How streams are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How dead peers are found, on both ends.
    pub keepalive: Keepalive,
    /// Streams of clients of the socket at the same time; each has a connection
    /// to istiod.
    pub streams_max: usize,
    /// A stream ends when a peer takes nothing of what it is sent for that long.
    pub stall: Duration,
}
