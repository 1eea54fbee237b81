//! The program `istioctl`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use istioctl::args::{Cli, Command};
use istioctl::command::{kube_inject, proxy_status, validate};

/// Exit code of a command line that cannot be read, as Istio's has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to be said when standard error is gone.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let result = match &cli.command {
        Command::Version => Ok(format!("client version: {}\n", env!("CARGO_PKG_VERSION"))),
        Command::KubeInject(args) => kube_inject::run(args),
        Command::Validate(args) => validate::run(args),
        Command::ProxyStatus(args) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(proxy_status::run(args))),
    };
    match result.and_then(|text| Ok(std::io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
