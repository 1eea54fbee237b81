//! The set `xds`: objects and a proxy in, Envoy resources out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use config::{Store, yaml};
use mesh::{MeshConfig, MeshNetworks};
use names::TypeUrl;
use pilot::{Proxy, Snapshot};
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::reflect;
use serde_json::Value;
use xds::session::Wanted;

use super::Summary;
use super::accept;
use super::difference::{self, Difference, Rule};

/// Differences that are intended.
const RULES: &str = include_str!("../../data/oracle/xds-differences.yaml");
/// Age of objects that name none, as the recorder set it.
const CREATED: &str = "2024-06-01T00:00:00Z";

/// File, type and the field that names a resource.
const FILES: [(&str, TypeUrl, &str); 4] = [
    ("listeners.json", TypeUrl::Listener, "name"),
    ("clusters.json", TypeUrl::Cluster, "name"),
    ("routes.json", TypeUrl::Route, "name"),
    ("endpoints.json", TypeUrl::Endpoint, "clusterName"),
];

/// Recorded names of the mesh, where there are any.
const NAMES: &str = "nametable.json";

/// Compares all cases of a directory; with `envoy` a case also differs when
/// Envoy does not take what we generate.
///
/// # Errors
/// When the directory or a case cannot be read.
pub fn run(dir: &Path, only: &[String], verbose: bool, envoy: Option<&Path>) -> anyhow::Result<Summary> {
    let rules: Vec<Rule> = serde_saphyr::from_str(RULES).context("xds-differences.yaml")?;
    let mut cases: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("recorded cases in {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("input.yaml").is_file())
        .collect();
    cases.sort();
    let mut summary = Summary { set: "xds", ..Summary::default() };
    for case in cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &name)) {
            continue;
        }
        let outcome = compare(&case, &rules).and_then(|outcome| match envoy {
            Some(envoy) => accepted(&case, envoy).map(|()| outcome),
            None => Ok(outcome),
        });
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Different(format!("{error:#}")),
        };
        match outcome {
            Outcome::Equal => summary.equal += 1,
            Outcome::Listed => summary.listed += 1,
            Outcome::Different(what) => {
                summary.different += 1;
                if verbose {
                    eprintln!("{name}: {what}");
                }
            }
        }
    }
    Ok(summary)
}

/// As istiod would send it by default, which is more than what was recorded.
fn accepted(case: &Path, envoy: &Path) -> anyhow::Result<()> {
    let (mut settings, store, proxy) = inputs(case)?;
    settings.features = pilot::Features { dual_stack: settings.features.dual_stack, ..Default::default() };
    let scratch = tempfile::tempdir()?;
    accept::check(&Snapshot::build(&store, &settings), &proxy, envoy, scratch.path())
}

enum Outcome {
    Equal,
    Listed,
    Different(String),
}

fn compare(case: &Path, rules: &[Rule]) -> anyhow::Result<Outcome> {
    let (snapshot, proxy) = load(case)?;
    let mut is_listed = false;
    for (file, type_url, id) in FILES {
        let recorded: Vec<Value> = serde_json::from_str(&fs::read_to_string(case.join(file))?)?;
        let message = type_url.as_str().trim_start_matches("type.googleapis.com/");
        let mut theirs = BTreeMap::new();
        for resource in recorded {
            // Through the message and back: one spelling of every value.
            let bytes = reflect::from_json(message, resource)?;
            let resource = reflect::to_json(message, &bytes)?;
            let name = resource[id].as_str().context("a recorded resource without a name")?.to_owned();
            theirs.insert(name, resource);
        }
        let wanted = match type_url {
            TypeUrl::Cluster | TypeUrl::Listener => Wanted::All,
            _ => Wanted::Names(theirs.keys().map(|name| name.as_str().into()).collect()),
        };
        let mut ours = BTreeMap::new();
        for resource in pilot::generate(&snapshot, &proxy, &type_url, &wanted) {
            ours.insert(resource.name.to_string(), reflect::to_json(message, &resource.body)?);
        }
        if let Some(name) = ours.keys().find(|name| !theirs.contains_key(*name)) {
            return Ok(Outcome::Different(format!("{file}: {name} should not be there")));
        }
        for (name, theirs) in theirs {
            let Some(ours) = ours.get(&name) else {
                return Ok(Outcome::Different(format!("{file}: {name} is missing")));
            };
            match check(ours, &theirs, &type_url, rules) {
                None => {}
                Some(None) => is_listed = true,
                Some(Some(Difference { path, ours, theirs })) => {
                    let what = format!("{file}: {name}{path}\n    ours:   {ours}\n    theirs: {theirs}");
                    return Ok(Outcome::Different(what));
                }
            }
        }
    }
    if let Some(what) = names(case, &snapshot, &proxy)? {
        return Ok(Outcome::Different(what));
    }
    Ok(if is_listed { Outcome::Listed } else { Outcome::Equal })
}

