//! istiod beside a real API server. One cluster serves all cases, one after the
//! other; each leaves it as it found it.

#![expect(clippy::print_stdout, reason = "times that were measured are worth seeing")]

#[path = "kube/authority.rs"]
mod authority;
#[path = "kube/ca.rs"]
mod ca;
#[path = "kube/charts.rs"]
mod charts;
#[path = "kube/commands.rs"]
mod commands;
#[path = "kube/discovery.rs"]
mod discovery;
#[path = "kube/examples.rs"]
mod examples;
#[path = "kube/install.rs"]
mod install;
#[path = "kube/istioctl.rs"]
mod istioctl;
#[path = "kube/istioctl_more.rs"]
mod istioctl_more;
#[path = "kube/node.rs"]
mod node;
#[path = "kube/outage.rs"]
mod outage;
#[path = "kube/register.rs"]
mod register;
#[path = "kube/signers.rs"]
mod signers;
#[path = "kube/validate.rs"]
mod validate;

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use istio_tests::kube::{self, Cluster, Istiod};
use istio_tests::mesh::place::remove_held;
use istio_tests::program::REQUIRE;
use istio_tests::{interrupt, process};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

type Case = (&'static str, fn(&mut Stage) -> anyhow::Result<()>);

/// Everything that is claimed, in the order in which it runs.
const CASES: &[&[Case]] = &[
    discovery::CASES,
    ca::CASES,
    authority::CASES,
    signers::CASES,
    outage::CASES,
    register::CASES,
    validate::CASES,
    istioctl::CASES,
    istioctl_more::CASES,
    commands::CASES,
    examples::CASES,
    charts::CASES,
];

/// The sidecar that asks.
const NODE: &str = "sidecar~10.77.0.11~productpage-v1.default~default.svc.cluster.local";

/// A cluster, and the program that is tested.
struct Stage {
    cluster: Cluster,
    program: PathBuf,
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // They share one cluster.
    args.test_threads = Some(1);
    #[expect(clippy::disallowed_methods, reason = "the harness's one look at its environment")]
    let is_required = env::var(REQUIRE).is_ok_and(|value| value == "1");
    let is_possible = match kube::programs().and_then(|_| kube::clients()) {
        Ok(_) => true,
        Err(error) if is_required => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
        Err(error) => {
            eprintln!("{error:#}: all cases are left out");
            false
        }
    };
    // Whatever ends this program, nothing of it stays.
    let Ok(scratch) = tempfile::Builder::new().prefix("istio-kube-suite-").tempdir() else {
        eprintln!("no folder for files");
        return ExitCode::FAILURE;
    };
    tempfile::env::override_temp_dir(scratch.path()).ok();
    let dir = scratch.path().to_owned();
    let remove = move || {
        process::kill_all();
        remove_held();
        std::fs::remove_dir_all(dir).ok();
    };
    interrupt::handle(remove, exit);
    let stage: Arc<Mutex<Option<Stage>>> = Arc::default();
    let mut trials = Vec::new();
    for (name, case) in CASES.iter().copied().flatten() {
        let stage = stage.clone();
        let trial = Trial::test(*name, move || {
            let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
            let stage = match &mut *stage {
                Some(stage) => stage,
                none => none.insert(Stage::start().map_err(|error| format!("{error:#}"))?),
            };
            case(stage).map_err(|error| format!("{error:#}").into())
        });
        trials.push(trial.with_ignored_flag(!is_possible));
    }
    // Those with pods that run have a cluster of their own.
    let node = node::trials(&mut trials, is_possible);
    let conclusion = libtest_mimic::run(&args, trials);
    interrupt::wait_if_interrupted();
    drop(node.lock().unwrap_or_else(PoisonError::into_inner).take());
    // Ends its programs before this one ends.
    drop(stage.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit_code()
}

#[expect(clippy::disallowed_methods, reason = "called when a signal ends the program")]
fn exit(code: i32) {
    std::process::exit(code);
}

impl Stage {
    fn start() -> anyhow::Result<Self> {
        let here = env::current_exe().context("this program's file")?;
        let program = here.ancestors().skip(1).map(|dir| dir.join("istiod")).find(|file| file.is_file());
        let program = program.context("istiod is not built; run: cargo build -p istiod")?;
        Ok(Self { cluster: Cluster::start()?, program })
    }

    /// An istiod of the cluster that is ready.
    fn istiod(&self) -> anyhow::Result<Istiod> {
        let mut istiod = Istiod::of(&self.cluster, &self.program, &[])?;
        istiod.wait_ready()?;
        Ok(istiod)
    }

    /// Brings the definitions of Istio's kinds, as often as it is called.
    fn define(&self) -> anyhow::Result<()> {
        self.cluster.apply(&kube::crd::definitions()?)?;
        self.cluster.wait_defined()
    }

    /// Brings bookinfo.
    fn bookinfo(&self) -> anyhow::Result<()> {
        self.define()?;
        self.cluster.apply(&bookinfo()?)
    }
}

/// The objects of the sample as an API server takes them.
fn bookinfo() -> anyhow::Result<Vec<Value>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/bookinfo");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    let mut objects = Vec::new();
    for file in files {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(&file)?)?;
        objects.extend(documents.into_iter().filter(Value::is_object));
    }
    ensure!(objects.len() > 10, "the sample has {} objects", objects.len());
    for object in &mut objects {
        // The sample leaves out what the mesh does not read.
        let containers = object.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(|container| container["image"] = "example.com/none".into());
        if object["kind"] == "Pod" {
            object["status"]["podIPs"] = json!([{"ip": object["status"]["podIP"]}]);
            object["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
    }
    Ok(objects)
}

/// A service with one port.
fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    })
}

/// The outbound cluster of that service.
fn cluster_of(namespace: &str, name: &str) -> String {
    format!("outbound|80||{name}.{namespace}.svc.cluster.local")
}

/// What differs, by type and name.
fn differences(a: &kube::Resources, b: &kube::Resources) -> Vec<String> {
    let mut all = Vec::new();
    for (kind, of_a) in a {
        let none = BTreeMap::new();
        let of_b = b.get(kind).unwrap_or(&none);
        let names = of_a.keys().chain(of_b.keys());
        all.extend(
            names.filter(|name| of_a.get(*name) != of_b.get(*name)).map(|name| format!("{kind} {name}")),
        );
    }
    all.sort();
    all.dedup();
    all
}
