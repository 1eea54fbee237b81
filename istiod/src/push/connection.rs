//! One proxy's stream: requests in, responses out, pushes in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use names::TypeUrl;
use pilot::Proxy;
use proto::envoy::config::core::v3::Node;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tonic::Status;
use tracing::{debug, info, warn};
use xds::session::{Wanted, is_served};
use xds::{Answer, Request, Session, Variant, Verdict};

use super::status::{Entry, Row, Table};
use crate::auth::Caller;
use crate::metrics::Metrics;
use crate::world::World;

/// Responses that wait for the transport. More would only grow old there: what
/// changes meanwhile is merged into the next push instead.
pub const OUTBOX: usize = 2;
/// A proxy that takes nothing for that long is dropped and may come back.
const SEND_TIMEOUT: Duration = Duration::from_secs(40);

/// How long listeners and routes wait for new clusters to become usable.
const WARMING_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The configuration in force.
    pub world: watch::Receiver<Arc<World>>,
    /// Where connections show their state.
    pub table: Table,
    /// Bounds how many proxies are computed at once.
    pub throttle: Arc<Semaphore>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether the caller must be who the proxy says it is.
    pub identity_check: bool,
    /// Numbers the connections.
    pub serial: Arc<AtomicU64>,
}

/// A request with the node, which only the first of a stream must carry.
#[derive(Debug)]
pub struct Incoming {
    /// The node, if given.
    pub node: Option<Node>,
    /// The request.
    pub request: Request,
}

struct Connection {
    id: String,
    hub: Hub,
    proxy: Proxy,
    session: Session,
    world: Arc<World>,
    outbox: mpsc::Sender<Result<Answer, Status>>,
    entry: Entry,
    /// Listeners and routes wait until then, if they do.
    held: Option<Instant>,
    /// Whether a type that is not served was asked for, which is logged once.
    has_strange_type: bool,
}

/// Serves one stream until the proxy leaves or istiod stops.
///
/// # Errors
/// The status to end the stream with.
pub async fn serve(
    mut hub: Hub,
    caller: Option<Caller>,
    variant: Variant,
    mut requests: impl Stream<Item = Result<Incoming, Status>> + Unpin,
    outbox: mpsc::Sender<Result<Answer, Status>>,
) -> Result<(), Status> {
    let opened = open(&hub, caller.as_ref(), &mut requests).await.inspect_err(|status| {
        warn!(target: "ads", code = ?status.code(), reason = status.message(), "stream refused");
    })?;
    let Some((proxy, first)) = opened else { return Ok(()) };

    let id = format!("{}-{}", proxy.id, hub.serial.fetch_add(1, Ordering::Relaxed) + 1);
    let row = Row {
        node: proxy.id.clone(),
        cluster_id: proxy.cluster_id.clone(),
        istio_version: proxy.istio_version.clone(),
        connected_at: SystemTime::now(),
        types: Default::default(),
    };
    let entry = hub.table.enter(id.clone(), row);
    info!(target: "ads", node = %proxy.id, by = caller.as_ref().map_or("none", |caller| caller.by), ?variant, id, "new connection");
    let world = hub.world.borrow_and_update().clone();
    let mut connection = Connection {
        id,
        hub: hub.clone(),
        proxy,
        session: Session::new(variant),
        world,
        outbox,
        entry,
        held: None,
        has_strange_type: false,
    };
    let end = connection.run(first, requests, &mut hub.world).await;
    match &end {
        Ok(()) => info!(target: "ads", id = connection.id, "connection closed"),
        Err(status) => {
            warn!(target: "ads", id = connection.id, code = ?status.code(), reason = status.message(), "connection ended")
        }
    }
    end
}

/// The proxy and its first request, once it has said who it is and may be that;
/// `None` when it left before.
async fn open(
    hub: &Hub,
    caller: Option<&Caller>,
    requests: &mut (impl Stream<Item = Result<Incoming, Status>> + Unpin),
) -> Result<Option<(Proxy, Request)>, Status> {
    let Some(first) = first_request(requests).await? else { return Ok(None) };
    let node = first.node.as_ref().filter(|node| !node.id.is_empty()).ok_or_else(|| {
        Status::invalid_argument("the first request of a stream must carry the node with its id")
    })?;
    let proxy = Proxy::from_node(node).map_err(|error| Status::invalid_argument(format!("node: {error}")))?;
    if hub.identity_check
        && let Some(caller) = caller
    {
        authorize(caller, &proxy)?;
    }
    Ok(Some((proxy, first.request)))
}

/// The first request that is not about health.
async fn first_request(
    requests: &mut (impl Stream<Item = Result<Incoming, Status>> + Unpin),
) -> Result<Option<Incoming>, Status> {
    while let Some(incoming) = requests.next().await {
        let incoming = incoming?;
        if incoming.request.type_url != TypeUrl::Health {
            return Ok(Some(incoming));
        }
    }
    Ok(None)
}

/// The caller must be the workload that the node claims to be.
fn authorize(caller: &Caller, proxy: &Proxy) -> Result<(), Status> {
    let (namespace, service_account) = (&proxy.namespace, &proxy.service_account);
    let fits = caller.identities.iter().any(|id| {
        id.namespace.as_str() == namespace
            && (service_account.is_empty() || id.service_account.as_str() == service_account)
    });
    if fits {
        return Ok(());
    }
    let identities: Vec<String> = caller.identities.iter().map(ToString::to_string).collect();
    Err(Status::permission_denied(format!(
        "authorization failed: no identities ([{}]) matched {namespace}/{service_account}",
        identities.join(" ")
    )))
}

