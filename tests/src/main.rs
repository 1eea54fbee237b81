//! `harness`: the longer parts of the project's scripts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use istio_tests::mesh::place::{Name, remove_held};
use istio_tests::{app, bench, check, conformance, demo, echo, interrupt, oracle};

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
    /// Start a mesh on this machine and show it at work (needs root).
    Demo(Demo),
    /// Measure the mesh on this machine (needs root).
    Bench(Bench),
    /// Check layers and sizes of the sources.
    Check,
    /// Write the definitions of Istio's kinds for API servers.
    Crds(Crds),
    /// Serve the protocol core to the suite of ii/xds-test-harness.
    XdsAdapter(XdsAdapter),
    /// Be one of the demo's applications.
    App {
        /// Which: productpage, reviews, ratings, details.
        name: String,
        /// Which version.
        version: String,
    },
    /// Be the server of the case tables.
    Echo(Echo),
}

/// Flags of `harness demo`.
#[derive(Debug, clap::Args)]
struct Demo {
    /// `stop` removes what a demo left.
    #[arg(value_parser = ["stop"])]
    action: Option<String>,
    /// Leave the mesh running.
    #[arg(long)]
    keep: bool,
    /// The objects of the mesh.
    #[arg(long, default_value = "samples/bookinfo", value_name = "DIR")]
    objects: PathBuf,
    /// Name of the mesh; two of different names may run at a time.
    #[arg(long, default_value = demo::NAME)]
    name: Name,
}

/// Flags of `harness crds`.
#[derive(Debug, clap::Args)]
struct Crds {
    /// Only say whether the file in the tree is current.
    #[arg(long)]
    check: bool,
}

/// Flags of `harness bench`.
#[derive(Debug, clap::Args)]
struct Bench {
    /// What to measure.
    what: bench::What,
    /// The objects of the mesh.
    #[arg(long, default_value = "samples/bookinfo", value_name = "DIR")]
    objects: PathBuf,
    #[command(flatten)]
    amount: bench::Amount,
}

/// Flags of `harness echo`.
#[derive(Debug, clap::Args)]
struct Echo {
    /// What it calls itself.
    name: String,
    /// Address of its workload.
    address: Ipv4Addr,
    /// Also listen at the numbers that the ports have in a Service.
    #[arg(long)]
    outside: bool,
}

/// Flags of `harness xds-adapter`.
#[derive(Debug, clap::Args)]
struct XdsAdapter {
    /// Where xDS is served.
    #[arg(long, default_value = "127.0.0.1:18000")]
    xds: SocketAddr,
    /// Where the suite changes what is served.
    #[arg(long, default_value = "127.0.0.1:17000")]
    adapter: SocketAddr,
}

/// Flags of `harness oracle`.
#[derive(Debug, clap::Args)]
struct Oracle {
    /// Which recorded set: authz, init (needs root), xds.
    set: String,
    /// Where it lies.
    dir: PathBuf,
    /// Show the first difference of each case.
    #[arg(short, long)]
    verbose: bool,
    /// Only cases with this name; a trailing `*` matches the rest.
    #[arg(long)]
    only: Vec<String>,
    /// Of xds: this Envoy must take what is generated, too.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Oracle(args) => oracle(&args),
        Command::Demo(args) => demo(&args),
        Command::Bench(args) => bench(&args),
        Command::Check => check(),
        Command::Crds(args) => crds(&args),
        Command::XdsAdapter(args) => xds_adapter(&args),
        Command::App { name, version } => serve(&name, app::run(&name, &version)),
        Command::Echo(args) => serve(&args.name, echo::run(&args.name, args.address, args.outside)),
    }
}

fn bench(args: &Bench) -> ExitCode {
    interrupt::handle(remove_held, exit);
    let result =
        bench::options(&args.objects).and_then(|options| bench::run(args.what, &options, &args.amount));
    interrupt::wait_if_interrupted();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("harness bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn crds(args: &Crds) -> ExitCode {
    match istio_tests::kube::crd::write(Path::new("."), args.check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("harness crds: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> ExitCode {
    match check::run() {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            for problem in problems {
                eprintln!("harness check: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("harness check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn demo(args: &Demo) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("harness demo: network namespaces need root; use scripts/demo, which asks for it");
        return ExitCode::from(2);
    }
    let result = if args.action.is_some() {
        demo::stop(&args.name)
    } else {
        interrupt::handle(remove_held, exit);
        let result = demo::run(&demo::options(&args.name, &args.objects), args.keep);
        interrupt::wait_if_interrupted();
        result
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nharness demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is main's file; called when a signal ends the program")]
fn exit(code: i32) {
    std::process::exit(code);
}

fn serve(name: &str, program: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(program));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("harness app {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn xds_adapter(args: &XdsAdapter) -> ExitCode {
    let addresses = conformance::Addresses { xds: args.xds, adapter: args.adapter };
    let result = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = result.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            conformance::start(addresses).await?.wait().await;
            Ok(())
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("harness xds-adapter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A program beside this one.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn oracle(args: &Oracle) -> ExitCode {
    let result = match args.set.as_str() {
        "xds" => oracle::xds::run(&args.dir, &args.only, args.verbose, args.envoy.as_deref()),
        "inject" => oracle::inject::run(&args.dir, &args.only, args.verbose),
        "authz" => oracle::authz::run(&args.dir, &args.only, args.verbose),
        "ca" => tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(oracle::ca::run(&args.dir, &args.only, args.verbose))),
        "validate" => tokio::runtime::Runtime::new()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(oracle::validate::run(&args.dir, &args.only, args.verbose))),
        "xds-push" => oracle::xds_push::run(&args.dir, &args.only, args.verbose),
        "analyze" => program("istioctl")
            .and_then(|program| oracle::analyze::run(&args.dir, &program, &args.only, args.verbose)),
        "init" => program("istio-init")
            .and_then(|program| oracle::init::run(&args.dir, &program, &args.only, args.verbose)),
        "istioctl" => program("istioctl")
            .and_then(|program| oracle::istioctl::run(&args.dir, &program, &args.only, args.verbose)),
        set => {
            eprintln!(
                "harness oracle: the set {set:?} is not built yet; there are: authz, init, inject, xds"
            );
            return ExitCode::from(2);
        }
    };
    match result {
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
