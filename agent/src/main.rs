//! The program `istio-agent`.

use std::process::ExitCode;
use std::time::Duration;

use istio_agent::config::ISTIO_VERSION;
use istio_agent::config::args::{Args, Command, Log, Proxy};
use istio_agent::{app, command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Exit code of a command that could not do its work, as Istio's agent has it.
const FAILED: u8 = 255;
/// Threads for what blocks (names, RSA keys), gone again when idle.
const BLOCKING: (usize, Duration) = (2, Duration::from_secs(1));

fn main() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to be said when standard error is gone.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(BLOCKING.0).thread_keep_alive(BLOCKING.1);
    let result = match builder.build() {
        Ok(runtime) => runtime.block_on(run(args)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<u8> {
    let Args { log, command } = args;
    match command {
        Command::Proxy(args) => return proxy(&args, &log).await,
        Command::Wait(args) => command::wait::run(&args).await?,
        Command::Request(args) => command::request::run(&args).await?,
        Command::Version(args) => command::version(args.short)?,
    }
    Ok(0)
}

async fn proxy(args: &Proxy, log: &Log) -> anyhow::Result<u8> {
    runtime::log::init(log.options().map_err(anyhow::Error::msg)?);
    // Taken over before anything is started, so that nothing is ever left behind.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let config = app::configure(args, log.as_json).await?;
    tracing::debug!(version = ISTIO_VERSION, ?config, "configuration");
    let running = app::build(config).await?;
    let (tx, signals) = mpsc::channel(1);
    let forward = async {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tx.try_send(()).ok();
        }
    };
    tokio::select! { code = running.run(signals) => Ok(code), () = forward => Ok(FAILED) }
}
