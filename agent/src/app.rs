//! Puts the agent together, runs it, and decides when and how it ends.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper_util::service::TowerToHyperService;
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use runtime::tasks::Tasks;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use crate::config::args::Proxy;
use crate::config::resolve::{self, Inputs, resolve};
use crate::config::{Config, Drain, ISTIO_VERSION, env, pod};
use crate::envoy::admin::Local;
use crate::envoy::process::{Process, exit_code};
use crate::envoy::{bootstrap, drain};
use crate::identity::csr_client::Client;
use crate::identity::{Current, rotate};
use crate::metrics::Metrics;
use crate::status::ready::Ready;
use crate::status::{self, Command};
use crate::{ads, sds, unix};

/// Time that tasks have to end.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait for a first address of the pod.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks for it.
const ADDRESS_PERIOD: Duration = Duration::from_millis(100);

/// An agent whose sockets are open and whose Envoy has been started.
#[derive(Debug)]
pub struct Running {
    /// Where the status server listens.
    pub status: SocketAddr,
    /// The identity in force.
    pub identity: Current,
    tasks: Tasks,
    envoy: Option<Process>,
    ready: Arc<Ready>,
    commands: mpsc::Receiver<Command>,
    drain: Drain,
    admin: Local,
}

/// Reads everything that is given to the agent.
///
/// # Errors
/// All that is wrong, a line each.
pub async fn configure(args: &Proxy, log_as_json: bool) -> anyhow::Result<Config> {
    let env = env::snapshot();
    let pod_file = |path: &str| pod::read(Path::new(path)).with_context(|| format!("read {path}"));
    let labels = pod_file(names::path::POD_LABELS)?;
    let annotations = pod_file(names::path::POD_ANNOTATIONS)?;
    let mesh_config = match std::fs::read_to_string(&args.mesh_config) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read --meshConfig {}", args.mesh_config)),
    };
    let inputs = |addresses: &[IpAddr]| {
        let inputs = Inputs {
            args,
            env: &env,
            labels: &labels,
            annotations: &annotations,
            mesh_config: mesh_config.as_deref(),
            addresses,
            root: Path::new("."),
            log_as_json,
        };
        resolve(&inputs).map_err(|errors| anyhow!("invalid configuration:\n  {}", errors.join("\n  ")))
    };
    let excluded = resolve::excluded_interfaces(&annotations);
    let mut addresses = pod::addresses(&excluded);
    let is_told = env.get(env::INSTANCE_IP.name).is_some_and(|text| !text.is_empty());
    if addresses.is_empty() && !is_told {
        // With any address at all: what else is wrong is not worth the wait.
        inputs(&[IpAddr::V4(Ipv4Addr::UNSPECIFIED)])?;
        info!(limit = ?ADDRESS_TIMEOUT, "no interface has an address yet; waiting for one");
        addresses = first_addresses(&excluded).await;
    }
    let (config, warnings) = inputs(&addresses)?;
    for warning in warnings {
        warn!("{warning}");
    }
    Ok(config)
}

/// Waits until the pod has an address; empty when it still has none in the end.
async fn first_addresses(excluded: &[String]) -> Vec<IpAddr> {
    let start = Instant::now();
    loop {
        let found = pod::addresses(excluded);
        if !found.is_empty() || Instant::now() - start > ADDRESS_TIMEOUT {
            return found;
        }
        sleep(ADDRESS_PERIOD).await;
    }
}

