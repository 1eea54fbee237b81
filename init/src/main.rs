//! The program `istio-init`.

use std::process::ExitCode;

use clap::Parser as _;
use istio_init::args::Args;
use istio_init::config::{Config, env};
use istio_init::{app, detect};

/// Exit code of a command line that cannot be read, as Istio's has it.
const USAGE: u8 = 255;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to be said when standard error is gone.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let levels = match args.log_output_level.parse() {
        Ok(levels) => levels,
        Err(error) => return fail(USAGE, &format!("--log_output_level: {error}")),
    };
    runtime::log::init(runtime::log::Options { levels, as_json: args.log_as_json.unwrap_or(false) });
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let (args, only, ignored) = env::complete(args, |name| std::env::var(name).ok());
    for variable in ignored {
        tracing::warn!("{variable}");
    }
    let config = match Config::resolve(&args, &only, &detect::facts()) {
        Ok(config) => config,
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            return fail(1, &lines.join("\nError: "));
        }
    };
    tracing::debug!("{config:?}");
    match app::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("{error:#}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("Error: {message}");
    ExitCode::from(code)
}
