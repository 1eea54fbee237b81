//! The gRPC face of xDS: `AggregatedDiscoveryService`, both variants.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::warn;
use xds::{Answer, Variant, wire};

use crate::auth::{Caller, Chain, Credentials};
use crate::listener::Peer;
use crate::push::connection::{self, Hub, Incoming, OUTBOX};

/// Largest request of a proxy, as with Istio. The first one of a proxy that
/// comes back lists what it has: some fifty thousand resources fit.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;

/// Serves discovery streams.
#[derive(Clone, Debug)]
pub struct Service {
    hub: Hub,
    auth: Chain,
    tasks: Tasks,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// A service on the shared state; `auth` tells who calls.
    #[must_use]
    pub fn new(hub: Hub, auth: Chain, tasks: Tasks) -> Self {
        Self { hub, auth, tasks }
    }

    /// The caller; `None` on the plaintext port, which asks for no credentials.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Option<Caller>, Status> {
        let peer = request.extensions().get::<Peer>();
        if peer.is_some_and(|peer| !peer.is_tls) {
            return Ok(None);
        }
        match self.auth.authenticate(&Credentials::of(request.metadata(), peer)).await {
            Ok(caller) => Ok(Some(caller)),
            Err(reason) => {
                let address = peer.map(|peer| peer.address);
                warn!(target: "ads", ?address, reason, "stream refused");
                Err(Status::unauthenticated(format!("authentication failure: {reason}")))
            }
        }
    }

    fn start<Req, Res>(
        &self,
        caller: Option<Caller>,
        variant: Variant,
        requests: Streaming<Req>,
        read: fn(Req) -> Incoming,
        write: fn(Answer) -> Res,
    ) -> Response<Responses<Res>>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let (outbox, answers) = mpsc::channel(OUTBOX);
        let hub = self.hub.clone();
        let requests = requests.map(move |request| request.map(read).map_err(too_large));
        let last_word = outbox.clone();
        self.tasks.spawn("ads stream", async move {
            if let Err(status) = connection::serve(hub, caller, variant, requests, outbox).await {
                // Nobody listens when the proxy left first.
                drop(last_word.send(Err(status)).await);
            }
        });
        Response::new(Box::pin(ReceiverStream::new(answers).map(move |answer| answer.map(write))))
    }
}

/// A request above [`MAX_REQUEST`] comes as tonic's `OUT_OF_RANGE` with two
/// numbers in it; gRPC's own code and a way out are of more use.
fn too_large(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    Status::resource_exhausted(format!(
        "a discovery request is larger than {MAX_REQUEST} bytes ({}): subscribe to fewer names at once, \
         or let a Sidecar object limit what the proxy sees",
        status.message()
    ))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let caller = self.caller(&request).await?;
        let read = |mut request: DiscoveryRequest| Incoming {
            node: request.node.take(),
            request: wire::from_sotw(request),
        };
        Ok(self.start(caller, Variant::Sotw, request.into_inner(), read, wire::to_sotw))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = self.caller(&request).await?;
        let read = |mut request: DeltaDiscoveryRequest| Incoming {
            node: request.node.take(),
            request: wire::from_delta(request),
        };
        Ok(self.start(caller, Variant::Delta, request.into_inner(), read, wire::to_delta))
    }
}
