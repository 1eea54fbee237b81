//! Whether Envoy is ready: it has accepted clusters and listeners, it is live,
//! its workers run, and the agent is not ending.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::envoy::admin::Local;
use crate::metrics::Metrics;

/// Longest wait for an answer of Envoy.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The counters that tell, all in one request.
const QUERY: &str = "/stats?usedonly&filter=^((cluster_manager\\.cds|listener_manager\\.lds)\\.update_(success|rejected)|server\\.state|listener_manager\\.workers_started)$";

/// Remembers what once was true, as Envoy keeps serving what it has.
#[derive(Debug)]
pub struct Ready {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    is_draining: bool,
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
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), metrics, start: Instant::now() }
    }

    /// From now on never ready.
    pub fn drain(&self) {
        self.lock().is_draining = true;
    }

    /// Whether Envoy is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn check(&self, admin: &Local) -> Result<(), String> {
        {
            let state = self.lock();
            if state.is_draining {
                return Err("the agent is ending".into());
            }
            if state.was_ready {
                return Ok(());
            }
        }
        let answer = admin.call(Method::GET, QUERY, Bytes::new(), TIMEOUT).await;
        let (_, body) = answer.map_err(|error| format!("Envoy does not answer: {error}"))?;
        judge(&Counters::parse(&String::from_utf8_lossy(&body)))?;
        let mut state = self.lock();
        if !state.was_ready {
            state.was_ready = true;
            let took = Instant::now() - self.start;
            self.metrics.ready_after(took);
            info!(?took, "Envoy proxy is ready");
        }
        Ok(())
    }

    /// Logs why Envoy is not ready, once for each reason.
    pub fn tell(&self, reason: &str) {
        let mut state = self.lock();
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
        None => return Err("Envoy does not tell its state yet".into()),
        Some(0) => {}
        Some(state) => {
            let name = match state {
                1 => "DRAINING",
                2 => "PRE_INITIALIZING",
                3 => "INITIALIZING",
                _ => "unknown",
            };
            return Err(format!("server is not live, current state is: {name}"));
        }
    }
    if *workers == Some(1) { Ok(()) } else { Err("workers have not yet started".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 1\n\
                        server.state: 0\nlistener_manager.workers_started: 1\n";

    fn verdict(stats: &str) -> Result<(), String> {
        judge(&Counters::parse(stats))
    }

    #[test]
    fn all_must_be_there() {
        assert_eq!(verdict(GOOD), Ok(()));
        for (from, to, reason) in [
            (
                "cds.update_success: 1",
                "cds.update_rejected: 1",
                "but was rejected: cds updates: 0 successful, 1 rejected",
            ),
            ("cds.update_success: 1", "x: 1", "not fully received"),
            ("server.state: 0", "server.state: 1", "current state is: DRAINING"),
            ("workers_started: 1", "workers_started: 0", "workers have not yet started"),
        ] {
            let error = verdict(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(verdict("").unwrap_err().contains("is Istiod running?"));
    }
}
