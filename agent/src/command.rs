//! The small commands beside `proxy`.

pub mod request;
pub mod version;
pub mod wait;

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::config::args::{Args, Completion};

/// Prints the script that completes command lines in a shell.
///
/// # Errors
/// When it cannot be printed.
pub fn completion(args: &Completion) -> anyhow::Result<()> {
    let mut command = Args::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    std::io::stdout().lock().write_all(&script).context("print the script")
}
