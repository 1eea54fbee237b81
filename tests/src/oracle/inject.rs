//! The set `inject`: pods and workloads in, injected ones out; and which pods
//! the API server asks about.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use inject::native_sidecar::Mode;
use inject::webhook::{self, Situation};
use inject::{Settings, select};
use mesh::MeshConfig;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Summary;
use super::difference::{self, Rule};

/// Differences that are intended.
const RULES: &str = include_str!("../../data/oracle/inject-differences.yaml");
/// The rule that is about a whole case, not a place in it.
const GO_TEMPLATES: &str = "templates";
/// Strings that hold JSON.
const JSON_VARIABLES: [&str; 4] =
    ["ISTIO_KUBE_APP_PROBERS", "PROXY_CONFIG", "ISTIO_PROMETHEUS_ANNOTATIONS", "ISTIO_META_POD_PORTS"];
const JSON_ANNOTATIONS: [&str; 2] = ["sidecar.istio.io/status", "proxy.istio.io/overrides"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    mode: String,
    values: Value,
    mesh_config: Value,
    native_sidecars: String,
    node_kubelet_versions: Vec<String>,
    revision: String,
    policy: String,
    never_inject_selector: Value,
    always_inject_selector: Value,
    default_templates: Vec<String>,
    #[serde(default)]
    custom_templates: Option<BTreeMap<String, String>>,
    #[serde(default)]
    requests: Vec<Exchange>,
    #[serde(rename = "inputYAML", default)]
    input_yaml: String,
    #[serde(rename = "outputYAML", default)]
    output_yaml: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exchange {
    path: String,
    request: Value,
    response: Value,
    #[serde(default)]
    patched_pod: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    revision: String,
    enable_namespaces_by_default: bool,
    namespace_labels: BTreeMap<String, String>,
    pod_labels: BTreeMap<String, String>,
    webhooks: Vec<String>,
}

/// How a case came out.
enum Outcome {
    Equal,
    Listed,
    Different(String),
}

/// Compares all cases of a directory.
///
/// # Errors
/// When the directory or a case cannot be read.
pub fn run(dir: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let rules: Vec<Rule> = serde_saphyr::from_str(RULES).context("inject-differences.yaml")?;
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("recorded cases in {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    let mut summary = Summary { set: "inject", ..Summary::default() };
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &name)) {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let outcomes = match name.as_str() {
            "select" => selections(&text)?,
            "http-contract" => contract(&text)?,
            _ => vec![(
                name.clone(),
                case(&text, &rules).unwrap_or_else(|error| Outcome::Different(format!("{error:#}"))),
            )],
        };
        for (name, outcome) in outcomes {
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
    }
    Ok(summary)
}

fn case(text: &str, rules: &[Rule]) -> anyhow::Result<Outcome> {
    let case: Case = serde_json::from_str(text)?;
    let config = json!({
        "policy": case.policy,
        "neverInjectSelector": case.never_inject_selector,
        "alwaysInjectSelector": case.always_inject_selector,
        "defaultTemplates": case.default_templates,
        "templates": case.custom_templates,
    });
    let mesh = MeshConfig::from_yaml(&case.mesh_config.to_string())?;
    let settings = Settings::read(&config.to_string(), &case.values.to_string(), &case.revision)?;
    match case.mode.as_str() {
        "webhook" => {
            let mut outcome = Outcome::Equal;
            for (index, exchange) in case.requests.iter().enumerate() {
                match pod(&case, &settings, &mesh, exchange, rules)? {
                    Outcome::Equal => {}
                    Outcome::Listed => outcome = Outcome::Listed,
                    Outcome::Different(what) => {
                        return Ok(Outcome::Different(format!("request {index}: {what}")));
                    }
                }
            }
            Ok(outcome)
        }
        "kube-inject" => workloads(&case, &settings, &mesh, rules),
        other => bail!("no mode {other:?}"),
    }
}

fn pod(
    case: &Case,
    settings: &Settings,
    mesh: &MeshConfig,
    exchange: &Exchange,
    rules: &[Rule],
) -> anyhow::Result<Outcome> {
    let request = &exchange.request["request"];
    let pod = &request["object"];
    let namespace =
        pod["metadata"]["namespace"].as_str().or(request["namespace"].as_str()).unwrap_or_default();
    let theirs = &exchange.response["response"];
    if !inject::decide(settings, pod, namespace).is_injected {
        let is_same = theirs["allowed"] == true && exchange.patched_pod.is_none();
        return Ok(if is_same { Outcome::Equal } else { Outcome::Different("it is not injected".into()) });
    }
    let mode: Mode = case.native_sidecars.parse().map_err(anyhow::Error::msg)?;
    let nodes: BTreeMap<String, String> = case
        .node_kubelet_versions
        .iter()
        .enumerate()
        .map(|(index, version)| (format!("node-{index}"), version.clone()))
        .collect();
    let store = config::Store::default();
    // The recorded injector knew nodes of the cluster in the path, if there was one.
    let path = inject::variables(&exchange.path);
    let cluster = path.get("ISTIO_META_CLUSTER_ID").map_or("Kubernetes", String::as_str);
    let situation = Situation { mesh, store: &store, native: mode, nodes: Some(&nodes), cluster };
    let ask = webhook::request(settings, &situation, &exchange.path, pod, namespace);
    match (inject::inject(settings, &ask), &exchange.patched_pod) {
        (Ok(ours), Some(theirs)) => {
            let operations = inject::patch::between(pod, &ours);
            let mut patched = pod.clone();
            inject::patch::apply(&mut patched, &operations)?;
            Ok(compare(patched, theirs.clone(), rules))
        }
        (Err(error), None) => {
            let message = theirs["status"]["message"].as_str().unwrap_or_default();
            Ok(refusals(&error.to_string(), message))
        }
        (Ok(_), None) => Ok(Outcome::Different(format!("refused by Istio: {theirs}"))),
        (Err(inject::Error::Custom { source: inject::CustomError::GoText, .. }), Some(_)) => {
            let is_listed = rules.iter().any(|rule| rule.path == GO_TEMPLATES);
            Ok(if is_listed {
                Outcome::Listed
            } else {
                Outcome::Different("a template in Go's language".into())
            })
        }
        (Err(error), Some(_)) => Ok(Outcome::Different(format!("refused by us: {error}"))),
    }
}

/// Refusals name the same annotations; the reasons are ours.
fn refusals(ours: &str, theirs: &str) -> Outcome {
    if ours == theirs {
        return Outcome::Equal;
    }
    let annotations = |text: &str| -> Vec<String> {
        let mut found: Vec<String> = text
            .split("annotation '")
            .skip(1)
            .filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()))
            .collect();
        found.sort();
        found
    };
    let stage = |text: &str| text.split(": ").next().unwrap_or_default().to_owned();
    if annotations(ours) == annotations(theirs) && stage(ours) == stage(theirs) {
        Outcome::Listed
    } else {
        Outcome::Different(format!("refused\n    ours:   {ours}\n    theirs: {theirs}"))
    }
}

