//! One proxy's stream: requests in, responses out, pushes in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use names::TypeUrl;
use pilot::cache::{Client, Fresh};
use proto::envoy::config::core::v3::Node;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tonic::Status;
use tracing::{debug, info, warn};
use xds::session::{Asked, is_served};
use xds::{Answer, Request, Session, Variant, Verdict};

use super::admit;
use super::proxyless::Told;
use super::secret::{self, Secrets};
use super::status::{Entry, Findings, Reached, Row, Shared, Table};
use super::trust::{self, Trust};
use super::work;
use crate::auth::Caller;
use crate::debug::{Pages, over_xds};
use crate::kube::access::Access;
use crate::metrics::{Connected, Metrics};
use crate::register::{self, Registrar, Registration};
use crate::world::World;

/// Responses that wait for the transport. More would only grow old there: what
/// changes meanwhile is merged into the next push instead.
pub const OUTBOX: usize = 2;

/// Requests that wait until the API server has said what the caller may read.
const DEFERRED: usize = 64;

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
    /// A proxy that takes nothing for that long is dropped and may come back.
    pub send_timeout: Duration,
    /// Whether the caller must be who the proxy says it is.
    pub identity_check: bool,
    /// Numbers the connections.
    pub serial: Arc<AtomicU64>,
    /// Debug pages, which are served on these streams, too.
    pub pages: Arc<Pages>,
    /// Told when a proxy was sent something.
    pub pushed: Arc<Notify>,
    /// Roots that agents trust.
    pub trust: Trust,
    /// Who may read Secrets, where a cluster says it.
    pub access: Option<Access>,
    /// Registers workloads on plain hosts.
    pub workloads: Registrar,
}

/// A request with the node, which only the first of a stream must carry.
#[derive(Debug)]
pub struct Incoming {
    /// The node, if given.
    pub node: Option<Node>,
    /// The request.
    pub request: Request,
    /// Code of gRPC with which it refuses a response, if it does.
    pub error_code: i32,
}

/// What goes to the transport.
#[derive(Debug)]
pub enum Outgoing {
    /// A response of the protocol.
    Answer(Answer),
    /// A whole message of gRPC, with the bytes before it.
    Message(Bytes),
}

