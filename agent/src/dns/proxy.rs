//! Decides what a request gets: an answer from the table, from the cache, or
//! from another server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use runtime::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, trace};

use super::answer::{Answer, answer};
use super::cache::{Cache, Cached, Key};
use super::packet::{self, Packet};
use super::query::{Query, Request, Transport};
use super::resolv_conf::Watched;
use super::table::Table;
use super::upstream::Upstream;
use super::{BeforeTable, Settings};
use crate::metrics::dns::Dns;

/// Requests that wait for other servers at once. What comes above that fails at
/// once: it would fail later, and need memory until then.
const WAITING: usize = 512;
/// How long a client waits when there is an old answer for it (RFC 8767).
const PATIENCE: Duration = Duration::from_millis(1800);

/// What all sockets share.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) tables: watch::Receiver<Option<Arc<Table>>>,
    resolv_conf: Watched,
    before_table: BeforeTable,
    upstream: Upstream,
    cache: Mutex<Cache>,
    waiting: Arc<Semaphore>,
    /// Addresses that we listen on, which are not asked.
    own: Vec<SocketAddr>,
    metrics: Arc<Dns>,
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing.
    Ignore,
    /// Send this.
    Reply(Vec<u8>),
    /// Ask another server.
    Forward(Forward),
}

/// A request for another server.
#[derive(Debug)]
pub(super) struct Forward {
    query: Box<Query>,
    transport: Transport,
    /// The table has the host, so it exists, whatever others say.
    is_known: bool,
    _slot: OwnedSemaphorePermit,
}

impl Proxy {
    pub(super) fn new(
        settings: &Settings,
        resolv_conf: Watched,
        own: Vec<SocketAddr>,
        tables: watch::Receiver<Option<Arc<Table>>>,
        tasks: Tasks,
        metrics: Arc<Dns>,
    ) -> Self {
        Self {
            tables,
            resolv_conf,
            before_table: settings.before_table,
            upstream: Upstream::new(settings.is_parallel, settings.timeout, tasks, metrics.clone()),
            cache: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            own,
            metrics,
        }
    }

    /// Answers a request as far as that needs nobody else.
    pub(super) fn decide(&self, request: Vec<u8>, transport: Transport) -> Decision {
        self.metrics.requests.inc();
        let query = match Request::read(request, transport) {
            Request::Query(query) => query,
            Request::Refused(reply) => return Decision::Reply(reply),
            Request::Nothing => return Decision::Ignore,
        };
        let table = self.tables.borrow().clone();
        let is_known = match table {
            None if self.before_table == BeforeTable::Refuse => {
                debug!(target: "dns", host = query.host, "a request before the first table");
                return Decision::Reply(query.fail(ResponseCode::ServFail));
            }
            None => false,
            Some(table) => match answer(&table, &query, self.resolv_conf.current().search.as_deref()) {
                Answer::Known(reply) => {
                    trace!(target: "dns", host = query.host, kind = %query.question.kind, "answered from the table");
                    return Decision::Reply(reply);
                }
                Answer::Elsewhere => true,
                Answer::Unknown => false,
            },
        };
        match self.waiting.clone().try_acquire_owned() {
            Ok(slot) => Decision::Forward(Forward { query, transport, is_known, _slot: slot }),
            Err(_) => Decision::Reply(query.fail(ResponseCode::ServFail)),
        }
    }

    /// Gets the answer of another server, new or old.
    pub(super) async fn forward(&self, forward: Forward) -> Vec<u8> {
        let Forward { query, transport, is_known, _slot } = forward;
        let key = Key::of(&query);
        let cached = key.as_ref().and_then(|key| self.cache().get(key, &query, Instant::now()));
        let stale = match cached {
            Some(Cached::Fresh(bytes)) => return self.finish(&query, bytes, is_known),
            Some(Cached::Stale(bytes)) => Some(bytes),
            None => None,
        };
        debug!(target: "dns", host = query.host, kind = %query.question.kind, "asking other servers");
        let conf = self.resolv_conf.current();
        let servers: Vec<SocketAddr> =
            conf.servers.iter().copied().filter(|server| !self.is_own(server)).collect();
        let asked = self.upstream.ask(&query, transport, &servers);
        let answer = match stale {
            Some(_) => timeout(PATIENCE, asked).await.ok().flatten(),
            None => asked.await,
        };
        let is_good = answer.as_ref().is_some_and(|answer| !is_failure(answer));
        if let (false, Some(stale)) = (is_good, stale) {
            debug!(target: "dns", host = query.host, "no server answers: the last answer again");
            if let Some(key) = &key {
                self.cache().failed(key, Instant::now());
            }
            self.metrics.stale.inc();
            return self.finish(&query, stale, is_known);
        }
        let Some(mut answer) = answer else { return query.fail(ResponseCode::ServFail) };
        packet::set_id(&mut answer, query.metadata.id);
        if let Some(key) = key {
            self.cache().put(key, &answer, Instant::now());
        }
        self.finish(&query, answer, is_known)
    }

    /// Makes it the answer to that request.
    fn finish(&self, query: &Query, answer: Vec<u8>, is_known: bool) -> Vec<u8> {
        let code = Packet::parse(&answer).map(|packet| packet.header.metadata.response_code);
        // A client would take it that the host is not there at all.
        if is_known && matches!(code, Ok(ResponseCode::NXDomain)) {
            return query.answer(Vec::new(), Vec::new());
        }
        packet::cut(answer, query.limit)
    }

    /// Whether that server is this proxy, which would ask itself for ever.
    fn is_own(&self, server: &SocketAddr) -> bool {
        self.own.iter().any(|own| {
            let is_everywhere = own.ip().is_unspecified() && server.ip().is_loopback();
            own.port() == server.port() && (is_everywhere || own.ip() == server.ip())
        })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_failure(answer: &[u8]) -> bool {
    Packet::parse(answer).is_ok_and(|packet| packet.header.metadata.response_code == ResponseCode::ServFail)
}

#[cfg(test)]
mod tests;
