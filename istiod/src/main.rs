//! The program `istiod`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use istiod::config::args::{Cli, Command};
use istiod::{app, config, program, request, token};
use tokio::signal::unix::{SignalKind, signal};

/// Exit code for a command line or environment that cannot be used.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let levels = match cli.log.output_level.parse() {
        Ok(levels) => levels,
        Err(error) => return fail(USAGE, &format!("--log_output_level: {error}")),
    };
    match &cli.command {
        Command::Version => print(concat!("istiod ", env!("CARGO_PKG_VERSION"))),
        Command::Request(args) => match program::run(async { (request::run(args).await, Duration::ZERO) }) {
            Ok(Ok(answer)) => print(&answer),
            Ok(Err(error)) => fail(1, &format!("{error:#}")),
            Err(error) => fail(1, &format!("start threads: {error}")),
        },
        Command::Token(args) => match token::issue(args) {
            Ok(token) => print(&token),
            Err(error) => fail(1, &format!("{error:#}")),
        },
        Command::Discovery(args) => {
            runtime::log::init(runtime::log::Options {
                levels,
                as_json: cli.log.as_json,
                ..Default::default()
            });
            let environment: BTreeMap<String, String> = std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect();
            match config::env::resolve(args, |name| environment.get(name).cloned()) {
                Ok(settings) => run(settings.with_environment(environment)),
                Err(errors) => {
                    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    fail(USAGE, &lines.join("\n"))
                }
            }
        }
    }
}

fn run(settings: config::Settings) -> ExitCode {
    match program::run(discover(settings)) {
        Ok(code) => code,
        Err(error) => fail(1, &format!("start threads: {error}")),
    }
}

/// Serves until a signal comes; returns also the time that is left to end in.
async fn discover(settings: config::Settings) -> (ExitCode, Duration) {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                return (fail(1, &format!("signals: {error}")), Duration::ZERO);
            }
        };
    let deadline = settings.shutdown;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let running = tokio::select! {
        running = app::build(settings) => running,
        () = signalled() => return (ExitCode::SUCCESS, deadline),
    };
    let running = match running {
        Ok(running) => running,
        Err(error) => return (fail(1, &format!("{error:#}")), Duration::ZERO),
    };
    signalled().await;
    tracing::info!("istiod is stopping");
    let start = Instant::now();
    tokio::select! {
        () = running.stop() => {}
        () = signalled() => tracing::warn!("another signal: istiod ends at once"),
    }
    (ExitCode::SUCCESS, deadline.saturating_sub(start.elapsed()))
}

#[expect(clippy::print_stdout, reason = "the answer of the command")]
fn print(line: &str) -> ExitCode {
    println!("{line}");
    ExitCode::SUCCESS
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("istiod: {message}");
    ExitCode::from(code)
}
