//! What must hold of the sources and no other tool checks: which crate may use
//! which, and how long a file may be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Who may use whom, of ours. `tests` may use all.
const LAYERS: &[(&str, &[&str])] = &[
    ("names", &[]),
    ("runtime", &[]),
    ("proto", &[]),
    ("pki", &["names"]),
    ("xds", &["names", "proto"]),
    ("mesh", &["names", "proto"]),
    ("config", &["names", "proto", "mesh", "pki"]),
    ("pilot", &["names", "proto", "mesh", "config", "xds"]),
    ("inject", &["names", "proto", "mesh", "config"]),
    ("analysis", &["names", "proto", "mesh", "config", "pki"]),
    ("source", &["names", "config", "runtime"]),
    ("init", &["names", "runtime"]),
    ("telemetry", &[]),
    ("agent", &["init", "names", "runtime", "proto", "pki", "xds", "mesh"]),
    ("istiod", &["names", "runtime", "pki", "xds", "mesh", "config", "pilot", "inject", "source", "proto"]),
    ("istioctl", &["names", "runtime", "proto", "pki", "mesh", "config", "inject", "source", "analysis"]),
];

/// What the programs beside every workload must never link: it costs each pod.
const BANNED: &[(&str, &[&str])] = &[
    ("istio-agent", &["istio-config", "istio-pilot", "istio-source", "kube", "k8s-openapi", "reqwest"]),
    ("istio-telemetry", &["tokio", "rustls", "ring", "istio-proto", "chrono"]),
    ("istio-init", &["tokio", "rustls", "ring", "istio-proto", "prost", "tonic", "hyper", "kube"]),
];

/// Longest source file, in lines.
const LONGEST: usize = 600;
/// Files that may be longer, each with its reason.
const ALLOWED: &str = "scripts/size-allow.txt";

/// Checks the tree in the current directory.
///
/// # Errors
/// When it cannot be read. What is wrong with it is the answer.
pub fn run() -> anyhow::Result<Vec<String>> {
    let mut problems = layers()?;
    for (package, banned) in BANNED {
        let tree = cargo(&["tree", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])?;
        let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        problems.extend(
            banned.iter().filter(|name| linked.contains(*name)).map(|name| format!("{package} links {name}")),
        );
    }
    let allowed = fs::read_to_string(ALLOWED).unwrap_or_default();
    for file in sources(Path::new("."))? {
        let lines = fs::read_to_string(&file)?.lines().count();
        let name = file.strip_prefix(".").unwrap_or(&file).display().to_string();
        let is_allowed = allowed.lines().any(|line| line.split(' ').next() == Some(&name));
        if lines > LONGEST && !is_allowed {
            problems
                .push(format!("{name} has {lines} lines, more than {LONGEST}; split it, or see {ALLOWED}"));
        }
    }
    Ok(problems)
}

fn cargo(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("cargo").args(args).output().context("cargo")?;
    ensure!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn layers() -> anyhow::Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps"])?)?;
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("packages")? {
        let name = short(&package["name"]);
        let allowed = LAYERS.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
        if name == "tests" {
            continue;
        }
        let Some(allowed) = allowed else {
            problems.push(format!("{name} is in no layer; see tests/src/check.rs"));
            continue;
        };
        // Tests of a crate may use more.
        let used = package["dependencies"].as_array().context("dependencies")?.iter();
        let used = used.filter(|used| used["path"].is_string() && used["kind"].is_null());
        problems.extend(
            used.map(|used| short(&used["name"]))
                .filter(|used| !allowed.contains(used))
                .map(|used| format!("{name} uses {used}, which its layer does not allow")),
        );
    }
    Ok(problems)
}

/// The name of a package without what all of ours begin with.
fn short(name: &Value) -> &str {
    let name = name.as_str().unwrap_or_default();
    name.strip_prefix("istio-").unwrap_or(name)
}

/// Rust files that we wrote.
fn sources(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}
