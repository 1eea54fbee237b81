//! One proxy's stream: requests in, responses out, pushes in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use names::TypeUrl;
use pilot::Proxy;
use pilot::cache::{Client, Fresh};
use proto::envoy::config::core::v3::Node;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tonic::Status;
use tracing::{debug, info, warn};
use xds::session::{Asked, is_served};
use xds::{Answer, Request, Session, Variant, Verdict};

use super::secret::Secrets;
use super::status::{Entry, Row, Shared, Table};
use super::work;
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
    client: Client,
    secrets: Secrets,
    /// Serial of the configuration for which secrets and extensions were looked at.
    looked_at: BTreeMap<TypeUrl, u64>,
    session: Shared,
    world: Arc<World>,
    /// When the configuration came that is not pushed yet.
    behind_since: Option<Instant>,
    outbox: mpsc::Sender<Result<Answer, Status>>,
    /// Shows the connection as long as it is there.
    _entry: Entry,
    end: Arc<Notify>,
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
    peer: Option<SocketAddr>,
    variant: Variant,
    mut requests: impl Stream<Item = Result<Incoming, Status>> + Unpin,
    outbox: mpsc::Sender<Result<Answer, Status>>,
) -> Result<(), Status> {
    let opened = open(&hub, caller.as_ref(), &mut requests).await.inspect_err(|status| {
        warn!(target: "ads", code = ?status.code(), reason = status.message(), "stream refused");
    })?;
    let Some((proxy, first)) = opened else { return Ok(()) };

    let id = format!("{}-{}", proxy.id, hub.serial.fetch_add(1, Ordering::Relaxed) + 1);
    let proxy = Arc::new(proxy);
    let session = Shared::new(Session::new(variant));
    let end = Arc::new(Notify::new());
    let row = Row {
        proxy: proxy.clone(),
        connected_at: SystemTime::now(),
        peer,
        session: session.clone(),
        end: end.clone(),
    };
    let entry = hub.table.enter(id.clone(), row);
    let _counted = hub.metrics.connected(&proxy.istio_version);
    info!(target: "ads", node = %proxy.id, by = caller.as_ref().map_or("none", |caller| caller.by), ?variant, id, "new connection");
    let world = hub.world.borrow_and_update().clone();
    let mut connection = Connection {
        id,
        hub: hub.clone(),
        client: Client::new(proxy),
        secrets: Secrets::new(caller.as_ref()),
        looked_at: BTreeMap::new(),
        session,
        world,
        behind_since: None,
        outbox,
        _entry: entry,
        end,
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
        let end = self.end.clone();
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
                    let forced = self.world.forced;
                    self.world = changes.borrow_and_update().clone();
                    if self.world.forced > forced {
                        self.session.lock().force_all();
                        self.client.forget();
                    }
                    self.behind_since = Some(Instant::now());
                    self.push().await?;
                }
                () = end.notified() => {
                    return Err(Status::unavailable("disconnected by the operator"));
                }
                () = patience => {
                    debug!(target: "ads", id = self.id, "new clusters are still not in use");
                    self.session.lock().stop_waiting();
                    self.release().await?;
                    self.settle().await?;
                }
            }
        }
    }

    async fn request(&mut self, request: &Request) -> Result<(), Status> {
        let type_url = &request.type_url;
        let reaction = self.session.lock().request(request, SystemTime::now()).map_err(|error| {
            Status::resource_exhausted(format!("{} of {}: {error}", type_url.short(), self.client.proxy().id))
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
            let resources = self.generate(type_url, wanted.asked()).await;
            let version = self.world.version.clone();
            let answer =
                self.session.lock().respond(type_url, &wanted, resources, &version, SystemTime::now());
            self.send(answer).await?;
            let is_due = self.session.lock().endpoints_due();
            if is_due {
                self.push_type(&TypeUrl::Endpoint).await?;
            }
        }
        if self.held.is_some() && !self.must_wait() {
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
        if self.must_wait() {
            self.held.get_or_insert_with(|| Instant::now() + WARMING_TIMEOUT);
        } else {
            self.release().await?;
        }
        if let Some(since) = self.behind_since.take_if(|_| self.held.is_none()) {
            self.hub.metrics.converged(since.elapsed());
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

    fn must_wait(&self) -> bool {
        self.session.lock().routes_must_wait()
    }

    async fn push_type(&mut self, type_url: &TypeUrl) -> Result<(), Status> {
        let is_ready = {
            let session = self.session.lock();
            let Some(asked) = session.asked(type_url) else { return Ok(()) };
            self.client.is_fresh_ready(self.world.now(), type_url, asked)
        };
        // What is there already is taken; what takes its time waits for its turn,
        // which ends before anything is sent.
        let answer = if is_ready {
            self.fresh(type_url)
        } else {
            let permit = self.turn().await;
            let begin = Instant::now();
            let answer = work::blocking(|| self.fresh(type_url));
            self.hub.metrics.generated(type_url, begin.elapsed());
            drop(permit);
            answer
        };
        self.send(answer).await
    }

    /// Waits until there is room for one more translation.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let begin = Instant::now();
        let permit = self.hub.throttle.clone().acquire_owned().await;
        self.hub.metrics.queued(begin.elapsed());
        // Never closed; without it the work is done all the same.
        permit.ok()
    }

    /// What is new to the proxy.
    fn fresh(&mut self, type_url: &TypeUrl) -> Option<Answer> {
        let mut session = self.session.lock();
        let asked = session.asked(type_url)?;
        if matches!(type_url, TypeUrl::Secret | TypeUrl::Extension) {
            let marked = self.world.stamps.marked();
            let seen = self.looked_at.insert(type_url.clone(), self.world.serial);
            if seen.is_some_and(|seen| seen >= marked) && self.world.forced < self.world.serial {
                return None;
            }
        }
        if *type_url == TypeUrl::Secret {
            let resources = self.secrets.resources(
                &self.world.snapshot,
                self.client.proxy(),
                &asked.to_wanted(),
                &self.hub.metrics,
            );
            return session.push(type_url, resources, &self.world.version, SystemTime::now());
        }
        if *type_url == TypeUrl::Extension {
            let (proxy, wanted) = (self.client.proxy(), asked.to_wanted());
            let resources = self.secrets.extensions(&self.world.snapshot, proxy, &wanted);
            return session.push(type_url, resources, &self.world.version, SystemTime::now());
        }
        let fresh = self.client.fresh(self.world.now(), type_url, asked, session.due());
        let (version, now) = (&self.world.version, SystemTime::now());
        match fresh {
            Fresh::Same => None,
            Fresh::All(resources) => session.push(type_url, resources, version, now),
            Fresh::Some(names, resources) => session.push_some(type_url, names, resources, version, now),
        }
    }

    async fn settle(&mut self) -> Result<(), Status> {
        let answer = self.session.lock().settle(&self.world.version, SystemTime::now());
        self.send(answer).await
    }

    async fn generate(&mut self, type_url: &TypeUrl, asked: Asked<'_>) -> Vec<xds::Resource> {
        let world = self.world.clone();
        if *type_url == TypeUrl::Secret {
            let (proxy, wanted) = (self.client.proxy(), asked.to_wanted());
            return self.secrets.resources(&world.snapshot, proxy, &wanted, &self.hub.metrics);
        }
        if *type_url == TypeUrl::Extension {
            return self.secrets.extensions(&world.snapshot, self.client.proxy(), &asked.to_wanted());
        }
        if self.client.is_ready(world.now(), type_url, asked) {
            return self.client.resources(world.now(), type_url, asked);
        }
        let permit = self.turn().await;
        let begin = Instant::now();
        let resources = work::blocking(|| self.client.resources(world.now(), type_url, asked));
        self.hub.metrics.generated(type_url, begin.elapsed());
        drop(permit);
        resources
    }

    async fn send(&self, answer: Option<Answer>) -> Result<(), Status> {
        let Some(answer) = answer else { return Ok(()) };
        self.hub.metrics.pushed(&answer);
        debug!(
            target: "ads", id = self.id, r#type = answer.type_url.short(), nonce = answer.nonce,
            resources = answer.resources.len(), removed = answer.removed.len(), "send"
        );
        let begin = Instant::now();
        match self.outbox.send_timeout(Ok(answer), SEND_TIMEOUT).await {
            Ok(()) => {
                self.hub.metrics.sent(begin.elapsed());
                Ok(())
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.hub.metrics.write_timeouts.inc();
                Err(Status::deadline_exceeded(format!(
                    "the proxy has taken no response for {} s; it may come back",
                    SEND_TIMEOUT.as_secs()
                )))
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