/// The documents of the file, and what was said to the user.
fn workloads(case: &Case, settings: &Settings, mesh: &MeshConfig, rules: &[Rule]) -> anyhow::Result<Outcome> {
    let mode: Mode = case.native_sidecars.parse().map_err(anyhow::Error::msg)?;
    // Istio's command asks the nodes of the cluster; ours has been told.
    let is_on = match mode {
        Mode::Auto => Mode::On,
        other => other,
    };
    let mut warnings = Vec::new();
    let ours =
        inject::file::inject(settings, mesh, is_on, &case.input_yaml, &mut |warning| warnings.push(warning));
    let (ours, theirs) = match (ours, &case.output_yaml, &case.error) {
        (Ok(ours), Some(theirs), None) => (ours, theirs),
        (Err(error), _, Some(theirs)) => return Ok(refusals(&error.to_string(), theirs)),
        (ours, ..) => bail!("ours: {ours:?}, theirs: {:?}", case.error),
    };
    if warnings != case.warnings.clone().unwrap_or_default() {
        return Ok(Outcome::Different(format!("warnings {warnings:?}, not {:?}", case.warnings)));
    }
    let documents = |text: &str| -> anyhow::Result<Value> {
        let documents = text.split("\n---\n").filter(|document| !document.trim().is_empty());
        let documents: Result<Vec<Value>, _> = documents.map(serde_saphyr::from_str).collect();
        Ok(documents?.into())
    };
    Ok(compare(documents(&ours)?, documents(theirs)?, rules))
}

