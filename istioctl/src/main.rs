//! The program `istioctl`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use istioctl::args::{Cli, Command, Experimental};
use istioctl::command::{
    analyze, completion, dashboard, envoy_stats, internal_debug, kube_inject, proxy_config, proxy_status,
    validate, version, why,
};
use istioctl::failure::{Failure, Result, USAGE};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to be said when standard error is gone.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = runtime.block_on(run(&cli, &mut out)).and(out.flush().map_err(Failure::from));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` does.
        Err(failure) if is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            // What was answered before the failure is told first.
            drop(out.flush());
            failure.report()
        }
    }
}

async fn run(cli: &Cli, out: &mut impl io::Write) -> Result {
    let global = &cli.global;
    match &cli.command {
        Command::Analyze(args) => analyze::run(args, &cli.global, out).await,
        Command::Completion { shell } => completion::run(*shell, out),
        Command::Dashboard(args) => dashboard::run(args, global, out).await,
        Command::Experimental { command: Experimental::EnvoyStats(args) } => {
            envoy_stats::run(args, global, out).await
        }
        Command::Experimental { command: Experimental::InternalDebug(args) } => {
            internal_debug::run(args, global, out).await
        }
        Command::KubeInject(args) => Ok(out.write_all(kube_inject::run(args, global).await?.as_bytes())?),
        Command::ProxyConfig(args) => proxy_config::run(args, global, out).await,
        Command::ProxyStatus(args) => proxy_status::run(args, global, out).await,
        Command::Validate(args) => validate::run(args),
        Command::Version(args) => version::run(args, global, out).await,
        Command::Why(args) => why::run(args, global, out).await,
    }
}

fn is_broken_pipe(failure: &Failure) -> bool {
    let error = failure.error.as_ref().and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
