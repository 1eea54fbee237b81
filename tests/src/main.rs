//! `harness`: the longer parts of the project's scripts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use istio_tests::oracle;

/// Tests, demo and benchmarks of the mesh.
#[derive(Debug, Parser)]
#[command(name = "harness", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare with recorded data.
    Oracle(Oracle),
}

/// Flags of `harness oracle`.
#[derive(Debug, clap::Args)]
struct Oracle {
    /// Which recorded set: xds.
    set: String,
    /// Where it lies.
    dir: PathBuf,
    /// Show the first difference of each case.
    #[arg(short, long)]
    verbose: bool,
    /// Only cases with this name; a trailing `*` matches the rest.
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Oracle(args) => oracle(&args),
    }
}

fn oracle(args: &Oracle) -> ExitCode {
    if args.set != "xds" {
        eprintln!("harness oracle: the set {:?} is not built yet; there is: xds", args.set);
        return ExitCode::from(2);
    }
    match oracle::xds::run(&args.dir, &args.only, args.verbose) {
        Ok(summary) => {
            #[expect(clippy::print_stdout, reason = "the answer of the command")]
            {
                println!("{summary}");
            }
            if summary.different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("harness oracle: {error:#}");
            ExitCode::from(2)
        }
    }
}