fn compare(mut ours: Value, mut theirs: Value, rules: &[Rule]) -> Outcome {
    tidy(&mut ours);
    tidy(&mut theirs);
    if difference::first(&ours, &theirs, &|_| false).is_none() {
        return Outcome::Equal;
    }
    for rule in rules {
        difference::remove(&mut ours, &rule.path);
        difference::remove(&mut theirs, &rule.path);
    }
    match difference::first(&ours, &theirs, &|_| false) {
        None => Outcome::Listed,
        Some(found) => Outcome::Different(format!(
            "{}\n    ours:   {}\n    theirs: {}",
            found.path, found.ours, found.theirs
        )),
    }
}

/// Reads JSON within strings, and takes away what says nothing.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("name").and_then(Value::as_str).is_some_and(|name| JSON_VARIABLES.contains(&name)) {
                fields.get_mut("value").map(parse);
            }
            for name in JSON_ANNOTATIONS {
                fields.get_mut(name).map(parse);
            }
            fields.values_mut().for_each(tidy);
            let noise = ["emptyDir", "status", "resources", "strategy", "updateStrategy", "metadata"];
            fields.retain(|name, part| {
                // A status that counts nothing is one that Go has made up.
                let is_empty = part
                    .as_object()
                    .is_some_and(|part| part.values().all(|value| name == "status" && *value == 0));
                !(noise.contains(&name.as_str()) && is_empty || name == "creationTimestamp" && part.is_null())
            });
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn parse(value: &mut Value) {
    if let Some(parsed) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
        *value = parsed;
    }
}

fn selections(text: &str) -> anyhow::Result<Vec<(String, Outcome)>> {
    let all: Vec<Selection> = serde_json::from_str(text)?;
    let outcomes = all.into_iter().enumerate().map(|(index, case)| {
        let webhooks = select::webhooks(&case.revision, case.enable_namespaces_by_default);
        let mut ours: Vec<String> = webhooks
            .iter()
            .filter(|webhook| webhook.fits(&case.namespace_labels, &case.pod_labels))
            .map(|webhook| webhook.name.clone())
            .collect();
        let mut theirs = case.webhooks.clone();
        ours.sort();
        theirs.sort();
        let outcome = if ours == theirs {
            Outcome::Equal
        } else {
            Outcome::Different(format!("ours: {ours:?}\n    case: {case:?}"))
        };
        (format!("select/{index}"), outcome)
    });
    Ok(outcomes.collect())
}

/// A question in HTTP.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Http {
    name: String,
    body: String,
    content_type: String,
    status: u16,
    response_body: String,
}

/// Status and form of the answers; texts of refusals are ours.
fn contract(text: &str) -> anyhow::Result<Vec<(String, Outcome)>> {
    let all: Vec<Http> = serde_json::from_str(text)?;
    let settings = Settings::read("policy: enabled", "{}", "")?;
    let mesh = MeshConfig::default();
    let store = config::Store::default();
    let situation =
        Situation { mesh: &mesh, store: &store, native: Mode::Off, nodes: None, cluster: "Kubernetes" };
    let outcomes = all.into_iter().map(|case| {
        let kind = Some(case.content_type.as_str()).filter(|kind| !kind.is_empty());
        let answer = webhook::answer(&settings, &situation, "/inject", kind, case.body.as_bytes());
        let ours = String::from_utf8_lossy(&answer.body).into_owned();
        let read = |text: &str| serde_json::from_str::<Value>(text).ok();
        let same = |ours: &str| match (read(ours), read(&case.response_body)) {
            (Some(mut ours), Some(mut theirs)) => {
                if ours == theirs {
                    return Outcome::Equal;
                }
                for value in [&mut ours, &mut theirs] {
                    difference::remove(value, "/response/status/message");
                }
                if ours == theirs { Outcome::Listed } else { Outcome::Different(ours.to_string()) }
            }
            _ if ours == case.response_body => Outcome::Equal,
            _ => Outcome::Different(ours.to_owned()),
        };
        let outcome = if answer.status == case.status {
            same(&ours)
        } else {
            Outcome::Different(format!("status {}, not {}", answer.status, case.status))
        };
        (format!("http-contract/{}", case.name), outcome)
    });
    Ok(outcomes.collect())
}
