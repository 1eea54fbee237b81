//! Puts the agent together, runs it, and decides when and how it ends.

mod life;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper_util::service::TowerToHyperService;
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::config::args::Proxy;
use crate::config::resolve::{self, Inputs, resolve};
use crate::config::{Config, Drain, ISTIO_VERSION, Source, env, pod};
use crate::envoy::admin::Local;
use crate::envoy::bootstrap;
use crate::envoy::found::Found;
use crate::envoy::process::Process;
use crate::identity::csr_client::Client;
use crate::identity::token::Token;
use crate::identity::{Current, files, output, roots, rotate};
use crate::metrics::Metrics;
use crate::status::health::Prober;
use crate::status::probes::Passer;
use crate::status::probes::http::Destination;
use crate::status::ready::{Conditions, Ready};
use crate::status::{self, Command};
use crate::{ads, dns, sds, unix};

/// When the start is over: Envoy is ready much sooner.
const START: Duration = Duration::from_secs(5);
/// Time that tasks have to end.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait for a first address of the pod.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Places of our module for Envoy, after the agent's own directory.
const MODULE_DIRS: [&str; 2] = ["/usr/local/lib/istio", "/usr/lib/istio"];
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
    status_server: JoinHandle<Option<io::Error>>,
    exit_file: Option<life::ExitFile>,
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
    let modules = module_dirs();
    let inputs = |addresses: &[IpAddr]| {
        let inputs = Inputs {
            args,
            env: &env,
            labels: &labels,
            annotations: &annotations,
            mesh_config: mesh_config.as_deref(),
            addresses,
            module_dirs: &modules,
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

/// Where our module for Envoy is looked for: beside this program, then where packages put it.
fn module_dirs() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    own.into_iter().chain(MODULE_DIRS.map(PathBuf::from)).collect()
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
    let shown = status::debug::config(&config);
    let Config {
        paths,
        proxy,
        identity,
        certificates,
        sds,
        xds,
        node,
        mut envoy,
        grpc,
        late,
        drain,
        status,
        dns,
        ads: streams,
        exit_file,
        wasm,
    } = config;
    let effective = status::debug::without_secrets(&proxy);
    info!(id = %node.id, %identity, address = xds.address, config = effective, "starting");
    let tasks = Tasks::new();
    let metrics = Arc::new(Metrics::default());
    let program = envoy.as_ref().map(|envoy| envoy.binary.clone());
    let search = Found::search(late, node.family, program, &tasks);
    let admin = Local { port: status.admin_port, tasks: tasks.clone() };
    let (command_tx, commands) = mpsc::channel(status::COMMANDS);
    let (names_tx, names) = dns.is_some().then(|| watch::channel(None)).unzip();
    let (link_tx, link) = watch::channel(ads::Link::default());
    let conditions = Conditions {
        envoy: status.runs_envoy.then(|| admin.clone()),
        grpc_bootstrap: grpc.as_ref().map(|grpc| grpc.path.clone()),
        names: names.clone(),
        link: status.unready_after.map(|limit| (link, limit)),
    };
    let ready = Arc::new(Ready::new(conditions, metrics.clone()));

    let listener =
        status::bind(status.port).await.with_context(|| format!("open status port {}", status.port))?;
    let address = listener.local_addr().context("address of the status port")?;
    // What the module counts is at another port, which is known to be of use later.
    let envoy_metrics = Arc::new(AtomicU16::new(admin.port));
    let server = status::Server {
        port: address.port(),
        metrics_localhost_only: status.metrics_localhost_only,
        merge: status.merge,
        probes: status.probes.map(|probes| Passer::new(probes, tasks.clone())),
        ready: ready.clone(),
        metrics: metrics.clone(),
        admin: admin.clone(),
        envoy_metrics: envoy_metrics.clone(),
        names: dns.as_ref().zip(names.clone()).map(|(dns, names)| dns::View::new(dns, names)),
        config: shown,
        commands: command_tx,
    };
    let status_server = status::serve(&tasks, listener, server);
    let health = status.health.map(|settings| {
        let (tx, rx) = watch::channel(None);
        let prober = Prober::new(settings, Destination::Pod(status.ip), ready.clone(), tasks.clone());
        drop(tasks.spawn("health", prober.run(tx)));
        rx
    });

    if let (Some(settings), Some(names)) = (&dns, names) {
        dns::start(settings, names, &tasks, metrics.dns.clone()).await?;
    }

    let others = sds::external::find(&sds).await?;
    if let Some(bootstrap) = envoy.as_mut().and_then(|envoy| envoy.bootstrap.as_mut()) {
        others.tell(&sds, bootstrap);
    }
    let watcher = watch_files(&tasks, &metrics);
    let store = files::Store::new(watcher.clone(), sds.debounce, tasks.clone(), metrics.files.clone());

    let (xds_roots_tx, xds_roots) =
        certificates.roots_over_xds.then(|| watch::channel(Arc::default())).unzip();
    let (own_tx, own) = watch::channel(None);
    let (identity_tx, current) = watch::channel(None);
    let token = Arc::new(Token::new(paths.token.clone(), metrics.clone()));
    drop(tasks.spawn("token", token.clone().watch(xds.clone())));
    let (more_roots, output) = (certificates.more_roots.clone(), certificates.output.clone());
    let source = if others.workload { Source::External } else { certificates.source.clone() };
    match source {
        Source::Csr => {
            let (token, tasks, metrics) = (token.clone(), tasks.clone(), metrics.clone());
            let client = Client { settings: certificates, identity, token, tasks, metrics };
            drop(client.tasks.clone().spawn("identity", rotate::run(client, own_tx)));
        }
        Source::Files(paths) => {
            let run = files::run(paths, store.clone(), metrics.clone(), own_tx);
            drop(tasks.spawn("identity", run));
        }
        Source::External => drop(own_tx),
    }
    drop(tasks.spawn("roots", roots::run(own, more_roots, xds_roots, identity_tx, metrics.clone())));
    if let Some(output) = output {
        drop(tasks.spawn("output", output::run(output, current.clone(), metrics.clone())));
    }

    let socket = if others.workload { &sds.files } else { &sds.workload };
    let listener = unix::open(bootstrap::SDS_CLUSTER, socket, sds.access).await?;
    let secrets = sds::source::Secrets::new(&sds, (!others.workload).then(|| current.clone()), store);
    let service = SecretDiscoveryServiceServer::new(sds::server::Server::new(secrets));
    unix::serve(&tasks, bootstrap::SDS_CLUSTER, listener, &watcher, TowerToHyperService::new(service));

    let listener = unix::open(bootstrap::XDS_CLUSTER, &paths.ads_socket, sds.access).await?;
    let fetcher = ads::wasm::Fetcher::new(wasm, tasks.clone(), metrics.clone());
    let ends = ads::Ends {
        names: names_tx,
        roots: xds_roots_tx,
        health,
        link: Some(link_tx),
        extensions: Some(fetcher),
    };
    let carrier = ads::proxy::Proxy::new(xds, streams, token, ends, &tasks, metrics);
    let carrier = Arc::new(carrier);
    let service = hyper::service::service_fn(move |request| {
        let carrier = carrier.clone();
        async move { Ok::<_, std::convert::Infallible>(carrier.serve(request).await) }
    });
    unix::serve_alive(&tasks, bootstrap::XDS_CLUSTER, listener, &watcher, Some(streams.keepalive), service);

    let found = search.get().await;
    if let Some(module) = found.module().filter(|module| module.port != 0) {
        envoy_metrics.store(module.port, Ordering::Relaxed);
    }
    if let Some(grpc) = grpc {
        found.write_grpc(&grpc, &node, &paths)?;
    }
    let envoy = envoy.map(|envoy| Process::start(&found.complete(envoy), &paths)).transpose()?;
    let exit_file = exit_file.map(|path| life::ExitFile { changes: watcher.watch(&[&path]), path });
    Ok(Running {
        status: address,
        identity: current,
        tasks,
        envoy,
        ready,
        commands,
        drain,
        admin,
        status_server,
        exit_file,
    })
}

/// The one watcher of files, which counts and tells what the kernel does not watch.
fn watch_files(tasks: &Tasks, metrics: &Metrics) -> Files {
    let metrics = metrics.files.clone();
    Files::start(tasks, move |path, error| {
        metrics.watch_failed();
        let path = path.display();
        warn!(target: "cache", %path, %error, "the kernel does not watch files here; looking at them every second");
    })
}

/// The agent from its configuration to its end; returns the exit code.
///
/// # Errors
/// What is wrong with the configuration, or cannot be opened or started.
pub async fn run(args: &Proxy, log_as_json: bool, mut signals: mpsc::Receiver<()>) -> anyhow::Result<u8> {
    let start = async {
        let config = configure(args, log_as_json).await?;
        debug!(version = ISTIO_VERSION, config = status::debug::config(&config), "configuration");
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
    drop(running.tasks.spawn("code", async {
        sleep(START).await;
        runtime::code::give_back();
    }));
    Ok(running.run(signals).await)
}