struct Connection {
    id: String,
    hub: Hub,
    client: Client,
    secrets: Secrets,
    told: Told,
    /// Serial of the configuration for which secrets and extensions were looked at.
    looked_at: BTreeMap<TypeUrl, u64>,
    session: Shared,
    world: Arc<World>,
    /// When the configuration came that is not pushed yet.
    behind_since: Option<Instant>,
    outbox: mpsc::Sender<Result<Outgoing, Status>>,
    /// Shows the connection as long as it is there.
    _entry: Entry,
    end: Arc<Notify>,
    /// What was found about the proxy's own workload, for pages.
    findings: Findings,
    /// Serial of the configuration of which all was sent, for pages.
    reached: Reached,
    /// Who calls, for debug pages.
    caller: Option<Caller>,
    /// The last request for a debug page, which an acknowledgement repeats.
    asked_page: Option<(TypeUrl, Vec<String>)>,
    counted: Connected,
    /// Its workload's entry, if that is looked after here.
    registration: Option<Registration>,
    /// Listeners and routes wait until then, if they do.
    held: Option<Instant>,
    /// Whether a type that is not served was asked for, which is logged once.
    has_strange_type: bool,
    /// Requests for what the caller may not be allowed to read, in order.
    deferred: Vec<Incoming>,
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
    outbox: mpsc::Sender<Result<Outgoing, Status>>,
) -> Result<(), Status> {
    let opened = admit::open(&hub, caller.as_ref(), &mut requests).await.inspect_err(|status| {
        warn!(target: "ads", code = ?status.code(), reason = status.message(), "stream refused");
    })?;
    let Some((proxy, first)) = opened else { return Ok(()) };

    let id = format!("{}-{}", proxy.id, hub.serial.fetch_add(1, Ordering::Relaxed) + 1);
    // Who has no right to an entry gets nothing else either.
    // Boxed: it is the larger half of what a stream would need all its life.
    let (proxy, registration) = Box::pin(hub.workloads.connect(proxy, caller.as_ref())).await?;
    let session = Shared::new(Session::new(variant));
    let end = Arc::new(Notify::new());
    let findings = Findings::default();
    let reached = Reached::default();
    let row = Row {
        proxy: proxy.clone(),
        connected_at: SystemTime::now(),
        peer,
        session: session.clone(),
        end: end.clone(),
        findings: findings.clone(),
        reached: reached.clone(),
    };
    let entry = hub.table.enter(id.clone(), row);
    let counted = hub.metrics.connected(proxy.name(), &proxy.istio_version);
    info!(target: "ads", node = %proxy.id, by = caller.as_ref().map_or("none", |caller| caller.by), ?variant, id, "new connection");
    let world = hub.world.borrow_and_update().clone();
    let mut connection = Connection {
        id,
        hub: hub.clone(),
        client: Client::new(proxy),
        secrets: Secrets::new(caller.as_ref()),
        told: Told::default(),
        looked_at: BTreeMap::new(),
        session,
        world,
        behind_since: None,
        outbox,
        _entry: entry,
        end,
        findings,
        reached,
        caller,
        asked_page: None,
        counted,
        registration,
        held: None,
        has_strange_type: false,
        deferred: Vec::new(),
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

impl Connection {
    async fn run(
        &mut self,
        first: Incoming,
        mut requests: impl Stream<Item = Result<Incoming, Status>> + Unpin,
        changes: &mut watch::Receiver<Arc<World>>,
    ) -> Result<(), Status> {
        // From before the first request on, which may be one that waits for them.
        let mut allowed = self.hub.access.as_ref().map(Access::changes);
        self.request(first).await?;
        let end = self.end.clone();
        let mut trust = self.hub.trust.clone();
        trust.mark_unchanged();
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
                    Some(Ok(incoming)) => self.request(incoming).await?,
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
                        self.looked_at.clear();
                    }
                    self.behind_since.get_or_insert(self.world.since);
                    self.push().await?;
                }
                Ok(()) = trust.changed() => self.push_type(&TypeUrl::ProxyConfig).await?,
                () = changed(&mut allowed) => {
                    for incoming in std::mem::take(&mut self.deferred) {
                        self.request(incoming).await?;
                    }
                    for type_url in [TypeUrl::Secret, TypeUrl::Extension] {
                        self.looked_at.remove(&type_url);
                        self.push_type(&type_url).await?;
                    }
                }
                () = end.notified() => {
                    return Err(Status::unavailable("disconnected by the operator"));
                }
                () = patience => {
                    debug!(target: "ads", id = self.id, "new clusters are still not in use");
                    self.session.lock().stop_waiting();
                    self.release().await?;
                    self.settle().await?;
                    self.look_around();
                }
            }
        }
    }

    async fn request(&mut self, incoming: Incoming) -> Result<(), Status> {
        let Incoming { node, mut request, error_code } = incoming;
        // Large, and read by now.
        drop(node);
        if over_xds::is_page(&request.type_url) {
            return self.page(&request).await;
        }
        let type_url = &request.type_url;
        if *type_url == TypeUrl::Health {
            register::tell(self.registration.as_ref(), &self.id, request.error.as_deref());
            return Ok(());
        }
        let is_behind = self.deferred.iter().any(|before| before.request.type_url == *type_url);
        if is_behind || !self.look_at_access(type_url) {
            return self.defer(request, error_code);
        }
        let reaction = self.session.lock().request(&request, SystemTime::now()).map_err(|error| {
            Status::resource_exhausted(format!("{} of {}: {error}", type_url.short(), self.client.proxy().id))
        })?;
        // The session has them now, and the proxy may be slow to take the answer.
        request.subscribe = Vec::new();
        request.initial_versions = BTreeMap::new();
        let type_url = &request.type_url;
        debug!(target: "ads", id = self.id, r#type = type_url.short(), nonce = request.nonce, ?reaction, "request");
        if let Some(Verdict::Refused(error)) = &reaction.verdict {
            self.hub.metrics.rejected(&mut self.counted, type_url, error_code);
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
        self.settle().await?;
        self.look_around();
        Ok(())
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
        self.settle().await?;
        self.look_around();
        Ok(())
    }

    /// After something was sent: whether that was all of it, and what was found.
    fn look_around(&mut self) {
        if self.held.is_none() {
            self.reached.set(self.world.serial);
        }
        if let Some(since) = self.behind_since.take_if(|_| self.held.is_none()) {
            self.hub.metrics.converged(since.elapsed());
        }
        if self.findings.set(self.client.findings()) {
            self.hub.table.touch();
        }
        self.hub.pushed.notify_one();
    }

    /// Answers a request for a debug page, of which no state is kept.
    async fn page(&mut self, request: &Request) -> Result<(), Status> {
        let asked = (request.type_url.clone(), request.subscribe.clone());
        // A client that accepts the answer names what it has asked for.
        if !request.nonce.is_empty() && self.asked_page.as_ref() == Some(&asked) {
            return Ok(());
        }
        self.asked_page = Some(asked);
        let variant = self.session.lock().variant();
        let answer = over_xds::answer(&self.hub.pages, self.caller.as_ref(), variant, request)?;
        match self.outbox.send_timeout(Ok(Outgoing::Message(answer)), self.hub.send_timeout).await {
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                Err(Status::deadline_exceeded("the page was not taken in time"))
            }
            // The stream is gone; its end comes as the next request.
            Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(()),
        }
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

    /// Whether what the proxy has of a type is told to be as it was before any
    /// work: of secrets and extensions, which are made for each proxy.
    fn is_untouched(&mut self, type_url: &TypeUrl) -> bool {
        if !matches!(type_url, TypeUrl::Secret | TypeUrl::Extension) {
            return false;
        }
        let seen = self.looked_at.insert(type_url.clone(), self.world.serial);
        seen.is_some_and(|seen| seen >= self.world.stamps.marked())
    }

    async fn push_type(&mut self, type_url: &TypeUrl) -> Result<(), Status> {
        if self.session.lock().asked(type_url).is_none() || self.is_untouched(type_url) {
            return Ok(());
        }
        if !self.look_at_access(type_url) {
            // It is looked at again when that is known; nothing else waits for it.
            self.looked_at.remove(type_url);
            return Ok(());
        }
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
            self.hub.table.touch();
            drop(permit);
            answer
        };
        self.send(answer).await
    }

    /// Before credentials are sent: looks whether the caller's account may read
    /// them; `false` when that is not known yet.
    fn look_at_access(&mut self, type_url: &TypeUrl) -> bool {
        let Some(access) = &self.hub.access else { return true };
        let world = &self.world;
        match type_url {
            TypeUrl::Secret => self.secrets.look_at(access, |_| true),
            TypeUrl::Extension => {
                self.secrets.look_at(access, |namespace| secret::pulls(&world.store, namespace))
            }
            _ => true,
        }
    }

    /// Keeps a request until it is known what the caller may read.
    fn defer(&mut self, request: Request, error_code: i32) -> Result<(), Status> {
        if self.deferred.len() >= DEFERRED {
            return Err(Status::resource_exhausted(format!(
                "more than {DEFERRED} requests wait for the API server to say whether the caller may read Secrets"
            )));
        }
        self.deferred.push(Incoming { node: None, request, error_code });
        Ok(())
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
        if *type_url == TypeUrl::ProxyConfig {
            let resources = vec![trust::resource(&self.hub.trust)];
            return session.push(type_url, resources, &self.world.version, SystemTime::now());
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
        self.told.look(&mut self.client, self.world.now(), type_url, asked);
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
        if *type_url == TypeUrl::ProxyConfig {
            return vec![trust::resource(&self.hub.trust)];
        }
        if *type_url == TypeUrl::Secret {
            let (proxy, wanted) = (self.client.proxy(), asked.to_wanted());
            return self.secrets.resources(&world.snapshot, proxy, &wanted, &self.hub.metrics);
        }
        if *type_url == TypeUrl::Extension {
            return self.secrets.extensions(&world.snapshot, self.client.proxy(), &asked.to_wanted());
        }
        self.told.look(&mut self.client, world.now(), type_url, asked);
        if self.client.is_ready(world.now(), type_url, asked) {
            return self.client.resources(world.now(), type_url, asked);
        }
        let permit = self.turn().await;
        let begin = Instant::now();
        let resources = work::blocking(|| self.client.resources(world.now(), type_url, asked));
        self.hub.metrics.generated(type_url, begin.elapsed());
        self.hub.table.touch();
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
        let type_url = answer.type_url.clone();
        match self.outbox.send_timeout(Ok(Outgoing::Answer(answer)), self.hub.send_timeout).await {
            Ok(()) => {
                self.hub.metrics.sent(begin.elapsed());
                Ok(())
            }
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                self.hub.metrics.timed_out(&type_url);
                Err(Status::deadline_exceeded(format!(
                    "the proxy has taken no response for {:?}; it may come back",
                    self.hub.send_timeout
                )))
            }
            // The stream is gone; its end comes as the next request.
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(()),
        }
    }
}

/// Waits for a change, forever where nothing changes.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    let has_changed = match changes {
        Some(changes) => changes.changed().await.is_ok(),
        None => false,
    };
    if !has_changed {
        std::future::pending::<()>().await;
    }
}

/// A broken connection is how proxies usually leave; not an error of ours.
fn disconnect(status: Status) -> Result<(), Status> {
    match status.code() {
        tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Unavailable => Ok(()),
        _ => Err(status),
    }
}
