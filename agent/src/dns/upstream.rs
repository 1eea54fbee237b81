//! Asks other DNS servers, as long as it takes to get an answer: the servers in
//! turn, a lost datagram costs a fraction of the time that there is, and an
//! answer counts also when the next server has been asked meanwhile.

mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::{MessageType, ResponseCode};
use rand::seq::SliceRandom as _;
use runtime::tasks::Tasks;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use super::packet::{Packet, is_same_question};
use super::query::{MIN_SIZE, Query, Transport};
use crate::metrics::dns::Dns;

pub(super) use tcp::frame;

/// Fewest attempts for one request, spread over the time that there is.
const ATTEMPTS: usize = 4;
/// A server that did not answer is asked after the others for so long.
const AVOIDED: Duration = Duration::from_secs(30);

/// A server does not answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The network or the server says so.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// What came is no answer to the request.
    #[error("what the server sent is no answer to the request")]
    Strange,
    /// The socket was closed.
    #[error("the socket was closed")]
    Closed,
}

/// One server.
#[derive(Debug)]
struct Server {
    address: SocketAddr,
    sockets: udp::Sockets,
    /// When it last failed to answer.
    failed: Mutex<Option<Instant>>,
}

/// All servers.
#[derive(Debug)]
pub(super) struct Upstream {
    servers: Mutex<Arc<[Arc<Server>]>>,
    is_parallel: bool,
    timeout: Duration,
    tasks: Tasks,
    metrics: Arc<Dns>,
}

impl Upstream {
    /// One that asks no server yet; `timeout` is for a request as a whole.
    pub(super) fn new(is_parallel: bool, timeout: Duration, tasks: Tasks, metrics: Arc<Dns>) -> Self {
        Self { servers: Mutex::new(Arc::from([])), is_parallel, timeout, tasks, metrics }
    }

    /// The servers in force; those that stay keep their sockets.
    fn servers(&self, addresses: &[SocketAddr]) -> Arc<[Arc<Server>]> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if !servers.iter().map(|server| &server.address).eq(addresses) {
            let known = |address: &SocketAddr| servers.iter().find(|server| server.address == *address);
            let next = addresses.iter().map(|address| match known(address) {
                Some(server) => server.clone(),
                None => Arc::new(Server {
                    address: *address,
                    sockets: udp::Sockets::default(),
                    failed: Mutex::new(None),
                }),
            });
            *servers = next.collect();
        }
        servers.clone()
    }

    /// Asks servers until one answers; `None` when none does in time.
    pub(super) async fn ask(
        &self,
        query: &Query,
        transport: Transport,
        addresses: &[SocketAddr],
    ) -> Option<Vec<u8>> {
        self.metrics.upstream_requests.inc();
        let start = Instant::now();
        let answer = self.ask_in_turn(query, transport, addresses, start + self.timeout).await;
        self.metrics.upstream_duration.observe((Instant::now() - start).as_secs_f64());
        if answer.is_none() {
            self.metrics.upstream_failures.inc();
        }
        answer
    }

    async fn ask_in_turn(
        &self,
        query: &Query,
        transport: Transport,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Option<Vec<u8>> {
        let servers = self.servers(addresses);
        let order = order(&servers);
        let count = if order.is_empty() { 0 } else { order.len().max(ATTEMPTS) };
        let period = self.timeout / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut attempts = 0;
        let mut running = FuturesUnordered::new();
        let (mut refusal, mut refused) = (None, Vec::new());
        let mut burst = if self.is_parallel { order.len() } else { 1 };
        let mut next = Instant::now();
        loop {
            while burst > 0 && attempts < count {
                let server = &order[attempts % order.len()];
                running.push(async move { (server, self.attempt(server, query, transport).await) });
                attempts += 1;
                next = Instant::now() + period;
                burst -= 1;
            }
            if running.is_empty() {
                return refusal;
            }
            tokio::select! {
                Some((server, result)) = running.next() => match result {
                    Ok(answer) if is_refusal(&answer) => {
                        server.mark(true);
                        self.metrics.server(server.address, false);
                        refusal = Some(answer);
                        // Whoever refuses has answered: only others are asked.
                        refused.push(server.address);
                        if order.iter().all(|server| refused.contains(&server.address)) {
                            return refusal;
                        }
                        burst = usize::from(attempts < order.len());
                    }
                    Ok(answer) => {
                        server.mark(false);
                        self.metrics.server(server.address, true);
                        return Some(answer);
                    }
                    Err(error) => {
                        debug!(target: "dns", server = %server.address, %error, "no answer");
                        server.mark(true);
                        self.metrics.server(server.address, false);
                        burst = 1;
                    }
                },
                () = sleep_until(next), if attempts < count => burst = 1,
                () = sleep_until(deadline) => {
                    for server in &order {
                        server.mark(true);
                        self.metrics.server(server.address, false);
                    }
                    return refusal;
                }
            }
        }
    }

    async fn attempt(&self, server: &Server, query: &Query, transport: Transport) -> Result<Vec<u8>, Error> {
        if transport == Transport::Tcp {
            return tcp::ask(server.address, query).await;
        }
        let answer = server.sockets.ask(server.address, query, &self.tasks).await?;
        let is_cut = Packet::parse(&answer).is_ok_and(|packet| packet.header.metadata.truncation);
        if !is_cut || query.limit <= usize::from(MIN_SIZE) {
            return Ok(answer);
        }
        // The client takes more than the server sends in a datagram.
        let whole = timeout_at(Instant::now() + self.timeout / 2, tcp::ask(server.address, query)).await;
        Ok(whole.ok().and_then(Result::ok).unwrap_or(answer))
    }
}

impl Server {
    fn mark(&self, failed: bool) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed.then(Instant::now);
    }

    fn is_avoided(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| Instant::now() - failed < AVOIDED)
    }
}

/// Any order, those that failed lately at the end.
fn order(servers: &[Arc<Server>]) -> Vec<Arc<Server>> {
    let mut order = servers.to_vec();
    order.shuffle(&mut rand::rng());
    order.sort_by_key(|server| server.is_avoided());
    order
}

/// An answer that says something of the server and nothing of the name.
fn is_refusal(answer: &[u8]) -> bool {
    Packet::parse(answer).is_ok_and(|packet| {
        matches!(
            packet.header.metadata.response_code,
            ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::NotAuth
        )
    })
}

/// Whether a message is the answer to a request, whose id is compared already.
fn is_answer(question: &[u8], bytes: &[u8]) -> bool {
    let Ok(packet) = Packet::parse(bytes) else { return false };
    let metadata = packet.header.metadata;
    let is_asked = match &packet.question {
        Some(own) => bytes.get(own.at.clone()).is_some_and(|own| is_same_question(question, own)),
        // Some servers refuse without saying what.
        None => metadata.response_code != ResponseCode::NoError,
    };
    metadata.message_type == MessageType::Response && is_asked
}

#[cfg(test)]
pub(super) mod tests;