/// Opens the sockets, asks for the certificate and starts Envoy, all at once.
///
/// # Errors
/// When a socket or Envoy cannot be had.
pub async fn build(config: Config) -> anyhow::Result<Running> {
    let Config { paths, proxy, identity, certificates, xds, node, envoy, drain, status } = config;
    let effective = serde_json::to_string(&proxy).unwrap_or_default();
    info!(id = %node.id, %identity, address = xds.address, config = effective, "starting");
    let tasks = Tasks::new();
    let metrics = Arc::new(Metrics::default());
    let ready = Arc::new(Ready::new(metrics.clone()));
    let admin = Local { port: status.admin_port, tasks: tasks.clone() };
    let (command_tx, commands) = mpsc::channel(status::COMMANDS);

    let listener =
        status::bind(status.port).await.with_context(|| format!("open status port {}", status.port))?;
    let address = listener.local_addr().context("address of the status port")?;
    let server = status::Server {
        settings: status,
        ready: ready.clone(),
        metrics: metrics.clone(),
        admin: admin.clone(),
        commands: command_tx,
    };
    status::serve(&tasks, listener, server);

    let (identity_tx, current) = watch::channel(None);
    let client = Client {
        settings: certificates,
        identity,
        token: paths.token.clone(),
        tasks: tasks.clone(),
        metrics: metrics.clone(),
    };
    drop(tasks.spawn("identity", rotate::run(client, identity_tx)));

    let listener = unix::listen(&paths.sds_socket).await?;
    let service = SecretDiscoveryServiceServer::new(sds::server::Server::new(current.clone()));
    unix::serve(&tasks, bootstrap::SDS_CLUSTER, listener, TowerToHyperService::new(service));

    let listener = unix::listen(&paths.ads_socket).await?;
    let carrier = ads::proxy::Proxy::new(xds, paths.token.clone(), tasks.clone(), metrics);
    let carrier = Arc::new(carrier);
    let service = hyper::service::service_fn(move |request| {
        let carrier = carrier.clone();
        async move { Ok::<_, std::convert::Infallible>(carrier.serve(request).await) }
    });
    unix::serve(&tasks, bootstrap::XDS_CLUSTER, listener, service);

    let envoy = envoy.map(|envoy| Process::start(&envoy, &paths)).transpose()?;
    Ok(Running { status: address, identity: current, tasks, envoy, ready, commands, drain, admin })
}

/// The agent from its configuration to its end; returns the exit code.
///
/// # Errors
/// What is wrong with the configuration, or cannot be opened or started.
pub async fn run(args: &Proxy, log_as_json: bool, mut signals: mpsc::Receiver<()>) -> anyhow::Result<u8> {
    let start = async {
        let config = configure(args, log_as_json).await?;
        debug!(version = ISTIO_VERSION, ?config, "configuration");
        build(config).await
    };
    let running = tokio::select! {
        running = start => running?,
        // What is half started ends with the process.
        Some(()) = signals.recv() => {
            info!("signal before the start was complete: ending");
            return Ok(0);
        }
    };
    Ok(running.run(signals).await)
}

impl Running {
    /// Runs until a signal, a request to end, or the end of Envoy; returns the
    /// exit code: Envoy's when it ended by itself, 0 after an ordered end.
    pub async fn run(mut self, mut signals: mpsc::Receiver<()>) -> u8 {
        let mut is_drained = false;
        let code = loop {
            tokio::select! {
                status = ended(&mut self.envoy) => break report(&status),
                Some(()) = signals.recv() => {
                    self.ready.drain();
                    if is_drained {
                        info!("signal after a drain: ending");
                        break 0;
                    }
                    info!("signal: draining");
                    break self.drain(&mut signals).await;
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Drain => {
                        drain::begin(&self.drain, &self.admin, true).await;
                        is_drained = true;
                    }
                    Command::Quit => {
                        info!("asked to end: ending at once");
                        self.ready.drain();
                        break 0;
                    }
                },
            }
        };
        if let Some(envoy) = &mut self.envoy {
            envoy.end().await;
        }
        self.tasks.stop(STOP_TIMEOUT).await;
        code
    }

    /// Drains until Envoy may leave or has left, or somebody insists; returns
    /// the exit code, which is Envoy's when it has left.
    async fn drain(&mut self, signals: &mut mpsc::Receiver<()>) -> u8 {
        if self.envoy.is_none() {
            return 0;
        }
        let (settings, admin) = (self.drain, self.admin.clone());
        let mut orderly = std::pin::pin!(async {
            drain::begin(&settings, &admin, false).await;
            drain::wait(&settings, &admin).await;
        });
        loop {
            tokio::select! {
                () = &mut orderly => return 0,
                status = ended(&mut self.envoy) => return report(&status),
                Some(()) = signals.recv() => {
                    info!("second signal: ending at once");
                    return 0;
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Drain => info!("asked to drain, which is under way"),
                    Command::Quit => {
                        info!("asked to end: ending at once");
                        return 0;
                    }
                },
            }
        }
    }
}

/// Waits for Envoy's end; for ever when there is no Envoy.
async fn ended(envoy: &mut Option<Process>) -> std::io::Result<ExitStatus> {
    match envoy {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

fn report(status: &std::io::Result<ExitStatus>) -> u8 {
    match status {
        Ok(status) if status.success() => {
            info!("Envoy has ended by itself");
            0
        }
        Ok(status) => {
            error!(%status, "Envoy has ended by itself");
            exit_code(*status)
        }
        Err(error) => {
            error!(%error, "wait for Envoy");
            1
        }
    }
}
