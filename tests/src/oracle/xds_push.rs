//! The set `xds-push`: one change after the other, and what each pushed to one
//! proxy. We may push less, since we leave out what has not changed; never more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use config::{Key, Object, yaml};
use pilot::Proxy;
use prost::Message as _;
use proto::envoy::config::core::v3::Node;
use proto::reflect;
use serde::Deserialize;
use serde_json::Value;
use xds::Variant;

use super::Summary;
use crate::plane::{Plane, Pushed, Simulated};

/// A change with what was recorded.
#[derive(Debug, Deserialize)]
struct Step {
    step: usize,
    change: String,
    op: String,
    yaml: String,
    pushes: Value,
}

/// A recorded response.
#[derive(Debug, Deserialize)]
struct Recorded {
    r#type: String,
    resources: BTreeSet<String>,
    #[serde(default)]
    removed: BTreeSet<String>,
}

/// Applies all changes and compares what each pushes.
///
/// # Errors
/// When the set cannot be read.
pub fn run(dir: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let read = |name: &str| {
        fs::read_to_string(dir.join(name)).with_context(|| format!("{name} of {}", dir.display()))
    };
    let node: Value = serde_json::from_str(&read("proxy.json")?)?;
    let node = Node::decode(reflect::from_json("envoy.config.core.v3.Node", node)?.as_slice())?;
    let proxy = Proxy::from_node(&node).map_err(|error| anyhow!("proxy.json: {error}"))?;
    let steps: Vec<Step> = serde_json::from_str(&read("pushes.json")?).context("pushes.json")?;

    let mut settings = pilot::Settings::new(Arc::default(), "Kubernetes");
    // The recorder had it off: stock Envoy has no such filter of Istio's.
    settings.features.alpn = false;
    let mut plane = Plane::new(&settings, objects("base.yaml", &read("base.yaml")?)?);
    let mut client: Option<Simulated> = None;
    let mut summary = Summary { set: "xds-push", ..Summary::default() };
    for step in steps {
        let client = match &mut client {
            None => client.insert(Simulated::connect(
                &plane,
                proxy.clone(),
                Variant::Delta,
                |name| name.starts_with("outbound|"),
                &["80"],
            )?),
            Some(client) => {
                let objects = match objects("step.yaml", &step.yaml) {
                    Ok(objects) => objects,
                    // What Envoy would refuse is refused by us, and so changes nothing.
                    Err(error) => {
                        summary.listed += 1;
                        if verbose {
                            eprintln!("step {}, {}, is refused: {error:#}", step.step, step.change);
                        }
                        continue;
                    }
                };
                let keys: Vec<Key> = objects.iter().map(|object| object.key.clone()).collect();
                let changed = match step.op.as_str() {
                    "apply" => plane.change(objects, &[]),
                    "delete" => plane.change(Vec::new(), &keys),
                    op => bail!("step {}: what is {op:?}?", step.step),
                };
                if changed {
                    client.push(&plane)?;
                }
                client
            }
        };
        let pushed = client.take();
        let Ok(recorded) = serde_json::from_value::<Vec<Recorded>>(step.pushes.clone()) else { continue };
        let name = step.step.to_string();
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &name)) {
            continue;
        }
        let outcome = client.difference(&plane).map_or_else(|| compare(&pushed, &recorded, client), Err);
        match outcome {
            Ok(true) => summary.equal += 1,
            Ok(false) => summary.listed += 1,
            Err(why) => {
                summary.different += 1;
                if verbose {
                    eprintln!("step {}, {}: {why}", step.step, step.change);
                }
            }
        }
    }
    ensure!(client.is_some(), "pushes.json has no step");
    Ok(summary)
}

/// Whether all is equal, and not only less; or what is wrong.
fn compare(pushed: &[Pushed], recorded: &[Recorded], client: &Simulated) -> Result<bool, String> {
    let (ours, our_removed) =
        sets(pushed.iter().map(|pushed| (pushed.type_url.short(), &pushed.resources, &pushed.removed)));
    let (theirs, their_removed) =
        sets(recorded.iter().map(|pushed| (pushed.r#type.as_str(), &pushed.resources, &pushed.removed)));
    let more = |ours: &BTreeSet<(String, String)>, theirs: &BTreeSet<(String, String)>| {
        ours.difference(theirs).next().cloned()
    };
    if let Some((kind, name)) = more(&ours, &theirs) {
        return Err(format!("{kind} {name:?} is pushed"));
    }
    if let Some((kind, name)) = more(&our_removed, &their_removed) {
        return Err(format!("{kind} {name:?} is removed"));
    }
    // What they sent is there, what they removed is gone.
    let has: BTreeMap<&str, _> =
        client.state.iter().map(|(type_url, state)| (type_url.short(), state)).collect();
    let is_there = |(kind, name): &&(String, String)| {
        has.get(kind.as_str()).is_some_and(|state| state.contains_key(name.as_str()))
    };
    let gone = |entry: &&(String, String)| !their_removed.contains(*entry);
    // Endpoints of clusters that they have removed in the same step do not count.
    let is_cluster_removed = |entry: &&(String, String)| {
        entry.0 == "EDS" && their_removed.contains(&("CDS".to_owned(), entry.1.clone()))
    };
    let is_dropped = |entry: &&(String, String)| {
        // Their client's own late questions for clusters that went before.
        entry.0 == "EDS" && !has.get("CDS").is_some_and(|clusters| clusters.contains_key(entry.1.as_str()))
    };
    let missing = theirs
        .iter()
        .filter(gone)
        .filter(|entry| !is_cluster_removed(entry) && !is_dropped(entry))
        .find(|entry| !is_there(entry));
    if let Some((kind, name)) = missing {
        return Err(format!("{kind} {name:?} is missing"));
    }
    if let Some((kind, name)) = their_removed.iter().find(is_there) {
        return Err(format!("{kind} {name:?} is not removed"));
    }
    Ok(ours == theirs && our_removed == their_removed)
}

type Names = BTreeSet<(String, String)>;

/// Types with names, of several responses.
fn sets<'a, T: AsRef<str> + 'a>(
    responses: impl Iterator<Item = (&'a str, &'a BTreeSet<T>, &'a BTreeSet<T>)>,
) -> (Names, Names) {
    let (mut resources, mut removed) = (Names::new(), Names::new());
    let entry = |kind: &str, name: &T| (kind.to_owned(), name.as_ref().to_owned());
    for (kind, set, gone) in responses {
        resources.extend(set.iter().map(|name| entry(kind, name)));
        removed.extend(gone.iter().map(|name| entry(kind, name)));
    }
    (resources, removed)
}

fn objects(file: &str, text: &str) -> anyhow::Result<Vec<Object>> {
    let contents = yaml::read(file, text);
    match contents.problems.iter().find(|problem| problem.severity == config::Severity::Error) {
        Some(problem) => bail!("{problem}"),
        None => Ok(contents.objects),
    }
}
