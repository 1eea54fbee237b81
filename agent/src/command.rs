//! The small commands beside `proxy`.

pub mod request;
pub mod wait;

use std::io::Write as _;

use anyhow::Context as _;

use crate::config::ISTIO_VERSION;

/// Prints the version of the program and the release it behaves like.
///
/// # Errors
/// When it cannot be printed.
pub fn version(short: bool) -> anyhow::Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let text =
        if short { format!("{own}\n") } else { format!("istio-agent {own} (as Istio {ISTIO_VERSION})\n") };
    std::io::stdout().lock().write_all(text.as_bytes()).context("print the version")
}
