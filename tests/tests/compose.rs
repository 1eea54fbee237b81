//! The images and `deploy/compose` with a Docker engine of the test's own (root).
//! Where no engine can run, the suite says so and is left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, ensure};
use istio_tests::docker::Docker;
use istio_tests::mesh::Mesh;
use istio_tests::program::{MODULE, Programs, can_run};
use libtest_mimic::{Arguments, Trial};

/// Names the archive of the system that images are built on (`scripts/test`).
const BASE: &str = "ISTIO_TEST_BASE_IMAGE";
/// Images that the test makes: the bare system, and the same with programs in /out.
const BASE_TAG: &str = "istio-mesh/base";
const PREBUILT_TAG: &str = "istio-mesh/prebuilt";

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let engine = match can_run() {
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
        Ok(false) => Err(anyhow::anyhow!("it needs root")),
        Ok(true) if args.list => Err(anyhow::anyhow!("only listed")),
        Ok(true) => engine(),
    };
    let is_possible = engine.is_ok();
    let trial = match engine {
        Ok(docker) => Trial::test(CASE, move || mesh(&docker).map_err(|error| format!("{error:#}").into())),
        Err(error) => {
            eprintln!("no Docker engine here, {CASE} is left out: {error:#}");
            Trial::test(CASE, || Ok(()))
        }
    };
    libtest_mimic::run(&args, vec![trial.with_ignored_flag(!is_possible)]).exit_code()
}

const CASE: &str = "two_applications_of_docker_compose_talk_over_mutual_tls";

fn engine() -> anyhow::Result<Docker> {
    // The path of a socket may have 107 bytes.
    let dir = PathBuf::from(format!("/tmp/istio-docker-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
    Docker::start(&dir)
}

fn mesh(docker: &Docker) -> anyhow::Result<()> {
    build(docker)?;
    let compose = |args: &[&str]| {
        let mut command = docker.compose(&[&["-p", "istio-test"], args].concat());
        command.current_dir(root().join("deploy/compose"));
        docker.output(&mut command)
    };
    let result = compose(&["up", "-d", "--no-build"]).and_then(|_| check(&compose));
    if result.is_err() {
        eprintln!("{}", compose(&["logs", "--no-color"]).unwrap_or_default());
    }
    let removed = compose(&["down", "-v", "-t", "20"]);
    result?;
    removed.map(drop)
}

/// What README says of it.
fn check(compose: &impl Fn(&[&str]) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let curl = |from: &str, url: &str| compose(&["exec", "-T", from, "curl", "-sS", "-m", "5", url]);
    for (from, to) in [("shop", "catalog"), ("catalog", "shop")] {
        Mesh::wait(&format!("{from} calls {to}"), || {
            let answer = curl(from, &format!("http://{to}:8000/"))?;
            let wanted = format!("called by spiffe://cluster.local/ns/default/sa/{from}");
            ensure!(answer.trim() == wanted, "{answer:?} is not {wanted:?}");
            Ok(())
        })?;
    }
    for (name, reporter) in [("shop", "source"), ("catalog", "destination")] {
        Mesh::wait(&format!("{name} counts"), || {
            let metrics = curl(name, "http://localhost:15020/stats/prometheus")?;
            let wanted = [
                "istio_requests_total{",
                &format!("reporter=\"{reporter}\""),
                "source_workload=\"shop-v1\"",
                "destination_workload=\"catalog-v1\"",
                "connection_security_policy",
            ];
            let is_there = metrics.lines().any(|line| wanted.iter().all(|part| line.contains(part)));
            ensure!(is_there, "no istio_requests_total of shop's calls of catalog");
            Ok(())
        })?;
    }
    // The network of the application is in the mesh, the one of istiod is not.
    let plain =
        "exec 3<>/dev/tcp/10.78.0.22/8000; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; head -c1 <&3 | wc -c";
    let answer = compose(&["exec", "-T", "istiod", "bash", "-c", plain])?;
    ensure!(answer.trim() == "0", "a caller without a certificate was answered {answer} byte");
    for name in ["shop-proxy", "catalog-proxy", "istiod"] {
        let user = compose(&["exec", "-T", name, "id", "-u"])?;
        ensure!(user.trim() == "1337", "{name} runs as {user}");
    }
    Ok(())
}

/// Builds the images on an imported system, with the programs that are there.
fn build(docker: &Docker) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the harness's environment")]
    let archive =
        std::env::var(BASE).with_context(|| format!("{BASE} is not set; use scripts/test compose"))?;
    docker.run(&["import", &archive, BASE_TAG])?;
    let context = tempfile::tempdir()?;
    let programs = Programs::find()?;
    fs::create_dir(context.path().join("out"))?;
    for name in ["istiod", "istio-agent", "istio-init"] {
        strip(&programs.ours(name), &context.path().join("out").join(name))?;
    }
    strip(&programs.module()?, &context.path().join("out").join(MODULE))?;
    fs::copy(&programs.envoy, context.path().join("out/envoy"))?;
    fs::write(context.path().join("Dockerfile"), format!("FROM {BASE_TAG}\nCOPY out /out\n"))?;
    docker.run(&["build", "-q", "-t", PREBUILT_TAG, &context.path().display().to_string()])?;

    let base = format!("BASE_IMAGE={BASE_TAG}");
    let (rust, envoy) = (format!("RUST_IMAGE={PREBUILT_TAG}"), format!("ENVOY_IMAGE={PREBUILT_TAG}"));
    // Package lists come over the network of the machine.
    let common = ["build", "-q", "--network", "host", "--build-arg", &base];
    for target in ["pilot", "proxyv2"] {
        let tag = format!("istio-mesh/{target}");
        let of = ["--build-arg", &rust, "--build-arg", &envoy, "--target", target, "-t", &tag];
        let context = root().display().to_string();
        docker.run(&[&common[..], &of, &[&context]].concat())?;
    }
    let context = root().join("deploy/compose/app").display().to_string();
    docker.run(&[&common[..], &["-t", "istio-mesh/app", &context]].concat())?;
    Ok(())
}

/// What debuggers need makes programs ten times as large.
fn strip(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status =
        Command::new("strip").arg("-o").args([to, from]).stdin(Stdio::null()).status().context("strip")?;
    ensure!(status.success(), "strip {}: {status}", from.display());
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
