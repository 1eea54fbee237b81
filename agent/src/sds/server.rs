//! `envoy.service.secret.v3.SecretDiscoveryService`, state of the world.
//!
//! Envoy opens a stream per secret. A stream is one value that turns requests
//! and changes into responses; it waits for the first certificate rather than
//! failing, so that Envoy and the CA may start in any order.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use time::format_description::well_known::Rfc3339;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::secret::{DEFAULT, Name, ROOT};
use crate::identity::{Current, Identity};

/// Serves the identity that is in force.
#[derive(Clone, Debug)]
pub struct Server {
    current: Current,
}

impl Server {
    /// A server of that identity.
    #[must_use]
    pub fn new(current: Current) -> Self {
        Self { current }
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
        let stream = Subscription::new(self.current.clone(), request.into_inner());
        let responses = futures_util::stream::unfold(Some(stream), |stream| async move {
            let mut stream = stream?;
            match stream.next_response().await {
                Ok(Some(response)) => Some((Ok(response), Some(stream))),
                Ok(None) => None,
                Err(status) => {
                    warn!(target: "sds", code = ?status.code(), reason = status.message(), "stream ended");
                    Some((Err(status), None))
                }
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("secrets are served as StreamSecrets only"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are served as StreamSecrets only"))
    }
}

/// One stream of Envoy.
struct Subscription<R> {
    current: Current,
    requests: R,
    /// Secrets that Envoy watches.
    names: Vec<Name>,
    /// Secrets that it is owed.
    due: VecDeque<Name>,
    /// What it has.
    sent: Option<Arc<Identity>>,
    nonce: String,
    count: u64,
}

impl<R> Subscription<R>
where
    R: Stream<Item = Result<DiscoveryRequest, Status>> + Unpin,
{
    fn new(current: Current, requests: R) -> Self {
        Self {
            current,
            requests,
            names: Vec::new(),
            due: VecDeque::new(),
            sent: None,
            nonce: String::new(),
            count: 0,
        }
    }

    /// Waits for the next thing to tell; `None` when Envoy has left.
    async fn next_response(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        loop {
            let identity = self.current.borrow_and_update().clone();
            if let Some(identity) = identity {
                self.note_changes(&identity);
                if !self.due.is_empty() {
                    return Ok(Some(self.respond(&identity)));
                }
            }
            tokio::select! {
                biased;
                request = self.requests.next() => match request {
                    None => return Ok(None),
                    Some(request) => self.take(&request?)?,
                },
                changed = self.current.changed() => {
                    changed.map_err(|_| Status::unavailable("the agent is stopping"))?;
                }
            }
        }
    }

    /// Owes Envoy what it watches and has in an older form.
    fn note_changes(&mut self, identity: &Arc<Identity>) {
        let Some(sent) = &self.sent else { return };
        if Arc::ptr_eq(sent, identity) {
            return;
        }
        let same_roots = sent.roots_pem == identity.roots_pem;
        for name in &self.names {
            let is_same = *name == Name::Root && same_roots;
            if !is_same && !self.due.contains(name) {
                self.due.push_back(*name);
            }
        }
        self.sent = Some(identity.clone());
    }

    fn take(&mut self, request: &DiscoveryRequest) -> Result<(), Status> {
        let names = request.resource_names.join(",");
        if let Some(error) = &request.error_detail {
            warn!(target: "sds", names, error = error.message, "Envoy refused a secret and keeps what it had");
            return Ok(());
        }
        if request.resource_names.is_empty() {
            self.names.clear();
            self.due.clear();
            return Ok(());
        }
        let parsed = request.resource_names.iter().map(|text| {
            Name::parse(text).ok_or_else(|| {
                Status::not_found(format!("no secret {text:?}: this agent serves {DEFAULT} and {ROOT}"))
            })
        });
        let wanted = parsed.collect::<Result<Vec<Name>, Status>>()?;
        if request.response_nonce.is_empty() {
            self.due.extend(wanted.iter().filter(|name| !self.due.contains(name)).collect::<Vec<_>>());
        } else if request.response_nonce == self.nonce {
            debug!(target: "sds", names, nonce = self.nonce, "accepted");
            let added = wanted.iter().filter(|name| !self.names.contains(name) && !self.due.contains(name));
            self.due.extend(added.collect::<Vec<_>>());
        } else {
            // An answer to a response that has been overtaken.
            return Ok(());
        }
        self.names = wanted;
        Ok(())
    }

    fn respond(&mut self, identity: &Arc<Identity>) -> DiscoveryResponse {
        let names: Vec<Name> = self.due.drain(..).collect();
        self.count += 1;
        let created = time::OffsetDateTime::from(identity.created).format(&Rfc3339).unwrap_or_default();
        self.nonce = format!("{}-{:016x}", self.count, rand::random::<u64>());
        self.sent = Some(identity.clone());
        for name in &names {
            info!(target: "sds", resource = name.as_str(), serial = identity.serial, "push");
        }
        DiscoveryResponse {
            version_info: format!("{created}/{}", self.count),
            resources: names.iter().map(|name| name.pack(identity)).collect(),
            type_url: names::TypeUrl::Secret.as_str().to_owned(),
            nonce: self.nonce.clone(),
            ..DiscoveryResponse::default()
        }
    }
}
