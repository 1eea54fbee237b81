//! Whether the pod is ready: Envoy has accepted clusters and listeners, it is
//! live, its workers run, what else was asked for is there, and the agent is not
//! ending.

mod grpc;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use proto::istio::networking::nds::v1::NameTable;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::ads::Link;
use crate::envoy::admin::Local;
use crate::metrics::Metrics;

/// Longest wait for an answer of Envoy.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The counters that tell, all in one request.
const QUERY: &str = "/stats?usedonly&filter=^((cluster_manager\\.cds|listener_manager\\.lds)\\.update_(success|rejected)|server\\.state|listener_manager\\.workers_started)$";

/// What has to be there. What is `None` does not count.
#[derive(Debug, Default)]
pub struct Conditions {
    /// Envoy, which has to be ready once: it keeps serving what it has.
    pub envoy: Option<Local>,
    /// The bootstrap of gRPC without a proxy, and the files that it names.
    pub grpc_bootstrap: Option<PathBuf>,
    /// The table of the DNS proxy.
    pub names: Option<watch::Receiver<Option<Arc<NameTable>>>>,
    /// Envoy's stream to istiod, which may be lost no longer than that.
    pub link: Option<(watch::Receiver<Link>, Duration)>,
}

/// Remembers what once was true.
#[derive(Debug)]
pub struct Ready {
    conditions: Conditions,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    is_draining: bool,
    envoy_was_ready: bool,
    is_ready: bool,
    was_ready: bool,
    told: String,
}

/// Envoy's counters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counters {
    clusters: (u64, u64),
    listeners: (u64, u64),
    server_state: Option<u64>,
    workers: Option<u64>,
}

impl Ready {
    /// Not ready; time counts from now.
    #[must_use]
    pub fn new(conditions: Conditions, metrics: Arc<Metrics>) -> Self {
        Self { conditions, state: Mutex::default(), metrics, start: Instant::now() }
    }

    /// From now on never ready.
    pub fn drain(&self) {
        self.lock().is_draining = true;
    }

    /// Whether the pod is ready; tells the log when that has changed.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn check(&self) -> Result<(), String> {
        let result = self.all().await;
        match &result {
            Ok(()) => self.is_ready(),
            Err(reason) => self.is_not_ready(reason),
        }
        result
    }

    async fn all(&self) -> Result<(), String> {
        if self.lock().is_draining {
            return Err("the agent is ending".into());
        }
        self.envoy().await?;
        let Conditions { grpc_bootstrap, names, link, .. } = &self.conditions;
        if let Some(path) = grpc_bootstrap {
            grpc::check(path)?;
        }
        if names.as_ref().is_some_and(|names| names.borrow().is_none()) {
            return Err("istio DNS capture is turned ON and DNS lookup table is not ready yet".into());
        }
        if let Some((link, limit)) = link
            && let Link::Lost { since } = *link.borrow()
            && since.elapsed() >= *limit
        {
            return Err(format!("no xDS stream with istiod for {limit:?}"));
        }
        Ok(())
    }

    /// Whether Envoy is or has been ready; without one there is nothing to wait for.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn envoy(&self) -> Result<(), String> {
        let Some(admin) = &self.conditions.envoy else { return Ok(()) };
        if self.lock().envoy_was_ready {
            return Ok(());
        }
        let answer = admin.call(Method::GET, QUERY, Bytes::new(), TIMEOUT).await;
        let (_, body) = answer.map_err(|error| format!("Envoy does not answer: {error}"))?;
        judge(&Counters::parse(&String::from_utf8_lossy(&body)))?;
        self.lock().envoy_was_ready = true;
        Ok(())
    }

    fn is_ready(&self) {
        let mut state = self.lock();
        if !state.was_ready {
            let took = self.start.elapsed();
            self.metrics.ready_after(took);
            info!("Readiness succeeded in {took:?}");
        }
        if !state.is_ready {
            info!("Envoy proxy is ready");
        }
        (state.was_ready, state.is_ready) = (true, true);
        state.told.clear();
    }

    /// Logs why it is not ready, once for each reason.
    fn is_not_ready(&self, reason: &str) {
        let mut state = self.lock();
        state.is_ready = false;
        if state.told != reason {
            warn!("Envoy proxy is NOT ready: {reason}");
            reason.clone_into(&mut state.told);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn parse(stats: &str) -> Self {
        let mut counters = Self::default();
        for line in stats.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            let Ok(value) = value.trim().parse() else { continue };
            match name {
                "cluster_manager.cds.update_success" => counters.clusters.0 = value,
                "cluster_manager.cds.update_rejected" => counters.clusters.1 = value,
                "listener_manager.lds.update_success" => counters.listeners.0 = value,
                "listener_manager.lds.update_rejected" => counters.listeners.1 = value,
                "server.state" => counters.server_state = Some(value),
                "listener_manager.workers_started" => counters.workers = Some(value),
                _ => {}
            }
        }
        counters
    }
}

fn judge(counters: &Counters) -> Result<(), String> {
    let Counters { clusters, listeners, server_state, workers } = counters;
    if clusters.0 == 0 || listeners.0 == 0 {
        let rejected = clusters.1 + listeners.1;
        let received = clusters.0 + listeners.0;
        let what = match (received, rejected) {
            (0, 0) => "config not received from XDS server (is Istiod running?)",
            (_, 0) => "config not fully received from XDS server",
            _ => "config received from XDS server, but was rejected",
        };
        return Err(format!(
            "{what}: cds updates: {} successful, {} rejected; lds updates: {} successful, {} rejected",
            clusters.0, clusters.1, listeners.0, listeners.1
        ));
    }
    match server_state {
        None => return Err("server.state is not yet updated".into()),
        Some(0) => {}
        Some(state) => {
            let name = match state {
                1 => "DRAINING",
                2 => "PRE_INITIALIZING",
                3 => "INITIALIZING",
                _ => "UNKNOWN",
            };
            return Err(format!("server is not live, current state is: {name}"));
        }
    }
    if *workers == Some(1) { Ok(()) } else { Err("workers have not yet started".into()) }
}

#[cfg(test)]
mod tests;
