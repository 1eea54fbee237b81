//! Connections to istiod for xDS: all addresses of the name are tried, again
//! and again, and after a loss one is dialled before anybody asks for it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http2::SendRequest;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::requests::Requests;
use crate::config::Endpoint;
use crate::identity::told::Told;
use crate::metrics::Metrics;
use crate::upstream::{self, Keepalive, addresses};

/// Waits between tries to reach istiod, shortest and longest. A restart of
/// istiod is followed within the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(800));
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
    /// The address that was lost last, or did not take a stream: the others come first.
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

    /// An istiod does not take a stream: the others come first.
    pub fn avoid(&self, address: SocketAddr) {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }

    /// istiod was lost: dials it, unless somebody else's loss has done so.
    pub fn prepare(self: &Arc<Self>, lost: Option<SocketAddr>) {
        if let Some(address) = lost {
            self.avoid(address);
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
                    debug!(target: "xdsproxy", name = self.endpoint.address, %address, "there is a connection to istiod");
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
        let mut addresses = addresses::resolve(&self.endpoint).await?;
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // Stable: the resolver's order is kept otherwise.
        addresses.sort_by_key(|address| Some(*address) == lost);
        let dial = |address| upstream::connect_to(&self.endpoint, address, self.keepalive, &self.tasks);
        let (address, sender) = addresses::first(addresses, dial)
            .await
            .unwrap_or_else(|| Err(upstream::Error::no_address(&self.endpoint)))?;
        Ok(Connection { sender, address })
    }
}
