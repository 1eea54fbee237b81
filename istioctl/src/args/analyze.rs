//! Flags of `analyze`.

use std::path::PathBuf;

use analysis::Level;
use clap::{Args, Parser};

use super::switch::Switch as _;

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  # What is wrong in the cluster
  istioctl analyze
  # The same, as if these files were applied
  istioctl analyze a.yaml b.yaml my-app-config/
  # The files alone
  istioctl analyze --use-kube=false samples/bookinfo
  # Files that hold a whole cluster, with its pods and services
  istioctl analyze --use-kube=false --whole-cluster -A cluster.json
  # All but one message about the pods of a namespace
  istioctl analyze -S \"IST0103=Pod *.testing\"
  # The analyzers that there are
  istioctl analyze -L";

/// A command line of flags only.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Analyze,
}

impl Analyze {
    /// What is meant without a flag.
    ///
    /// # Errors
    /// Never: no flag must be given.
    pub fn without_flags() -> Result<Self, clap::Error> {
        Ok(Line::try_parse_from(["analyze"])?.flags)
    }
}

/// Flags of `analyze`.
#[derive(Args, Debug)]
pub struct Analyze {
    /// Files and directories; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub files: Vec<String>,
    /// List the analyzers, and do nothing else.
    #[arg(short = 'L', long)]
    pub list_analyzers: bool,
    /// Look at the cluster; with --use-kube=false at the files only.
    #[arg(short = 'k', long, default_value_t = true, switch())]
    pub use_kube: bool,
    /// Without a cluster: the files hold all of one, so that pods, services, namespaces, nodes
    /// and Secrets count, and what is not in them does not exist.
    #[arg(long)]
    pub whole_cluster: bool,
    /// Whether levels are colored; by default on a terminal.
    #[arg(long, switch())]
    pub color: Option<bool>,
    /// Kind of terminal; `dumb` has no colors.
    #[arg(long, hide = true, env = "TERM")]
    pub terminal: Option<String>,
    /// Say which analyzers have run.
    #[arg(short, long)]
    pub verbose: bool,
    /// Level from which on the exit code is 79: Info, Warning or Error.
    #[arg(long, default_value = "Error", value_name = "LEVEL")]
    pub failure_threshold: Level,
    /// Level from which on messages are told: Info, Warning or Error.
    #[arg(long, default_value = "Info", value_name = "LEVEL")]
    pub output_threshold: Level,
    /// log, json or yaml.
    #[arg(short, long, default_value = "log", value_name = "FORMAT")]
    pub output: String,
    /// Mesh configuration, in place of the cluster's.
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Messages that are not told, CODE=KIND NAME.NAMESPACE; `*` stands for any text. May be repeated.
    #[arg(short = 'S', long, value_name = "CODE=OBJECT")]
    pub suppress: Vec<String>,
    /// Longest wait for all answers of the cluster.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = super::duration)]
    pub timeout: std::time::Duration,
    /// Directories are read with all that is in them, with this flag or without.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Files that cannot be read do not change the exit code.
    #[arg(long)]
    pub ignore_unknown: bool,
    /// Revision whose objects are looked at.
    #[arg(short, long, default_value = "default", value_name = "NAME")]
    pub revision: String,
    /// Contexts of further clusters of the mesh; by default those of the remote Secrets. May be repeated.
    #[arg(long, value_name = "CONTEXT")]
    pub remote_contexts: Vec<String>,
    /// Analyzers that run, by name; all without it. May be repeated.
    #[arg(long, value_name = "NAME")]
    pub analyzer: Vec<String>,
}
