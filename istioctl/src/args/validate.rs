//! Flags of `validate`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `validate`.
#[derive(Args, Debug)]
pub struct Validate {
    /// Files and directories; `-` is standard input.
    #[arg(short, long = "filename", value_delimiter = ',', value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
