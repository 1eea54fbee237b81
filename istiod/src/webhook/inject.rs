//! The webhook `/inject`: a pod in, a patch out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use ::inject::native_sidecar::Mode;
use ::inject::webhook::{Answer, Outcome, Situation, answer};
use bytes::Bytes;
use config::kube::Node;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use runtime::http::{Body, respond, text};
use tokio::sync::watch;
use tracing::{info, warn};

use super::files::Current;
use super::metrics::Metrics;
use crate::world::World;

/// Path of the webhook; cluster and network may stand below it.
pub const PATH: &str = "/inject";
/// Longer questions are answered beside the tasks that serve others.
const LARGE: usize = 64 * 1024;

/// Answers questions about pods.
#[derive(Clone, Debug)]
pub struct Injector {
    /// The ConfigMap of the injector.
    pub settings: Current,
    /// Objects and settings of the mesh.
    pub world: watch::Receiver<Arc<World>>,
    /// Whether sidecars are restartable init containers.
    pub native: Mode,
    /// Whether the Nodes of the world are those of a cluster, with their kubelets' versions.
    pub has_nodes: bool,
    /// Name of that cluster.
    pub cluster: Arc<str>,
    /// The kubelets' versions that are known.
    pub kubelets: Kubelets,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// Versions of kubelets by node.
type Versions = Arc<BTreeMap<String, String>>;

/// The kubelets' versions, with the serial of the configuration they are of.
#[derive(Clone, Debug, Default)]
pub struct Kubelets(Arc<Mutex<Option<(u64, Versions)>>>);

impl Kubelets {
    fn of(&self, world: &World) -> Versions {
        // Made anew or whole, whatever a panic left behind.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((serial, versions)) if *serial == world.serial => versions.clone(),
            _ => {
                let version = |node: &Node| node.status.node_info.kubelet_version.clone();
                let nodes = world.store.all::<Node>();
                let nodes = nodes.map(|(object, node)| (object.key.name.to_string(), version(node)));
                let versions: Versions = Arc::new(nodes.collect());
                *known = Some((world.serial, versions.clone()));
                versions
            }
        }
    }
}

impl Injector {
    /// Answers a question.
    pub async fn handle(self, request: Request<Bytes>) -> Response<Body> {
        let begin = Instant::now();
        self.metrics.requests.inc();
        let metrics = self.metrics.clone();
        let answer = if request.body().len() > LARGE {
            tokio::task::spawn_blocking(move || self.answer(&request)).await.ok().flatten()
        } else {
            self.answer(&request)
        };
        metrics.time.observe(begin.elapsed().as_secs_f64());
        let Some(answer) = answer else {
            metrics.failure.inc();
            // The API server refuses the pod then, and its owner tries again.
            return text(StatusCode::SERVICE_UNAVAILABLE, "istiod has no settings of the injector yet\n");
        };
        tell(&answer, &metrics);
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond(status, answer.content_type, answer.body)
    }

    fn answer(&self, request: &Request<Bytes>) -> Option<Answer> {
        let settings = self.settings.borrow().clone()?;
        let world = self.world.borrow().clone();
        let asks = self.has_nodes && self.native == Mode::Auto;
        let nodes = asks.then(|| self.kubelets.of(&world));
        let situation = Situation {
            mesh: &world.snapshot.mesh,
            store: &world.store,
            native: self.native,
            nodes: nodes.as_deref(),
            cluster: &self.cluster,
        };
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        Some(answer(&settings, &situation, request.uri().path(), content_type, request.body()))
    }
}

/// Counts what came of a question, and writes it down.
fn tell(answer: &Answer, metrics: &Metrics) {
    let pod = &answer.pod;
    if let Some(warning) = &answer.warning {
        warn!(target: "inject", pod, "{warning}");
    }
    match &answer.outcome {
        Outcome::Injected => info!(target: "inject", pod, "injected"),
        Outcome::Skipped(reason) => {
            metrics.skip.inc();
            info!(target: "inject", pod, reason, "not injected");
        }
        Outcome::Refused(reason) => {
            metrics.failure.inc();
            warn!(target: "inject", pod, reason, "refused");
        }
        Outcome::Unreadable(reason) => {
            metrics.failure.inc();
            warn!(target: "inject", reason, "what came is no question about a pod");
        }
    }
    if answer.status == 200 {
        metrics.success.inc();
    }
}
