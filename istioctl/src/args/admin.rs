//! Flags of `admin`.

use clap::{Args, Subcommand};

/// Examples below the help.
pub const EXAMPLES: &str = "Examples:
  # Levels of the log of istiod, by scope
  istioctl admin log
  # Of one istiod
  istioctl admin log istiod-5c868d8bdd-pmvgg
  # Change some
  istioctl admin log --level ads:debug,config:debug
  # All scopes at once
  istioctl admin log --level all:debug
  # As istiod is started without flags
  istioctl admin log --reset";

/// Flags of `admin`.
#[derive(Args, Debug)]
pub struct Admin {
    /// Labels of the control planes' pods.
    #[arg(short = 'l', long, global = true, default_value = "app=istiod", value_name = "LABELS")]
    pub selector: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Action,
}

/// What is done with a control plane.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Show what istiod logs, or change it while it runs.
    #[command(visible_alias = "l", after_help = EXAMPLES)]
    Log(Log),
}

/// Flags of `admin log`.
#[derive(Args, Debug)]
pub struct Log {
    /// The istiod; without it those of the revision: the first is shown, all are changed.
    #[arg(value_name = "POD")]
    pub pod: Option<String>,
    /// Levels to set, SCOPE:LEVEL separated by commas; a level is none, error, warn, info or
    /// debug, and the scope `all` stands for every scope.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "LEVELS",
        conflicts_with_all = ["reset", "log_reset"]
    )]
    pub level: String,
    /// Levels from which on lines have a stack trace, in the same form. Only Istio's own istiod
    /// knows others than none.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "LEVELS",
        conflicts_with_all = ["reset", "stack_trace_reset"]
    )]
    pub stack_trace_level: String,
    /// Set all levels to what they are without flags: info, and no stack traces.
    #[arg(long)]
    pub reset: bool,
    /// Set all levels of the log to info.
    #[arg(long)]
    pub log_reset: bool,
    /// Set all levels of stack traces to none.
    #[arg(long)]
    pub stack_trace_reset: bool,
    /// json, yaml or short.
    #[arg(short, long, default_value = "short", value_name = "FORMAT")]
    pub output: String,
    /// Revision of the control plane.
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub revision: String,
    /// The port of istiod that is asked (its --ctrlz_port).
    #[arg(long = "ctrlz_port", default_value_t = 9876, value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
}
