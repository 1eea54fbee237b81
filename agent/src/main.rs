//! The program `istio-agent`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use istio_agent::config::args::{Args, Command, Log, Proxy, is_for_init};
use istio_agent::{app, command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Megabytes of configuration pass through at a push, in buffers that musl would
/// ask of the kernel, page by page, each time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit code of a command that could not do its work, as Istio's agent has it.
const FAILED: u8 = 255;
/// Threads for what blocks (names, RSA keys), gone again when idle.
const BLOCKING: (usize, Duration) = (2, Duration::from_secs(1));

fn main() -> ExitCode {
    let line: Vec<_> = std::env::args_os().collect();
    if is_for_init(&line) {
        // It calls itself by that name in its help.
        return istio_init::command::run(
            std::iter::once("istio-iptables".into()).chain(line.into_iter().skip(1)),
        );
    }
    let args = match Args::read(line) {
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
        Ok(runtime) => {
            let result = runtime.block_on(run(args));
            // A look-up of a name may block for minutes, and nobody wants its answer any more.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {}", told(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its reasons; what it says of them itself is not said twice.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, reason| match text.as_str() {
        "" => reason,
        told if told.contains(&reason) => text,
        told => format!("{told}: {reason}"),
    })
}

async fn run(args: Args) -> anyhow::Result<u8> {
    let Args { log, command } = args;
    match command {
        Command::Proxy(args) => return proxy(&args, &log).await,
        Command::Wait(args) => {
            runtime::log::init(log.options().map_err(anyhow::Error::msg)?);
            command::wait::run(&args).await?;
        }
        Command::Request(args) => command::request::run(&args).await?,
        Command::IstioIptables => anyhow::bail!("write istio-iptables first, and its flags after it"),
        Command::Version(args) => command::version::run(&args)?,
        Command::Completion(args) => command::completion(&args)?,
    }
    Ok(0)
}

async fn proxy(args: &Proxy, log: &Log) -> anyhow::Result<u8> {
    runtime::log::init(log.options().map_err(anyhow::Error::msg)?);
    // The key is in this memory: no core file, and nobody of the same user may look.
    nix::sys::prctl::set_dumpable(false).context("PR_SET_DUMPABLE")?;
    // Taken over before anything is started, so that nothing is ever left behind.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tx, signals) = mpsc::channel(1);
    let forward = async {
        loop {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tx.try_send(()).ok();
        }
    };
    tokio::select! { code = app::run(args, log.as_json, signals) => code, () = forward => Ok(FAILED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once() {
        let told = |error: anyhow::Error| told(&error);
        let inner = || anyhow::anyhow!("refused");
        assert_eq!(
            told(inner().context("connect to x: refused; start it")),
            "connect to x: refused; start it"
        );
        assert_eq!(told(inner().context("connect to x").context("ask y")), "ask y: connect to x: refused");
    }
}