impl Connection {
    async fn run(
        &mut self,
        first: Request,
        mut requests: impl Stream<Item = Result<Incoming, Status>> + Unpin,
        changes: &mut watch::Receiver<Arc<World>>,
    ) -> Result<(), Status> {
        self.request(&first).await?;
        loop {
            let held = self.held;
            let patience = async {
                match held {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            // Requests come before pushes: an answer may be what a push waits for.
            tokio::select! {
                biased;
                incoming = requests.next() => match incoming {
                    Some(Ok(incoming)) => self.request(&incoming.request).await?,
                    Some(Err(status)) => return disconnect(status),
                    None => return Ok(()),
                },
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("istiod is stopping"));
                    }
                    self.world = changes.borrow_and_update().clone();
                    self.push().await?;
                }
                () = patience => {
                    debug!(target: "ads", id = self.id, "new clusters are still not in use");
                    self.session.stop_waiting();
                    self.release().await?;
                    self.settle().await?;
                }
            }
        }
    }

    async fn request(&mut self, request: &Request) -> Result<(), Status> {
        let type_url = &request.type_url;
        let reaction = self.session.request(request, SystemTime::now()).map_err(|error| {
            Status::resource_exhausted(format!("{} of {}: {error}", type_url.short(), self.proxy.id))
        })?;
        debug!(target: "ads", id = self.id, r#type = type_url.short(), nonce = request.nonce, ?reaction, "request");
        if let Some(Verdict::Refused(error)) = &reaction.verdict {
            self.hub.metrics.rejected(type_url);
            warn!(
                target: "ads", id = self.id, r#type = type_url.short(), nonce = request.nonce, error,
                "the proxy refused the configuration and keeps what it had"
            );
        }
        if reaction.is_overtaken {
            self.hub.metrics.expired_nonce(type_url);
        }
        if !is_served(type_url) && reaction.respond.is_some() && !self.has_strange_type {
            self.has_strange_type = true;
            warn!(target: "ads", id = self.id, r#type = type_url.as_str(), "asked for a type that istiod does not serve; further ones are not logged");
        }
        if let Some(wanted) = reaction.respond {
            let resources = self.generate(type_url, &wanted).await?;
            let version = self.world.version.clone();
            let answer = self.session.respond(type_url, &wanted, resources, &version, SystemTime::now());
            self.send(answer).await?;
            if self.session.endpoints_due() {
                self.push_type(&TypeUrl::Endpoint).await?;
            }
        }
        if self.held.is_some() && !self.session.routes_must_wait() {
            self.release().await?;
        }
        self.settle().await
    }

    /// Sends what the new configuration changes for this proxy, in the order
    /// of [`TypeUrl::PUSH_ORDER`]. What may lead to a new cluster waits until
    /// the proxy can use that: until then its requests would fail.
    async fn push(&mut self) -> Result<(), Status> {
        self.push_type(&TypeUrl::Cluster).await?;
        self.push_type(&TypeUrl::Endpoint).await?;
        if self.session.routes_must_wait() {
            self.held.get_or_insert_with(|| Instant::now() + WARMING_TIMEOUT);
        } else {
            self.release().await?;
        }
        self.settle().await
    }

    /// Sends the types that come after clusters and endpoints.
    async fn release(&mut self) -> Result<(), Status> {
        self.held = None;
        let first = [TypeUrl::Cluster, TypeUrl::Endpoint];
        for type_url in TypeUrl::PUSH_ORDER.iter().filter(|type_url| !first.contains(type_url)) {
            self.push_type(type_url).await?;
        }
        Ok(())
    }

    async fn push_type(&mut self, type_url: &TypeUrl) -> Result<(), Status> {
        let Some(wanted) = self.session.wanted(type_url) else { return Ok(()) };
        let resources = self.generate(type_url, &wanted).await?;
        let version = self.world.version.clone();
        let answer = self.session.push(type_url, resources, &version, SystemTime::now());
        self.send(answer).await
    }

    async fn settle(&mut self) -> Result<(), Status> {
        let version = self.world.version.clone();
        let answer = self.session.settle(&version, SystemTime::now());
        self.send(answer).await
    }

    async fn generate(&self, type_url: &TypeUrl, wanted: &Wanted) -> Result<Vec<xds::Resource>, Status> {
        let permit = self.hub.throttle.acquire().await;
        let resources = pilot::generate(&self.world.snapshot, &self.proxy, type_url, wanted);
        drop(permit);
        Ok(resources)
    }

    async fn send(&self, answer: Option<Answer>) -> Result<(), Status> {
        self.entry.update(&self.session);
        let Some(answer) = answer else { return Ok(()) };
        self.hub.metrics.pushed(&answer);
        debug!(
            target: "ads", id = self.id, r#type = answer.type_url.short(), nonce = answer.nonce,
            resources = answer.resources.len(), removed = answer.removed.len(), "send"
        );
        match self.outbox.send_timeout(Ok(answer), SEND_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(Status::deadline_exceeded("the proxy takes no more responses"))
            }
            // The stream is gone; its end comes as the next request.
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(()),
        }
    }
}

/// A broken connection is how proxies usually leave; not an error of ours.
fn disconnect(status: Status) -> Result<(), Status> {
    match status.code() {
        tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Unavailable => Ok(()),
        _ => Err(status),
    }
}
