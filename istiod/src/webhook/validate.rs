//! The webhook `/validate`: an object of Istio's kinds in, a verdict out.

use std::sync::Arc;

use bytes::Bytes;
use config::admission::{self, Question};
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use runtime::http::{Body, respond, text};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, info, warn};

use super::vet::vet;
use crate::world::World;

/// Path of the webhook; anything may stand below it.
pub const PATH: &str = "/validate";
/// Longer questions are answered beside the tasks that serve others.
const LARGE: usize = 64 * 1024;
/// An object that somebody tries the webhook with.
const PROBE: &str = "istio.io/always-reject";

/// What was asked about.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Passed {
    group: String,
    version: String,
    resource: String,
}

/// What was refused, and why.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Failed {
    group: String,
    version: String,
    resource: String,
    reason: &'static str,
}

/// The status of a response to what was no question.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Status {
    status: u16,
}

/// Counters, named as Istio names them.
#[derive(Debug, Default)]
pub struct Metrics {
    passed: Family<Passed, Counter>,
    failed: Family<Failed, Counter>,
    http_error: Family<Status, Counter>,
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let galley = registry.sub_registry_with_prefix("galley_validation");
        galley.register("passed", "Objects that may be stored", self.passed.clone());
        galley.register("failed", "Objects that must not be stored", self.failed.clone());
        galley.register("http_error", "Requests that were no questions", self.http_error.clone());
    }

    fn passed(&self, question: &Question) {
        let (group, version, resource) = of(question);
        self.passed.get_or_create(&Passed { group, version, resource }).inc();
    }

    fn failed(&self, question: &Question, reason: &'static str) {
        let (group, version, resource) = of(question);
        self.failed.get_or_create(&Failed { group, version, resource, reason }).inc();
    }
}

/// Labels of what was asked about. Whoever reaches the port can ask: words
/// that are none of ours do not make series.
fn of(question: &Question) -> (String, String, String) {
    let named = &question.resource;
    let known = config::Kind::ALL.iter().find(|kind| kind.is_istio() && kind.plural() == named.resource);
    match known.filter(|kind| kind.group() == named.group && kind.versions().contains(&&*named.version)) {
        Some(_) => (named.group.clone(), named.version.clone(), named.resource.clone()),
        None => (String::new(), String::new(), String::new()),
    }
}

/// Long questions that are answered at once.
pub const LONG: usize = 2;

/// Answers questions about objects.
#[derive(Clone, Debug)]
pub struct Validator {
    /// Long questions that are answered at once.
    pub long: Arc<Semaphore>,
    /// Objects of the mesh.
    pub world: watch::Receiver<Arc<World>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

impl Validator {
    /// Answers a question.
    pub async fn handle(self, request: Request<Bytes>) -> Response<Body> {
        if request.body().len() <= LARGE {
            return self.answer(&request);
        }
        // Whoever sends many of them waits for himself.
        let place = self.long.clone().acquire_owned().await;
        let answered = tokio::task::spawn_blocking(move || {
            let answer = self.answer(&request);
            drop(place);
            answer
        });
        let answered = answered.await;
        answered.unwrap_or_else(|_| {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the question could not be answered\n")
        })
    }

