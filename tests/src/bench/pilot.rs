//! Translation alone, and istiod under many proxies.

pub mod cases;
pub mod generate;
pub mod herd;
pub mod live;
pub mod scale;

/// Bytes that were allocated so far; nothing when nobody counts.
pub type Allocated = fn() -> u64;
