//! Flags of `graph`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::proxy_config::ADMIN_PORT;

/// Shown at the end of the help.
pub const EXAMPLES: &str = "Examples: istioctl graph --output mesh.html\n          \
    istioctl graph -n shop --interval 10s --output shop.svg\n          \
    istioctl graph -o json > mesh.json\n          \
    istioctl graph --file mesh.json --output mesh.html";

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A page with the picture and tables.
    Html,
    /// The picture.
    Svg,
    /// What the picture is drawn from.
    Json,
}

/// Flags of `graph`.
#[derive(Args, Debug)]
pub struct Graph {
    /// What is written; by the end of --output's name, or html.
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Where to write to; standard output without it.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Count for so long, and tell rates; else all since the proxies started.
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub interval: Option<Duration>,
    /// Draw what `-o json` has written, instead of asking a mesh; `-` is standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "interval")]
    pub file: Option<PathBuf>,
    /// Port of Envoy's admin pages.
    #[arg(long, default_value_t = ADMIN_PORT, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub proxy_admin_port: u16,
}
