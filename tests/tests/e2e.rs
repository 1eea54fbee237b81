//! A mesh with real Envoys in network namespaces (root). One mesh serves all
//! cases, one after the other; each leaves it as it found it.

#[path = "e2e/cases.rs"]
mod cases;
#[path = "e2e/certificate.rs"]
mod certificate;
#[path = "e2e/commands.rs"]
mod commands;
#[path = "e2e/configuration.rs"]
mod configuration;
#[path = "e2e/destinations.rs"]
mod destinations;
#[path = "e2e/dns.rs"]
mod dns;
#[path = "e2e/dynamic.rs"]
mod dynamic;
#[path = "e2e/example.rs"]
mod example;
#[path = "e2e/examples.rs"]
mod examples;
#[path = "e2e/extensions.rs"]
mod extensions;
#[path = "e2e/gateway.rs"]
mod gateway;
#[path = "e2e/graph.rs"]
mod graph;
#[path = "e2e/interruption.rs"]
mod interruption;
#[path = "e2e/istioctl.rs"]
mod istioctl;
#[path = "e2e/istioctl_more.rs"]
mod istioctl_more;
#[path = "e2e/life.rs"]
mod life;
#[path = "e2e/outage.rs"]
mod outage;
#[path = "e2e/policies.rs"]
mod policies;
#[path = "e2e/proxyless.rs"]
mod proxyless;
#[path = "e2e/register.rs"]
mod register;
#[path = "e2e/rotation.rs"]
mod rotation;
#[path = "e2e/routes.rs"]
mod routes;
#[path = "e2e/secure.rs"]
mod secure;
#[path = "e2e/services.rs"]
mod services;
#[path = "e2e/sidecar.rs"]
mod sidecar;
#[path = "e2e/start.rs"]
mod start;
#[path = "e2e/telemetry.rs"]
mod telemetry;
#[path = "e2e/telemetry_api.rs"]
mod telemetry_api;
#[path = "e2e/tracing.rs"]
mod tracing;
#[path = "e2e/traffic.rs"]
mod traffic;
#[path = "e2e/why.rs"]
mod why;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use istio_tests::load::Load;
use istio_tests::mesh::{Mesh, Options};
use istio_tests::program::{Programs, can_run};
use libtest_mimic::{Arguments, Trial};

