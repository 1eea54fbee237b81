//! The set `validate`: objects and mesh configurations in, verdicts out.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use config::admission::Question;
use http_body_util::BodyExt as _;
use istiod::webhook::validate::{LONG, Validator};
use istiod::webhook::vet::vet;
use istiod::world::Builder;
use mesh::MeshConfig;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::Summary;

/// Differences that are on purpose.
const LISTED: &str = include_str!("../../data/oracle/validate-differences.yaml");

/// What is different on purpose, by code.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// We warn where Istio does not.
    MoreWarnings,
    /// We refuse what Istio's schema refuses.
    AsTheSchema,
    /// Marks of the control plane's own objects have no effect.
    InternalAnnotation,
    /// Versions of TLS of which none is left.
    ImpossibleVersions,
    /// A provider that nobody could use.
    UnusableProvider,
}

#[derive(Debug, Deserialize)]
struct Listed {
    rule: Rule,
    #[serde(rename = "reason")]
    _reason: String,
}

/// An object and what was said of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The object.
    pub object: Value,
    /// What is done with it.
    #[serde(default)]
    pub operation: Option<String>,
    /// What the webhook says.
    pub webhook: Answer,
    /// What the schema says.
    pub crd: Schema,
}

/// What a webhook says.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Whether the object may be stored.
    pub allowed: bool,
    /// Why not.
    #[serde(default)]
    pub message: String,
    /// What its author should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What the schema of a kind says.
#[derive(Debug, Deserialize)]
pub struct Schema {
    /// Whether the object fits.
    pub accepted: bool,
}

#[derive(Debug, Deserialize)]
struct OfMesh {
    name: String,
    mesh: String,
    result: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    #[serde(default)]
    accepted: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exchange {
    name: String,
    body: String,
    content_type: String,
    response_body: String,
    status: u16,
}

impl Case {
    /// What our webhook says of it: why not, and warnings.
    #[must_use]
    pub fn ours(&self) -> (Option<String>, Vec<String>) {
        let operation = self.operation.clone().unwrap_or_else(|| "CREATE".into());
        let question = Question { operation, object: self.object.clone(), ..Question::default() };
        let verdict = vet(&question, None);
        (verdict.refusal.map(|refusal| refusal.message), verdict.warnings)
    }
}

/// All cases about objects of a directory.
///
/// # Errors
/// When it cannot be read.
pub fn cases(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let mut all = Vec::new();
    for file in files(dir)? {
        if !["MeshConfig", "http-contract"].contains(&stem(&file).as_str()) {
            let text = fs::read_to_string(&file)?;
            let of: Vec<Case> = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
            all.extend(of);
        }
    }
    Ok(all)
}

fn files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("recorded cases in {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Compares all cases of a directory.
///
/// # Errors
/// When the directory or a case cannot be read.
pub async fn run(dir: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let listed: Vec<Listed> = serde_saphyr::from_str(LISTED).context("listed differences")?;
    let is_meant = |name: &str| only.is_empty() || only.iter().any(|pattern| super::fits(pattern, name));
    let mut summary = Summary { set: "validate", ..Summary::default() };
    let (mut refused, mut same_text) = (0, 0);
    for case in cases(dir)?.iter().filter(|case| is_meant(&case.name)) {
        let (refusal, warnings) = case.ours();
        let is_allowed = refusal.is_none();
        if !is_allowed && !case.webhook.allowed {
            refused += 1;
            same_text += usize::from(refusal.as_deref() == Some(case.webhook.message.as_str()));
        }
        let has_same_warnings = !is_allowed || warnings.is_empty() == case.webhook.warnings.is_empty();
        if is_allowed == case.webhook.allowed && has_same_warnings {
            summary.equal += 1;
        } else if let Some(rule) = on_purpose(case, refusal.as_deref(), &warnings)
            && listed.iter().any(|one| one.rule == rule)
        {
            summary.listed += 1;
            if verbose {
                eprintln!("{}: {rule:?}", case.name);
            }
        } else {
            summary.different += 1;
            if verbose {
                let theirs = &case.webhook;
                eprintln!("{}: ours {refusal:?} {warnings:?}, theirs {theirs:?}", case.name);
            }
        }
    }
    let of_mesh: Vec<OfMesh> = serde_json::from_str(&fs::read_to_string(dir.join("MeshConfig.json"))?)?;
    for case in of_mesh.iter().filter(|case| is_meant(&case.name)) {
        let ours = MeshConfig::from_yaml(&case.mesh);
        let is_provider = ours.as_ref().is_err_and(|error| error.to_string().contains("extensionProviders"));
        if is_provider && case.result.accepted && listed.iter().any(|one| one.rule == Rule::UnusableProvider)
        {
            summary.listed += 1;
            continue;
        }
        let is_equal = ours.is_ok() == case.result.accepted;
        count(&mut summary, is_equal, verbose, || {
            format!("{}: {:?}, theirs {:?}", case.name, ours, case.result)
        });
    }
    let exchanges: Vec<Exchange> =
        serde_json::from_str(&fs::read_to_string(dir.join("http-contract.json"))?)?;
    for exchange in exchanges.iter().filter(|exchange| is_meant(&exchange.name)) {
        let ours = contract(exchange).await?;
        let theirs = (exchange.status, outline(&exchange.response_body));
        count(&mut summary, ours == theirs, verbose, || {
            format!("{}: {ours:?}, theirs {theirs:?}", exchange.name)
        });
    }
    if verbose {
        eprintln!("{refused} objects are refused by both, {same_text} of them with the same text");
    }
    Ok(summary)
}

fn count(summary: &mut Summary, is_equal: bool, verbose: bool, what: impl FnOnce() -> String) {
    if is_equal {
        summary.equal += 1;
    } else {
        summary.different += 1;
        if verbose {
            eprintln!("{}", what());
        }
    }
}

/// The rule that explains a difference.
fn on_purpose(case: &Case, refusal: Option<&str>, warnings: &[String]) -> Option<Rule> {
    let theirs = &case.webhook;
    let Some(refusal) = refusal else {
        let is_more = theirs.allowed && theirs.warnings.is_empty() && !warnings.is_empty();
        return is_more.then_some(Rule::MoreWarnings);
    };
    if !case.crd.accepted {
        return Some(Rule::AsTheSchema);
    }
    let annotations = case.object["metadata"]["annotations"].as_object();
    if annotations.is_some_and(|all| all.keys().any(|name| name.starts_with("internal.istio.io/"))) {
        return Some(Rule::InternalAnnotation);
    }
    refusal.contains("is below minProtocolVersion").then_some(Rule::ImpossibleVersions)
}

/// Sends a request to our webhook.
async fn contract(exchange: &Exchange) -> anyhow::Result<(u16, Value)> {
    let world = Builder::new(MeshConfig::default(), "Kubernetes").empty();
    let validator = Validator {
        long: Arc::new(Semaphore::new(LONG)),
        world: watch::channel(Arc::new(world)).1,
        metrics: Arc::default(),
    };
    let request = http::Request::post("/validate")
        .header(http::header::CONTENT_TYPE, &exchange.content_type)
        .body(exchange.body.clone().into_bytes().into())?;
    let response = validator.answer(&request);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok((status, outline(&String::from_utf8_lossy(&body))))
}

/// What must be the same: all of an answer but why an object is refused.
fn outline(body: &str) -> Value {
    let Ok(mut answer) = serde_json::from_str::<Value>(body) else { return body.into() };
    if let Some(message) = answer.pointer_mut("/response/status/message") {
        *message = Value::Null;
    }
    answer
}
