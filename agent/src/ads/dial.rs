//! Connections to istiod for xDS: all addresses of the name are tried, again
//! and again, and after a loss one is dialled before anybody asks for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http2::SendRequest;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::requests::Requests;
use crate::config::Endpoint;
use crate::identity::told::Told;
use crate::metrics::Metrics;
use crate::upstream::{self, Keepalive};

/// Waits between tries to reach istiod, shortest and longest. A restart of
/// istiod is followed within the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));
/// Time that an address has before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(300);
/// Longest wait before a connection is dialled in advance. All agents lose
/// istiod at the same moment, and Envoy too waits up to 500 ms.
const AHEAD: Duration = Duration::from_millis(250);
/// A connection that was dialled in advance is kept that long.
const STANDBY: Duration = Duration::from_secs(30);

/// A connection that nobody uses yet.
#[derive(Debug)]
pub struct Connection {
    /// Where requests go.
    pub sender: SendRequest<Requests>,
    /// The address of istiod.
    pub address: SocketAddr,
}

/// Dials istiod.
#[derive(Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    keepalive: Keepalive,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    /// What is dialled in advance, and since when.
    standby: Mutex<Option<(oneshot::Receiver<Connection>, Instant)>>,
    /// The address that was lost last: the others come first.
    lost: Mutex<Option<SocketAddr>>,
    told: Told,
}

impl Dialer {
    /// A dialer that has done nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, keepalive: Keepalive, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        Self {
            endpoint,
            keepalive,
            tasks,
            metrics,
            standby: Mutex::default(),
            lost: Mutex::default(),
            told: Told::new(),
        }
    }

    /// Whom it dials.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A connection: the one that was dialled in advance, or else a new one.
    /// Tries until there is one.
    pub async fn take(&self) -> Connection {
        let standby = self.standby.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((receiver, _)) = standby
            && let Ok(connection) = receiver.await
            && !connection.sender.is_closed()
        {
            return connection;
        }
        self.dial().await
    }

    /// istiod was lost: dials it, unless somebody else's loss has done so.
    pub fn prepare(self: &Arc<Self>, lost: Option<SocketAddr>) {
        if lost.is_some() {
            *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
        }
        let mut standby = self.standby.lock().unwrap_or_else(PoisonError::into_inner);
        if standby.is_some() {
            return;
        }
        let (mut sender, receiver) = oneshot::channel();
        *standby = Some((receiver, Instant::now()));
        let dialer = self.clone();
        let dial = async move {
            let dial = async {
                sleep(AHEAD.mul_f64(rand::random_range(0.0..=1.0))).await;
                dialer.dial().await
            };
            let connection = tokio::select! {
                connection = dial => connection,
                () = sender.closed() => return,
            };
            // Nobody wants it any more: it closes.
            drop(sender.send(connection));
        };
        drop(self.tasks.spawn("istiod standby", dial));
    }

    /// Closes what was dialled in advance and was not wanted in time.
    pub fn prune(&self) {
        let mut standby = self.standby.lock().unwrap_or_else(PoisonError::into_inner);
        if standby.as_ref().is_some_and(|(_, since)| Instant::now() - *since > STANDBY) {
            debug!(target: "xdsproxy", "the connection in reserve is not wanted");
            *standby = None;
        }
    }

    async fn dial(&self) -> Connection {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.try_all().await {
                Ok(connection) => {
                    let address = connection.address;
                    info!(target: "xdsproxy", name = self.endpoint.address, %address, "connected to istiod");
                    self.told.clear();
                    return connection;
                }
                Err(error) => {
                    self.metrics.istiod_failed();
                    let text = error.to_string();
                    if self.told.is_new(&text) {
                        warn!(target: "xdsproxy", error = text, "istiod cannot be reached; Envoy's stream is held meanwhile");
                    }
                    backoff.sleep().await;
                }
            }
        }
    }

    async fn try_all(&self) -> Result<Connection, upstream::Error> {
        let mut addresses = upstream::resolve(&self.endpoint).await?;
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // Stable: the resolver's order is kept otherwise.
        addresses.sort_by_key(|address| Some(*address) == lost);
        let dial = |address| upstream::connect_to(&self.endpoint, address, self.keepalive, &self.tasks);
        let (address, sender) = first(addresses, dial).await.unwrap_or_else(|| {
            let source = std::io::Error::other("the name has no address");
            Err(upstream::Error::Connect { address: self.endpoint.address.clone(), source })
        })?;
        Ok(Connection { sender, address })
    }
}

/// The first that succeeds; each has a moment for itself before the next one
/// begins beside it. The last error when none does, `None` without addresses.
async fn first<T, E, F: Future<Output = Result<T, E>>>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Option<Result<(SocketAddr, T), E>> {
    let mut addresses = addresses.into_iter();
    let mut tries = FuturesUnordered::new();
    let begin = |address| {
        let dialled = dial(address);
        async move { (address, dialled.await) }
    };
    tries.push(begin(addresses.next()?));
    loop {
        let (address, result) = tokio::select! {
            Some(ended) = tries.next() => ended,
            () = sleep(STAGGER), if addresses.len() > 0 => {
                tries.extend(addresses.next().map(&begin));
                continue;
            }
        };
        match result {
            Ok(value) => return Some(Ok((address, value))),
            Err(error) if tries.is_empty() && addresses.len() == 0 => return Some(Err(error)),
            Err(_) => tries.extend(addresses.next().map(&begin)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: u16) -> Vec<SocketAddr> {
        (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect()
    }

    /// Port 1 never answers, port 2 refuses, port 3 answers after a second.
    async fn dial(address: SocketAddr) -> Result<u16, u16> {
        match address.port() {
            1 => std::future::pending().await,
            2 => Err(2),
            port => {
                sleep(Duration::from_secs(1)).await;
                Ok(port)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_hangs_does_not_keep_the_others_from_being_tried() {
        let start = Instant::now();
        let found = first(addresses(3), dial).await;
        assert_eq!(found, Some(Ok((([127, 0, 0, 1], 3).into(), 3))));
        // The second begins after the first's moment and fails at once.
        assert_eq!(Instant::now() - start, STAGGER + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_error_tells_when_all_fail() {
        let two = vec![([127, 0, 0, 1], 2).into(); 2];
        assert_eq!(first(two, dial).await, Some(Err(2)));
        assert_eq!(first(Vec::new(), dial).await, None);
    }
}