/// How the name table differs, where one was recorded. Ports are ours alone.
fn names(case: &Path, snapshot: &Snapshot, proxy: &Proxy) -> anyhow::Result<Option<String>> {
    let Ok(text) = fs::read_to_string(case.join(NAMES)) else { return Ok(None) };
    let message = TypeUrl::NameTable.as_str().trim_start_matches("type.googleapis.com/");
    let [recorded]: [Value; 1] = serde_json::from_str(&text)?;
    let theirs = reflect::to_json(message, &reflect::from_json(message, recorded)?)?;
    let made = pilot::generate(snapshot, proxy, &TypeUrl::NameTable, &Wanted::All);
    let [resource] = made.as_slice() else { bail!("{} name tables", made.len()) };
    let mut ours = reflect::to_json(message, &resource.body)?;
    for info in ours["table"].as_object_mut().into_iter().flat_map(|table| table.values_mut()) {
        info.as_object_mut().map(|info| info.remove("ports"));
    }
    Ok(difference::first(&ours, &theirs, &is_unordered).map(|Difference { path, ours, theirs }| {
        format!("{NAMES}: {path}\n    ours:   {ours}\n    theirs: {theirs}")
    }))
}

/// `None`: equal. `Some(None)`: equal but for listed differences.
fn check(ours: &Value, theirs: &Value, type_url: &TypeUrl, rules: &[Rule]) -> Option<Option<Difference>> {
    difference::first(ours, theirs, &is_unordered)?;
    let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
    for rule in rules {
        let Some(path) = rule.path.strip_prefix(type_url.short()) else { continue };
        difference::remove(&mut ours, path);
        difference::remove(&mut theirs, path);
    }
    Some(difference::first(&ours, &theirs, &is_unordered))
}

/// Lists in which Envoy does not look at the order.
fn is_unordered(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    matches!(last, "queryParameters" | "filterChains" | "lbEndpoints" | "endpoints" | "virtualHosts")
}

fn load(case: &Path) -> anyhow::Result<(Snapshot, Proxy)> {
    let (settings, store, proxy) = inputs(case)?;
    Ok((Snapshot::build(&store, &settings), proxy))
}

fn inputs(case: &Path) -> anyhow::Result<(pilot::Settings, Store, Proxy)> {
    let text = fs::read_to_string(case.join("input.yaml"))?;
    let contents = yaml::read("input.yaml", &text);
    if let Some(problem) =
        contents.problems.iter().find(|problem| problem.severity == config::Severity::Error)
    {
        bail!("{problem}");
    }
    let mut store = Store::default();
    for mut object in contents.objects {
        if !object.key.kind.group().is_empty() && object.key.kind.group().ends_with("istio.io") {
            object.meta.creation_timestamp.get_or_insert_with(|| CREATED.into());
        }
        store.apply(Arc::new(object));
    }
    let mesh = match fs::read_to_string(case.join("mesh.yaml")) {
        Ok(text) => MeshConfig::from_yaml(&text)?,
        Err(_) => MeshConfig::default(),
    };
    let node: Value = serde_json::from_str(&fs::read_to_string(case.join("proxy.json"))?)?;
    let node = Node::decode(reflect::from_json("envoy.config.core.v3.Node", node)?.as_slice())?;
    let proxy = Proxy::from_node(&node).map_err(|error| anyhow!("proxy.json: {error}"))?;
    let mut settings = pilot::Settings::new(Arc::new(mesh), "Kubernetes");
    // The recorder had them off: stock Envoy has no such filters of Istio's.
    settings.features.alpn = false;
    settings.features.metadata_exchange = false;
    // No controller gave addresses there but those in the status of objects.
    settings.features.ip_autoallocate = false;
    settings.features.dual_stack = fs::read_to_string(case.join("features.env"))
        .is_ok_and(|text| text.contains("ISTIO_DUAL_STACK=true"));
    if let Ok(text) = fs::read_to_string(case.join("networks.yaml")) {
        settings.networks = Arc::new(MeshNetworks::from_yaml(&text)?);
    }
    Ok((settings, store, proxy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_what_was_recorded() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/oracle/xds");
        let summary = run(&dir, &[], true, None).unwrap();
        assert_eq!(summary.different, 0, "{summary}");
        assert!(summary.equal > 130, "{summary}");
    }
}
