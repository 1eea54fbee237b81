//! The small commands beside `proxy`.

pub mod request;
pub mod version;
pub mod wait;

use std::io::{ErrorKind, Write as _};

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
    print(&script)
}

/// Prints; a reader that has seen enough, such as `head`, is no error.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("print the answer"),
    }
}