type Case = (&'static str, fn(&mut Mesh) -> anyhow::Result<()>);

/// Everything that is claimed, in the order in which it runs.
const CASES: &[&[Case]] = &[
    traffic::CASES,
    example::CASES,
    configuration::CASES,
    sidecar::CASES,
    routes::CASES,
    destinations::CASES,
    certificate::CASES,
    proxyless::CASES,
    services::CASES,
    istioctl::CASES,
    istioctl_more::CASES,
    graph::CASES,
    telemetry_api::CASES,
    commands::CASES,
    examples::CASES,
    life::CASES,
    outage::CASES,
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They share one mesh.
    args.test_threads = Some(1);
    let is_possible = match can_run() {
        Ok(is_possible) => is_possible,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if !is_possible {
        eprintln!("network namespaces need root: all cases are left out; use scripts/test");
    }
    let mut trials: Vec<Trial> = Vec::new();
    let of_bookinfo = of_one_mesh(CASES.iter().copied().flatten(), bookinfo, &mut trials);
    let of_gateway = of_one_mesh(gateway::CASES, gateway::start, &mut trials);
    let of_extensions = of_one_mesh(extensions::CASES, extensions::start, &mut trials);
    let of_policies = of_one_mesh(policies::CASES, policies::start, &mut trials);
    let of_dynamic = of_one_mesh(dynamic::CASES, dynamic::start, &mut trials);
    let of_cases = of_one_mesh(cases::CASES, cases::start, &mut trials);
    let of_secure = of_one_mesh(secure::CASES, secure::start, &mut trials);
    let of_why = of_one_mesh(why::CASES, why::start, &mut trials);
    let of_telemetry = of_one_mesh(telemetry::CASES, telemetry::start, &mut trials);
    let of_tracing = of_one_mesh(tracing::CASES, tracing::start, &mut trials);
    let of_register = of_one_mesh(register::CASES, register::start, &mut trials);
    for (name, case) in
        start::CASES.iter().chain(interruption::CASES).chain(dns::CASES).chain(rotation::CASES)
    {
        trials.push(Trial::test(*name, move || case().map_err(|error| format!("{error:#}").into())));
    }
    for trial in &mut trials {
        *trial = std::mem::replace(trial, Trial::test("", || Ok(()))).with_ignored_flag(!is_possible);
    }
    let conclusion = libtest_mimic::run(&args, trials);
    // Removes everything before the program ends.
    for mesh in [
        of_bookinfo,
        of_gateway,
        of_extensions,
        of_policies,
        of_cases,
        of_dynamic,
        of_secure,
        of_register,
        of_why,
        of_telemetry,
        of_tracing,
    ] {
        drop(mesh.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
    conclusion.exit_code()
}

/// Adds cases that share a mesh, which the first one starts.
fn of_one_mesh(
    cases: impl IntoIterator<Item = &'static Case>,
    start: fn() -> anyhow::Result<Mesh>,
    trials: &mut Vec<Trial>,
) -> Arc<Mutex<Option<Mesh>>> {
    let mesh: Arc<Mutex<Option<Mesh>>> = Arc::default();
    for (name, case) in cases {
        let mesh = mesh.clone();
        trials.push(Trial::test(*name, move || {
            let mut mesh = mesh.lock().unwrap_or_else(PoisonError::into_inner);
            let mesh = match &mut *mesh {
                Some(mesh) => mesh,
                none => none.insert(start().map_err(|error| format!("{error:#}"))?),
            };
            case(mesh).map_err(|error| format!("{error:#}").into())
        }));
    }
    mesh
}

/// The objects of bookinfo.
fn objects() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/bookinfo")
}

fn bookinfo() -> anyhow::Result<Mesh> {
    let env = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let options = Options {
        name: "istio-e2e".parse()?,
        objects: objects(),
        agent_env: BTreeMap::from([
            // Renewed within a test, and none so soon that it disturbs another.
            ("productpage".into(), env(&[("SECRET_TTL", "20s")])),
            // The other variant of the protocol.
            ("details".into(), env(&[("ISTIO_DELTA_XDS", "false")])),
        ]),
    };
    Mesh::start(&Programs::find()?, &options, &mut |_| {})
}

/// Load on productpage that is well under way.
fn load(mesh: &Mesh) -> anyhow::Result<Load> {
    let load = Load::start(&mesh.client, mesh.ask_productpage()?, 8);
    more(&load, 50)?;
    Ok(load)
}

/// Waits for further good answers.
fn more(load: &Load, count: u64) -> anyhow::Result<()> {
    let wanted = load.good() + count;
    Mesh::wait("load", || {
        ensure!(load.good() >= wanted, "{} of {wanted} answers", load.good());
        Ok(())
    })
}

/// Ends the load, of which nothing may have failed.
fn none_failed(load: Load) -> anyhow::Result<()> {
    let report = load.stop()?;
    ensure!(report.good > 0 && report.failures() == 0, "{report}");
    Ok(())
}

/// The version of reviews that a user gets.
fn version(mesh: &Mesh, user: Option<&str>) -> anyhow::Result<String> {
    let answer = mesh.productpage(user)?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    Ok(answer.json()?["reviews"]["version"].as_str().unwrap_or_default().to_owned())
}

/// Waits for a version.
fn wait_version(mesh: &Mesh, user: Option<&str>, wanted: &str) -> anyhow::Result<()> {
    Mesh::wait(&format!("reviews {wanted} for {user:?}"), || {
        let seen = version(mesh, user)?;
        ensure!(seen == wanted, "{seen}");
        Ok(())
    })
}