    /// The answer to a question.
    #[must_use]
    pub fn answer(&self, request: &Request<Bytes>) -> Response<Body> {
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if let Some(refusal) = admission::refusal(content_type, request.body()) {
            self.metrics.http_error.get_or_create(&Status { status: refusal.status }).inc();
            let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
            return text(status, refusal.text);
        }
        let review = match admission::read(request.body()) {
            Ok(review) => review,
            Err(error) => {
                warn!(target: "validate", %error, "what came is no question about an object");
                return json(&admission::unreadable(&error));
            }
        };
        let question = &review.question;
        let world = self.world.borrow().clone();
        let verdict = vet(question, Some(&world));
        let is_dry_run = question.dry_run.unwrap_or_default();
        let kind = &question.kind.kind;
        let (namespace, name) = (&question.namespace, &question.name);
        match &verdict.refusal {
            None => {
                if ["CREATE", "UPDATE"].contains(&question.operation.as_str()) {
                    self.metrics.passed(question);
                } else if !is_dry_run {
                    self.metrics.failed(question, "unsupported_operation");
                }
                json(&review.allow(&verdict.warnings))
            }
            Some(refusal) => {
                if !is_dry_run {
                    self.metrics.failed(question, refusal.reason);
                }
                let is_probe = question
                    .object
                    .pointer("/metadata/annotations")
                    .is_some_and(|all| all.get(PROBE).is_some());
                if is_probe {
                    debug!(target: "validate", kind, namespace, name, "refused as asked for");
                } else {
                    info!(target: "validate", kind, namespace, name, is_dry_run, user = question.user_info.username, "refused: {}", refusal.message);
                }
                json(&review.deny(&refusal.message, &verdict.warnings))
            }
        }
    }
}

fn json(value: &serde_json::Value) -> Response<Body> {
    respond(StatusCode::OK, "application/json", value.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::world::Builder;

    fn validator() -> Validator {
        let world = Builder::new(mesh::MeshConfig::default(), "Kubernetes").empty();
        Validator {
            long: Arc::new(Semaphore::new(LONG)),
            world: watch::channel(Arc::new(world)).1,
            metrics: Arc::default(),
        }
    }

    async fn asked(validator: &Validator, body: impl Into<Bytes>) -> Value {
        let request = Request::post(PATH).header(CONTENT_TYPE, "application/json").body(body.into()).unwrap();
        let response = validator.clone().handle(request).await;
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn review(object: &Value, dry_run: bool) -> String {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
            "uid": "u", "operation": "CREATE", "namespace": "x", "dryRun": dry_run,
            "resource": {"group": "networking.istio.io", "version": "v1", "resource": "gateways"},
            "object": object,
        }})
        .to_string()
    }

    #[tokio::test]
    async fn what_is_counted_is_what_was_asked() {
        let validator = validator();
        let mut object = json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "g", "namespace": "x"}, "spec": {}});
        let answer = asked(&validator, review(&object, true)).await;
        assert_eq!(
            (&answer["response"]["uid"], &answer["response"]["allowed"]),
            (&json!("u"), &json!(false))
        );
        asked(&validator, review(&object, false)).await;
        object["spec"] = json!({"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}]});
        assert_eq!(asked(&validator, review(&object, false)).await["response"]["allowed"], true);
        object["metadata"]["annotations"] = json!({"istio.io/always-reject": "true"});
        assert_eq!(asked(&validator, review(&object, true)).await["response"]["allowed"], false);
        let mut registry = Registry::default();
        validator.metrics.register(&mut registry);
        let page = crate::metrics::page(&registry).unwrap();
        let labels = "group=\"networking.istio.io\",version=\"v1\",resource=\"gateways\"";
        assert!(page.contains(&format!("galley_validation_passed{{{labels}}} 1")), "{page}");
        assert!(
            page.contains(&format!("galley_validation_failed{{{labels},reason=\"invalid_resource\"}} 1")),
            "{page}"
        );
    }

    #[tokio::test]
    async fn bombs_are_refused_at_once() {
        let validator = validator();
        let deep = "[".repeat(1 << 20);
        let nested = format!("{}{}", "{\"a\":".repeat(100), "1") + &"}".repeat(100);
        let object = |spec: &str| {
            format!(
                r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"operation":"CREATE","object":
                {{"apiVersion":"networking.istio.io/v1","kind":"VirtualService","metadata":{{"name":"a"}},"spec":{spec}}}}}}}"#
            )
        };
        let many = format!("{{\"hosts\":[{}\"a\"]}}", "\"a\",".repeat(200_000));
        let begin = Instant::now();
        for body in [deep, object(&nested), object(&many)] {
            assert_eq!(asked(&validator, body).await["response"]["allowed"], false);
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    }
}
