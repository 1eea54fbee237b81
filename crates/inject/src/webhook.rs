//! A question of the API server about a pod, and the answer: bytes in, bytes
//! out, so that it is the same for every server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::kube::Namespace;
use config::{Store, admission};
use mesh::MeshConfig;
use serde_json::Value;

use crate::decide::decide;
use crate::native_sidecar::{self, Mode};
use crate::pipeline::{self, Request};
use crate::settings::Settings;
use crate::{openshift, owner, patch, pod, proxy_config, shape, url};

/// What the injector knows beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Settings of the mesh.
    pub mesh: &'a MeshConfig,
    /// Objects of the mesh, of which `ProxyConfig` counts.
    pub store: &'a Store,
    /// The switch for restartable init containers.
    pub native: Mode,
    /// The kubelets' versions by node, if they are known.
    pub nodes: Option<&'a BTreeMap<String, String>>,
    /// The cluster that these nodes are of.
    pub cluster: &'a str,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The pod is changed.
    Injected,
    /// It is not, for this reason.
    Skipped(&'static str),
    /// It must not run, for this reason.
    Refused(String),
    /// There was no question.
    Unreadable(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status of the HTTP response.
    pub status: u16,
    /// Its media type.
    pub content_type: &'static str,
    /// Its body.
    pub body: Vec<u8>,
    /// What came of it.
    pub outcome: Outcome,
    /// `NAMESPACE/NAME` of the pod, for the log.
    pub pod: String,
    /// What the pod's owner should know.
    pub warning: Option<String>,
}

impl Answer {
    fn json(value: &Value, outcome: Outcome, pod: String, warning: Option<String>) -> Self {
        let body = value.to_string().into_bytes();
        Self { status: 200, content_type: "application/json", body, outcome, pod, warning }
    }
}

/// Answers a question that came to a path.
#[must_use]
pub fn answer(
    settings: &Settings,
    situation: &Situation<'_>,
    path: &str,
    content_type: Option<&str>,
    body: &[u8],
) -> Answer {
    if let Some(refusal) = admission::refusal(content_type, body) {
        let text = refusal.text.as_bytes().to_vec();
        return Answer {
            status: refusal.status,
            content_type: "text/plain; charset=utf-8",
            body: text,
            outcome: Outcome::Unreadable(refusal.text.trim_end().to_owned()),
            pod: String::new(),
            warning: None,
        };
    }
    let review = match admission::read(body) {
        Ok(review) => review,
        Err(error) => {
            let outcome = Outcome::Unreadable(error.to_string());
            return Answer::json(&admission::unreadable(&error), outcome, String::new(), None);
        }
    };
    let pod = &review.question.object;
    let name = title(pod, &review.question.namespace);
    if let Err(error) = shape::check(pod) {
        let outcome = Outcome::Refused(error.to_string());
        return Answer::json(&review.deny(&error.to_string(), &[]), outcome, name, None);
    }
    let namespace = pod["metadata"]["namespace"].as_str().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or(&review.question.namespace);
    let verdict = decide(settings, pod, namespace);
    let warnings: Vec<String> = verdict.warning.iter().cloned().collect();
    if !verdict.is_injected {
        let outcome = Outcome::Skipped(verdict.reason);
        return Answer::json(&review.allow(&warnings), outcome, name, verdict.warning);
    }
    let is_openshift = settings.platform == openshift::NAME;
    let asked = if is_openshift { openshift::own_user(pod) } else { Cow::Borrowed(pod) };
    match pipeline::inject(settings, &request(settings, situation, path, &asked, namespace)) {
        Ok(injected) => {
            let operations = Value::Array(patch::between(pod, &injected)).to_string();
            let value = review.patch(STANDARD.encode(operations), &warnings);
            Answer::json(&value, Outcome::Injected, name, verdict.warning)
        }
        Err(error) => {
            let message = error.to_string();
            Answer::json(&review.deny(&message, &warnings), Outcome::Refused(message), name, verdict.warning)
        }
    }
}

/// A pod of a namespace, with all that is known about it.
#[must_use]
pub fn request<'a>(
    settings: &Settings,
    situation: &Situation<'a>,
    path: &str,
    pod: &'a Value,
    namespace: &str,
) -> Request<'a> {
    let variables = url::variables(path);
    // Of other clusters no nodes are known.
    let is_here = pipeline::cluster(settings, &variables) == situation.cluster;
    let nodes = situation.nodes.filter(|_| is_here);
    let mut ids = Request::IDS;
    if settings.platform == openshift::NAME
        && let Some((object, _)) = situation.store.get::<Namespace>("", namespace)
    {
        ids = openshift::ids(&object.meta.annotations);
    }
    Request {
        pod,
        mesh: situation.mesh,
        owner: owner::of(pod, namespace),
        proxy: proxy_config::effective(situation.mesh, situation.store, pod, namespace),
        native: native_sidecar::is_on(situation.native, nodes, pod::text(pod, "/spec/nodeName")),
        variables,
        ids,
    }
}

/// What to call a pod that may have no name yet.
fn title(pod: &Value, namespace: &str) -> String {
    let own = pod::text(pod, "/metadata/namespace");
    let namespace = if own.is_empty() { namespace } else { own };
    match (pod::text(pod, "/metadata/name"), pod::text(pod, "/metadata/generateName")) {
        ("", prefix) => format!("{namespace}/{prefix}*"),
        (name, _) => format!("{namespace}/{name}"),
    }
}
