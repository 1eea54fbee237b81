//! Streams over the protocol core, as istiod has them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use names::TypeUrl;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use runtime::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use xds::{Answer, Session, Variant, wire};

use super::state::State;

/// Responses that wait for the transport.
const OUTBOX: usize = 2;

/// Serves the state.
#[derive(Debug)]
pub(super) struct Service {
    state: watch::Receiver<Arc<State>>,
    tasks: Tasks,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(super) fn new(state: watch::Receiver<Arc<State>>, tasks: Tasks) -> Self {
        Self { state, tasks }
    }

    fn start<Q, R>(
        &self,
        variant: Variant,
        requests: Streaming<Q>,
        read: fn(Q) -> xds::Request,
        write: fn(Answer) -> R,
    ) -> Response<Responses<R>>
    where
        Q: Send + 'static,
        R: Send + 'static,
    {
        let (outbox, answers) = mpsc::channel(OUTBOX);
        let requests = Box::pin(requests.map(move |request| request.map(read)));
        let state = self.state.clone();
        self.tasks.spawn("stream", async move {
            // The other side sees the end of the stream.
            if let Err(status) = serve(variant, state, requests, outbox.clone()).await {
                drop(outbox.send(Err(status)).await);
            }
        });
        Response::new(Box::pin(ReceiverStream::new(answers).map(move |answer| answer.map(write))))
    }
}

async fn serve(
    variant: Variant,
    mut state: watch::Receiver<Arc<State>>,
    mut requests: impl Stream<Item = Result<xds::Request, Status>> + Unpin,
    outbox: mpsc::Sender<Result<Answer, Status>>,
) -> Result<(), Status> {
    let mut session = Session::new(variant);
    let closed = |_| Status::cancelled("the client has left");
    loop {
        let mut answers = Vec::new();
        tokio::select! {
            biased;
            request = requests.next() => {
                let Some(request) = request else { return Ok(()) };
                let (request, now) = (request?, SystemTime::now());
                let state = state.borrow().clone();
                let reaction = session
                    .request(&request, now)
                    .map_err(|error| Status::resource_exhausted(error.to_string()))?;
                let type_url = &request.type_url;
                if let Some(wanted) = reaction.respond {
                    let resources = state.resources(type_url, &wanted);
                    let version = state.version(type_url);
                    answers.push(session.respond(type_url, &wanted, resources, version, now));
                }
                answers.push(session.settle(state.version(&TypeUrl::Cluster), now));
            }
            changed = state.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let (state, now) = (state.borrow_and_update().clone(), SystemTime::now());
                for type_url in TypeUrl::PUSH_ORDER {
                    let Some(wanted) = session.wanted(&type_url) else { continue };
                    let resources = state.resources(&type_url, &wanted);
                    answers.push(session.push(&type_url, resources, state.version(&type_url), now));
                }
                answers.push(session.settle(state.version(&TypeUrl::Cluster), now));
            }
        }
        for answer in answers.into_iter().flatten() {
            outbox.send(Ok(answer)).await.map_err(closed)?;
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.start(Variant::Sotw, request.into_inner(), wire::from_sotw, wire::to_sotw))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.start(Variant::Delta, request.into_inner(), wire::from_delta, wire::to_delta))
    }
}
