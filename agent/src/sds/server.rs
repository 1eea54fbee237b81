//! `envoy.service.secret.v3.SecretDiscoveryService`: the streams, and single
//! answers.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::source::{Followed, Secrets, any_changed};
use super::{delta, sotw};

/// Secrets that one stream may follow; each is a task and some watched files.
const MAX_NAMES: usize = 1000;
/// How long a single answer is waited for.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves secrets.
#[derive(Clone, Debug)]
pub struct Server {
    secrets: Secrets,
}

impl Server {
    /// A server of those secrets.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets }
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Server {
    type StreamSecretsStream = Responses<DiscoveryResponse>;
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let stream = sotw::Subscription::new(self.secrets.clone(), request.into_inner());
        let responses = futures_util::stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            let next = stream.next_response().await;
            ended(next).map(|next| (next, Some(stream)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let stream = delta::Subscription::new(self.secrets.clone(), request.into_inner());
        let responses = futures_util::stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            let next = stream.next_response().await;
            ended(next).map(|next| (next, Some(stream)))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let request = request.into_inner();
        check_type(&request.type_url)?;
        check_count(request.resource_names.len())?;
        if request.resource_names.is_empty() {
            return Err(Status::invalid_argument("secrets are asked for by name: resource_names is empty"));
        }
        let names = request.resource_names.iter();
        let mut all =
            names.map(|name| self.secrets.follow(name)).collect::<Result<Vec<Followed>, Status>>()?;
        let end = Instant::now() + FETCH_TIMEOUT;
        while let Some(missing) = all.iter_mut().position(|followed| followed.news().is_none()) {
            let Ok(changed) = timeout_at(end, any_changed(&mut all)).await else {
                let Followed { name, .. } = &all[missing];
                let why = all[missing].failure();
                return Err(Status::unavailable(format!("no secret {:?} yet: {why}", name.text)));
            };
            changed?;
        }
        let resources = all.iter_mut().filter_map(|followed| Some(followed.pack()?.1)).collect();
        Ok(Response::new(sotw::response(resources, 1, String::new())))
    }
}

/// What a stream says next; `None` when Envoy has left.
fn ended<T>(next: Result<Option<T>, Status>) -> Option<Result<T, Status>> {
    if let Err(status) = &next {
        warn!(target: "sds", code = ?status.code(), reason = status.message(), "stream ended");
    }
    next.transpose()
}

/// Refuses requests that are not for secrets.
pub(super) fn check_type(type_url: &str) -> Result<(), Status> {
    let secret = names::TypeUrl::Secret.as_str();
    if type_url.is_empty() || type_url == secret {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("no resources of type {type_url:?}: this server has {secret} only")))
}

/// Refuses requests for too many.
pub(super) fn check_count(count: usize) -> Result<(), Status> {
    if count <= MAX_NAMES {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!("{count} secrets on one stream: at most {MAX_NAMES} are served")))
}

/// Names a response of a stream.
pub(super) fn nonce(count: u64) -> String {
    format!("{count}-{:016x}", rand::random::<u64>())
}
