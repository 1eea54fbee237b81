//! Where our module for Envoy is, and what it is told of the workload.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use names::annotation;
use serde_json::{Map, Value, json};

use super::super::env::{self, Reader};
use super::super::node::Node;
use super::{Inputs, PORT};
use crate::envoy::module::{FILE, Module};

/// Word that stands for no module.
const OFF: &str = "off";
/// Metadata of the node that the module tells peers and writes into metrics.
const TOLD: [&str; 10] = [
    "CLUSTER_ID",
    "INSTANCE_IPS",
    "ISTIO_VERSION",
    "LABELS",
    "MESH_ID",
    "NAME",
    "NAMESPACE",
    "OWNER",
    "SERVICE_ACCOUNT",
    "WORKLOAD_NAME",
];

/// The module that Envoy is to have, if its file is there.
pub(super) fn module(inputs: &Inputs<'_>, node: &Node, reader: &mut Reader<'_>) -> Option<Module> {
    let variable = env::ISTIO_TELEMETRY_MODULE;
    let told = reader.set(variable);
    if told == Some(OFF) {
        return None;
    }
    let found = match told {
        Some(path) => named(Path::new(path)).map_err(|why| format!("{}={path:?}: {why}", variable.name)),
        None if inputs.module_dirs.is_empty() => return None,
        None => beside(inputs.module_dirs),
    };
    match found {
        Ok(dir) => Some(Module {
            dir,
            node: Value::Object(told_of(node)).to_string(),
            buckets: buckets(inputs),
            port: reader.parse(env::ENVOY_PROMETHEUS_PORT, PORT),
        }),
        Err(why) => {
            reader.warning(format!("{why}: Envoy does not count Istio's metrics (istio_requests_total ...)"));
            None
        }
    }
}

/// The directory of a file that somebody names, or the directory itself.
fn named(path: &Path) -> Result<PathBuf, String> {
    let dir = if path.is_dir() {
        path
    } else if path.file_name().is_some_and(|name| name == FILE) {
        path.parent().unwrap_or(Path::new("."))
    } else {
        return Err(format!("expected {OFF}, a file of the name {FILE}, or a directory with it"));
    };
    let file = dir.join(FILE);
    File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    // Envoy may have another working directory.
    std::path::absolute(dir).map_err(|error| error.to_string())
}

/// The first of some directories that has it.
fn beside(dirs: &[PathBuf]) -> Result<PathBuf, String> {
    for dir in dirs {
        let file = dir.join(FILE);
        match File::open(&file) {
            Ok(_) => return Ok(dir.clone()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    let places: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    Err(format!("{FILE} is in none of {}", places.join(", ")))
}

fn told_of(node: &Node) -> Map<String, Value> {
    let told = TOLD.into_iter().filter_map(|name| Some((name.to_owned(), node.metadata.get(name)?.clone())));
    told.chain([("ID".to_owned(), json!(node.id.to_string()))]).collect()
}

/// Limits of buckets that the pod sets; what cannot be read is told elsewhere.
fn buckets(inputs: &Inputs<'_>) -> Option<String> {
    let text = inputs.annotations.get(annotation::STATS_HISTOGRAM_BUCKETS)?;
    let is_valid = serde_json::from_str::<BTreeMap<String, Vec<f64>>>(text).is_ok();
    is_valid.then(|| text.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LINE, root, with, with_modules};
    use super::*;

    fn place(dir: &Path) -> PathBuf {
        std::fs::write(dir.join(FILE), "").unwrap();
        dir.to_owned()
    }

    #[test]
    fn the_first_directory_that_has_it_counts() {
        let (pod, empty, full) = (root(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dirs = [empty.path().to_owned(), place(full.path())];
        let (config, warnings) = with_modules(pod.path(), &[], &dirs).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let module = config.late.module.unwrap();
        assert_eq!(module.dir, full.path());
        let node: Value = serde_json::from_str(&module.node).unwrap();
        assert_eq!(node["NAME"], "web-1");
        assert_eq!(node["ID"], config.node.id.to_string());
        assert_eq!(node["LABELS"], json!({"app": "web"}));
        assert_eq!(node["INSTANCE_IPS"], "10.1.0.10,10.1.0.11");
        assert!(node.get("PROXY_CONFIG").is_none());
    }

    #[test]
    fn without_it_a_warning_says_where_it_was_looked_for() {
        let (pod, empty) = (root(), tempfile::tempdir().unwrap());
        let (config, warnings) = with_modules(pod.path(), &[], &[empty.path().to_owned()]).unwrap();
        assert!(config.late.module.is_none());
        assert!(warnings[0].starts_with("libistio_telemetry.so is in none of /"), "{warnings:?}");
        let off = [("ISTIO_TELEMETRY_MODULE", "off"), ("ISTIO_META_TELEMETRY_MODULE", "1")];
        let (config, warnings) = with_modules(pod.path(), &off, &[place(empty.path())]).unwrap();
        assert!(config.late.module.is_none() && warnings.is_empty(), "{warnings:?}");
        assert!(
            !config.node.metadata.contains_key("TELEMETRY_MODULE"),
            "nobody else may say that it is there"
        );
        let no_envoy = [("DISABLE_ENVOY", "true")];
        let (config, warnings) = with_modules(pod.path(), &no_envoy, &[pod.path().to_owned()]).unwrap();
        assert!(config.late.module.is_none() && warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn a_file_or_its_directory_may_be_named() {
        let (pod, dir) = (root(), tempfile::tempdir().unwrap());
        let file = place(dir.path()).join(FILE);
        for path in [dir.path(), &file] {
            let named = [("ISTIO_TELEMETRY_MODULE", path.to_str().unwrap())];
            let (config, _) = with(pod.path(), LINE, &named, &[]).unwrap();
            assert_eq!(config.late.module.unwrap().dir, dir.path());
        }
        for (path, want) in
            [("/nowhere/libistio_telemetry.so", "No such file"), ("/bin/sh", "expected off, a file")]
        {
            let (config, warnings) =
                with(pod.path(), LINE, &[("ISTIO_TELEMETRY_MODULE", path)], &[]).unwrap();
            assert!(config.late.module.is_none());
            assert!(warnings[0].contains(want), "{warnings:?}");
        }
    }
}
