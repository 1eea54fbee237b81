//! The gRPC face of xDS: `AggregatedDiscoveryService`, both variants.

mod body;
mod requests;
mod service;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Extensions, HeaderMap};
use prost::Message;
use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::{info, warn};
use xds::Variant;

use self::body::Responses;
use self::requests::Requests;
use crate::auth::{Caller, Chain, Credentials};
use crate::drain::Life;
use crate::listener::Peer;
use crate::push::connection::{self, Hub, Incoming, OUTBOX};

/// Largest request of a proxy, as with Istio. The first one of a proxy that
/// comes back lists what it has: some fifty thousand resources fit.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// How long a proxy that takes nothing is told why its stream ends.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Serves discovery streams.
#[derive(Clone, Debug)]
pub struct Service {
    hub: Hub,
    auth: Chain,
    tasks: Tasks,
}

/// Who calls, and from where.
type From = (Option<Caller>, Option<SocketAddr>);

impl Service {
    /// A service on the shared state; `auth` tells who calls.
    #[must_use]
    pub fn new(hub: Hub, auth: Chain, tasks: Tasks) -> Self {
        Self { hub, auth, tasks }
    }

    /// The caller; `None` on the plaintext port, which asks for no credentials.
    async fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<From, Status> {
        let peer = extensions.get::<Peer>();
        let address = peer.map(|peer| peer.address);
        if peer.is_some_and(|peer| !peer.is_tls) {
            return Ok((None, address));
        }
        let metadata = MetadataMap::from_headers(headers.clone());
        match self.auth.authenticate(&Credentials::of(&metadata, peer)).await {
            Ok(caller) => Ok((Some(caller), address)),
            Err(reason) => {
                warn!(target: "ads", ?address, %reason, "stream refused");
                Err(reason.status("authentication failure"))
            }
        }
    }

    /// Serves one stream by a task of its own.
    fn start<T: Message + Default + 'static>(
        &self,
        (caller, peer): From,
        life: Option<Life>,
        variant: Variant,
        requests: Requests<T>,
        read: fn(T) -> Incoming,
    ) -> Responses {
        let (outbox, answers) = mpsc::channel(OUTBOX);
        let hub = self.hub.clone();
        let metrics = hub.metrics.clone();
        let requests = requests.map(move |request| {
            request.map(|request| {
                metrics.received(request.encoded_len());
                read(request)
            })
        });
        let metrics = hub.metrics.clone();
        let last_word = outbox.clone();
        let patience = hub.send_timeout.min(LAST_WORD);
        self.tasks.spawn("ads stream", async move {
            let served = tokio::select! {
                served = connection::serve(hub, caller, peer, variant, requests, outbox) => served,
                why = ended(life.as_ref()) => {
                    info!(target: "ads", ?peer, why, "connection given up");
                    Err(Status::unavailable(why))
                }
            };
            if let Err(status) = served {
                if status.code() == Code::Internal {
                    metrics.internal_error();
                }
                let told = async {
                    // Nobody listens when the proxy left first.
                    last_word.send(Err(status)).await.ok();
                    last_word.closed().await;
                };
                if tokio::time::timeout(patience, told).await.is_err()
                    && let Some(life) = life
                {
                    life.is_deaf();
                }
            }
        });
        Responses::new(variant, answers)
    }
}

/// Completes when the connection of a stream ends, with the reason.
async fn ended(life: Option<&Life>) -> &'static str {
    match life {
        Some(life) => life.ended().await,
        None => std::future::pending().await,
    }
}
