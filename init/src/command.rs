//! The command line, from words to an exit status. `istio-agent` has it as its
//! subcommand `istio-iptables`.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::app::{self, Failure};
use crate::args::Args;
use crate::config::{Config, env};
use crate::status::{Report, Status};
use crate::trace::Trace;
use crate::{detect, namespace};

/// Exit statuses of the original.
const REFUSED: u8 = 1;
const NOT_VALID: u8 = 126;
const USAGE: u8 = 255;

/// Runs the program with its words, the first of which is its name.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let result = match words.get(1).and_then(|word| word.to_str()) {
        Some("trace") => {
            words.remove(1);
            trace(words)
        }
        Some("status") => {
            words.remove(1);
            status(words)
        }
        _ => apply(words),
    };
    match result {
        Ok(code) => code,
        Err(Ending::Usage(error)) => {
            // Nothing is left to be said when standard error is gone.
            drop(error.print());
            ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
        }
        Err(Ending::Failed(code, message)) => {
            eprintln!("Error: {message}");
            ExitCode::from(code)
        }
    }
}

/// Why a run ends early.
enum Ending {
    Usage(clap::Error),
    Failed(u8, String),
}

impl From<clap::Error> for Ending {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<anyhow::Error> for Ending {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(REFUSED, format!("{error:#}"))
    }
}

fn apply(words: Vec<OsString>) -> Result<ExitCode, Ending> {
    let args = Args::try_parse_from(words)?;
    let config = configure(args)?;
    tracing::debug!("{config:?}");
    match app::run(&config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Refused(error)) => Err(error.into()),
        Err(Failure::NotValid(failure)) => Err(Ending::Failed(NOT_VALID, failure.to_string())),
    }
}

fn trace(words: Vec<OsString>) -> Result<ExitCode, Ending> {
    let (words, as_json) = without_format(words)?;
    let trace = Trace::try_parse_from(words)?;
    let config = configure(trace.flags.clone())?;
    say(&trace.run(&config, as_json)?)?;
    Ok(ExitCode::SUCCESS)
}

fn status(words: Vec<OsString>) -> Result<ExitCode, Ending> {
    let (words, as_json) = without_format(words)?;
    // Without flags there is nothing to compare with.
    let has_flags = words.len() > 1;
    let config = configure(Status::try_parse_from(words)?.flags)?;
    let report = Report::read(has_flags.then_some(&config))?;
    say(&if as_json { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(ExitCode::from(u8::from(report.has_drifted())))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Takes `-o json` or `-o text` out: `-o` is a flag with ports as well, and no
/// port is called so.
fn without_format(words: Vec<OsString>) -> Result<(Vec<OsString>, bool), clap::Error> {
    let mut rest = Vec::new();
    let mut as_json = false;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let value = match text.as_str() {
            "-o" | "--output" => {
                let next = words.peek().map(|next| next.to_string_lossy().into_owned());
                next.filter(|next| text == "--output" || is_format(next)).inspect(|_| drop(words.next()))
            }
            _ => ["--output=", "-o="]
                .iter()
                .find_map(|start| text.strip_prefix(start))
                .filter(|value| text.starts_with("--output") || is_format(value))
                .map(ToOwned::to_owned),
        };
        match value.as_deref() {
            Some("json") => as_json = true,
            Some("text") => as_json = false,
            Some(other) => {
                let message = format!("--output: `{other}`: write text or json\n");
                return Err(clap::Error::raw(ErrorKind::InvalidValue, message));
            }
            None => rest.push(word),
        }
    }
    Ok((rest, as_json))
}

fn is_format(word: &str) -> bool {
    matches!(word, "json" | "text")
}

/// Starts the log and reads environment and system, in the namespace that is
/// asked for.
fn configure(args: Args) -> Result<Config, Ending> {
    let levels = args.log_output_level.parse();
    let levels = levels.map_err(|error| Ending::Failed(USAGE, format!("--log_output_level: {error}")))?;
    let as_json = args.log_as_json.unwrap_or(false);
    runtime::log::init(runtime::log::Options { levels, as_json, ..Default::default() });
    for target in args.log_target.iter().filter(|target| *target != "stdout") {
        tracing::warn!("--log_target {target} has no effect: the log goes to standard output");
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let (args, only, ignored) = env::complete(args, |name| std::env::var(name).ok());
    for variable in ignored {
        tracing::warn!("{variable}");
    }
    if let Some(path) = args.network_namespace.as_deref().filter(|path| !path.is_empty()) {
        namespace::enter(path.as_ref()).map_err(|error| Ending::Failed(REFUSED, error.to_string()))?;
    }
    Config::resolve(&args, &only, &detect::facts()).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Ending::Failed(REFUSED, lines.join("\nError: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_from_ports() {
        let read = |line: &str| {
            let words = line.split(' ').map(OsString::from).collect();
            without_format(words)
                .map(|(rest, as_json)| (rest.len(), as_json))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read("status -o json -o 22"), Ok((3, true)));
        assert_eq!(read("status --output=json"), Ok((1, true)));
        assert_eq!(read("status -o 22"), Ok((3, false)));
        assert_eq!(read("status -o"), Ok((2, false)));
        assert!(read("status --output yaml").unwrap_err().contains("text or json"));
    }
}
