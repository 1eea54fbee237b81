//! The program `istioctl`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use istioctl::args::authz::Authz;
use istioctl::args::injection::Injector;
use istioctl::args::{Cli, Command, Experimental, Global};
use istioctl::command::{
    admin, analyze, authz, bug_report, check_inject, completion, create_remote_secret, dashboard, describe,
    envoy_stats, graph, injector, internal_debug, kube_inject, metrics, precheck, proxy_config, proxy_status,
    remote_clusters, tag, validate, version, wait, why, workload,
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
        Command::Admin(args) => admin::run(args, global, out).await,
        Command::Analyze(args) => analyze::run(args, &cli.global, out).await,
        Command::BugReport(args) => bug_report::run(args, global, out).await,
        Command::Completion { shell } => completion::run(*shell, out),
        Command::CreateRemoteSecret(args) => create_remote_secret::run(args, global, out).await,
        Command::Dashboard(args) => dashboard::run(args, global, out).await,
        Command::Experimental { command } => experimental(command, global, out).await,
        Command::Graph(args) => graph::run(args, global, out).await,
        Command::KubeInject(args) => Ok(out.write_all(kube_inject::run(args, global).await?.as_bytes())?),
        Command::ProxyConfig(args) => proxy_config::run(args, global, out).await,
        Command::ProxyStatus(args) => proxy_status::run(args, global, out).await,
        Command::RemoteClusters(args) => remote_clusters::run(args, global, out).await,
        Command::Tag(args) => tag::run(args, global, out).await,
        Command::Validate(args) => validate::run(args),
        Command::Version(args) => version::run(args, global, out).await,
        Command::Why(args) => why::run(args, global, out).await,
    }
}

async fn experimental(command: &Experimental, global: &Global, out: &mut impl io::Write) -> Result {
    match command {
        Experimental::Authz { command: Authz::Check(args) } => authz::run(args, global, out).await,
        Experimental::CheckInject(args) => check_inject::run(args, global, out).await,
        Experimental::Describe { command } => describe::run(command, global, out).await,
        Experimental::EnvoyStats(args) => envoy_stats::run(args, global, out).await,
        Experimental::Injector { command: Injector::List } => injector::run(global, out).await,
        Experimental::InternalDebug(args) => internal_debug::run(args, global, out).await,
        Experimental::Metrics(args) => metrics::run(args, global, out).await,
        Experimental::Precheck(args) => precheck::run(args, global, out).await,
        Experimental::Wait(args) => wait::run(args, global, out).await,
        Experimental::Workload { command } => workload::run(command, global, out).await,
    }
}

fn is_broken_pipe(failure: &Failure) -> bool {
    let error = failure.error.as_ref().and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
