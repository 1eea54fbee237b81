//! The application's own readiness on machines outside of Kubernetes: probed
//! here, told to istiod when it changes.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use runtime::tasks::Tasks;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, info};

use super::probes::grpc;
use super::probes::http::{Client, Destination};
use super::ready::Ready;
use crate::ads::health::Health;
use crate::config::status::{Check, HealthCheck};
use crate::envoy::process::die_with_parent;

/// Who asks, unless the settings say.
const AGENT: HeaderValue = HeaderValue::from_static("istio-probe/1.0");

/// Probes the application.
pub struct Prober {
    settings: HealthCheck,
    /// Where it is, unless the settings say.
    own: Destination,
    /// Envoy has to be ready first, or nobody could reach the application.
    ready: Arc<Ready>,
    client: Option<(Client, HeaderMap)>,
    tasks: Tasks,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Counts what is the same in a row.
#[derive(Debug, Default)]
struct Streak {
    good: u32,
    bad: u32,
    is_healthy: Option<bool>,
}

impl Streak {
    /// Whether a result changes the state.
    fn add(&mut self, is_good: bool, settings: &HealthCheck) -> bool {
        let (count, threshold) = if is_good {
            self.bad = 0;
            (&mut self.good, settings.successes)
        } else {
            self.good = 0;
            (&mut self.bad, settings.failures)
        };
        *count = count.saturating_add(1);
        let changes = *count >= threshold && self.is_healthy != Some(is_good);
        if changes {
            self.is_healthy = Some(is_good);
        }
        changes
    }
}

impl Prober {
    /// A prober that has not begun.
    #[must_use]
    pub fn new(settings: HealthCheck, own: Destination, ready: Arc<Ready>, tasks: Tasks) -> Self {
        let client = match &settings.check {
            Check::Http { host, headers, .. } => {
                let mut all: HeaderMap = headers.iter().cloned().collect();
                all.entry(USER_AGENT).or_insert(AGENT);
                Some((Client::new(destination(host.as_deref(), &own), true, false, tasks.clone()), all))
            }
            _ => None,
        };
        Self { settings, own, ready, client, tasks }
    }

    /// Probes for ever and tells of every change.
    pub async fn run(self, health: watch::Sender<Option<Health>>) {
        let HealthCheck { initial_delay, period, .. } = self.settings;
        info!(target: "healthcheck", ?initial_delay, ?period, "probing the application");
        sleep(initial_delay).await;
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        loop {
            ticks.tick().await;
            let result = self.probe().await;
            debug!(target: "healthcheck", ?result, "probed");
            if streak.add(result.is_ok(), &self.settings) {
                let state = match result {
                    Ok(()) => Health::Healthy,
                    Err(reason) => Health::Unhealthy(reason),
                };
                info!(target: "healthcheck", ?state, "health of the application has changed");
                health.send_replace(Some(state));
            }
        }
    }

    async fn probe(&self) -> Result<(), String> {
        self.ready.envoy().await?;
        let limit = self.settings.timeout;
        match timeout(limit, self.check(limit)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn check(&self, limit: Duration) -> Result<(), String> {
        match &self.settings.check {
            Check::Http { is_tls, port, path, .. } => {
                let (client, headers) = self.client.as_ref().ok_or("no client")?;
                let answer = client.get(*is_tls, *port, path, headers).await;
                let status = answer.map_err(|error| error.to_string())?.status.as_u16();
                if (200..400).contains(&status) {
                    Ok(())
                } else {
                    Err(format!("status code was not from [200,400), bad code {status}"))
                }
            }
            Check::Tcp { host, port } => {
                let stream = destination(host.as_deref(), &self.own).dial(*port).await;
                stream.map(drop).map_err(|error| error.to_string())
            }
            Check::Grpc { port, service } => {
                let stream = self.own.dial(*port).await.map_err(|error| error.to_string())?;
                let asked = grpc::check(stream, service, &AGENT, limit, &self.tasks).await;
                asked.map_err(|error| error.to_string())
            }
            Check::Exec(command) => run(command).await,
        }
    }
}

/// A host of the settings may be this machine under another name.
fn destination(host: Option<&str>, own: &Destination) -> Destination {
    match host {
        None => own.clone(),
        Some("localhost") => Destination::Localhost,
        Some(host) => match host.trim_matches(['[', ']']).parse() {
            Ok(ip) if *own == Destination::Pod(ip) || ip.is_loopback() => Destination::Pod(ip),
            _ => Destination::Other(host.to_owned()),
        },
    }
}

/// Runs a program; it ends when this is dropped.
async fn run(command: &[String]) -> Result<(), String> {
    let [program, args @ ..] = command else { return Err("no command".into()) };
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    die_with_parent(&mut command);
    match command.status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

#[cfg(test)]
mod tests;
