//! The command line, from words to an exit status. `istio-agent` has it as its
//! subcommand `istio-iptables`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::app::{self, Failure};
use crate::args::Args;
use crate::config::{Config, env};
use crate::{detect, namespace};

/// Exit statuses of the original.
const REFUSED: u8 = 1;
const NOT_VALID: u8 = 126;
const USAGE: u8 = 255;

/// Runs the program with its words, the first of which is its name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    let args = match Args::try_parse_from(words) {
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
    let config = match configure(args) {
        Ok(config) => config,
        Err(errors) => return fail(REFUSED, &errors.join("\nError: ")),
    };
    tracing::debug!("{config:?}");
    match app::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused(error)) => fail(REFUSED, &format!("{error:#}")),
        Err(Failure::NotValid(message)) => fail(NOT_VALID, &message),
    }
}

/// Reads environment and system, in the namespace that is asked for.
fn configure(args: Args) -> Result<Config, Vec<String>> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let (args, only, ignored) = env::complete(args, |name| std::env::var(name).ok());
    for variable in ignored {
        tracing::warn!("{variable}");
    }
    if let Some(path) = args.network_namespace.as_deref().filter(|path| !path.is_empty()) {
        namespace::enter(path.as_ref()).map_err(|error| vec![error.to_string()])?;
    }
    Config::resolve(&args, &only, &detect::facts())
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("Error: {message}");
    ExitCode::from(code)
}
