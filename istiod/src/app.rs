//! Puts istiod together: [`build`] starts everything and says where it
//! listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tracing::{error, info};

use crate::ads;
use crate::auth::client_cert::ClientCert;
use crate::auth::local::{Issuer, LocalToken};
use crate::auth::{Authenticator, Chain};
use crate::ca::authority::{self, Authority};
use crate::ca::service::Service as CaService;
use crate::config::Settings;
use crate::debug::Pages;
use crate::debug::guard::Guard;
use crate::hosts;
use crate::jwks::Keys;
use crate::listener;
use crate::metrics::Metrics;
use crate::push::connection::Hub;
use crate::push::debounce::Debounce;
use crate::push::status::Table;
use crate::state_dir::StateDir;
use crate::world::{self, Builder};

/// Proxies computed at once, for each CPU: results are shared, so more would
/// only wait for each other.
const THROTTLE_PER_CPU: usize = 1;
/// Wishes of debug pages that may wait.
const WISHES: usize = 4;
/// Bytes that a peer may send before it must wait; large meshes have large messages.
const WINDOW: u32 = 1024 * 1024;

/// A running istiod.
#[derive(Debug)]
pub struct Running {
    /// xDS and CA over TLS.
    pub secure_grpc: SocketAddr,
    /// xDS in plaintext, when asked for.
    pub plain_grpc: Option<SocketAddr>,
    /// Metrics and debug pages.
    pub monitoring: SocketAddr,
    /// Readiness.
    pub http: SocketAddr,
    /// The roots of the mesh, PEM.
    pub roots: String,
    tasks: Tasks,
    shutdown: Duration,
}

/// Starts istiod.
///
/// # Errors
/// When the configuration directory, the CA or a port cannot be used.
pub async fn build(settings: Settings) -> anyhow::Result<Running> {
    let tasks = Tasks::new();
    let now = SystemTime::now();
    let state = StateDir::open(&settings.state_dir)?;
    let authority = Authority::open(&settings, &state, now).context("certificate authority")?;
    let roots = authority.root_pem().to_owned();
    // Agents on this machine and installers read the roots from here.
    state.lock()?.publish("roots.pem", &roots)?;
    let tokens = LocalToken {
        issuer: Issuer::open(&state)?,
        audiences: settings.audiences.clone(),
        trust_domain: authority::trust_domain(&settings),
    };
    let authenticators: Vec<Box<dyn Authenticator>> = vec![Box::new(ClientCert), Box::new(tokens)];
    let auth = Chain::new(authenticators);

    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);

    let mut builder = Builder::new(settings.mesh.clone(), &settings.cluster_id);
    builder.settings().features = settings.features.clone();
    builder.settings().variables = Arc::new(settings.provider_variables.clone());
    builder.settings().networks = Arc::new(settings.networks.clone());
    let (publish, world) = watch::channel(Arc::new(builder.empty()));
    let (wish, wishes) = mpsc::channel(WISHES);
    let (tell, problems) = watch::channel(world::Problems::default());
    let updates = source::directory::watch(&tasks, &settings.config_dir)?;
    let debounce = Debounce::new(settings.debounce_after, settings.debounce_max);
    let publisher = world::Publisher { world: publish, problems: tell, metrics: metrics.clone() };
    let keys = Keys::new(settings.keys.clone(), metrics.clone(), tasks.clone());
    tasks.spawn("world", world::run(builder, updates, wishes, keys, debounce, publisher));

    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let throttle = if settings.push_throttle > 0 { settings.push_throttle } else { cpus * THROTTLE_PER_CPU };
    let hub = Hub {
        world: world.clone(),
        table: Table::default(),
        throttle: Arc::new(Semaphore::new(throttle)),
        metrics: metrics.clone(),
        identity_check: settings.identity_check,
        serial: Arc::new(AtomicU64::new(0)),
    };
    let ads = ads::Service::new(hub.clone(), auth.clone(), tasks.clone());
    let ca =
        IstioCertificateServiceServer::new(CaService::new(authority.clone(), auth.clone(), metrics.clone()));

    let hosts = hosts::of(&settings)?;
    let tls = authority.serving(&hosts, settings.root_ttl, now)?;
    let secure = bind("--secureGRPCAddr", settings.secure_grpc).await?;
    let secure_grpc = secure.local_addr()?;
    let incoming = listener::tls(&tasks, secure, tls);
    let router = server(&settings).add_service(ads.clone()).add_service(ca);
    // Streams are served once there is something to serve: a proxy that came
    // earlier would be told that its mesh is empty.
    serve(&tasks, "grpc", router, incoming, world.clone());
    let mut plain_grpc = None;
    if let Some(address) = settings.plain_grpc {
        let plain = bind("--grpcAddr", address).await?;
        plain_grpc = Some(plain.local_addr()?);
        let incoming = listener::plain(&tasks, plain);
        serve(&tasks, "plaintext grpc", server(&settings).add_service(ads), incoming, world.clone());
    }

    let guard = Guard::new(auth.clone(), &settings.namespace);
    let pages = Pages { table: hub.table, world, problems, registry: Arc::new(registry), wish };
    let monitoring = bind("--monitoringAddr", settings.monitoring).await?;
    let http = bind("--httpAddr", settings.http).await?;
    let running = Running {
        secure_grpc,
        plain_grpc,
        monitoring: monitoring.local_addr()?,
        http: http.local_addr()?,
        roots,
        tasks: tasks.clone(),
        shutdown: settings.shutdown,
    };
    for (name, listener) in [("monitoring", monitoring), ("http", http)] {
        let (pages, guard) = (pages.clone(), guard.clone());
        runtime::http::serve(&tasks, name, listener, move |request, peer| {
            let (pages, guard) = (pages.clone(), guard.clone());
            async move {
                match guard.refusal(&request, peer).await {
                    Some(refusal) => refusal,
                    None => pages.answer(&request),
                }
            }
        });
    }
    info!(
        ca = authority.origin, hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), secure_grpc = %running.secure_grpc,
        plain_grpc = ?running.plain_grpc, monitoring = %running.monitoring, http = %running.http, "istiod is listening"
    );
    Ok(running)
}

impl Running {
    /// Ends everything: streams at once, so that proxies look for another istiod.
    pub async fn stop(self) {
        if !self.tasks.stop(self.shutdown).await {
            error!("some connections did not end in time");
        }
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag}: listen on {address}"))
}

fn server(settings: &Settings) -> Server {
    let (interval, timeout) = settings.keepalive;
    Server::builder()
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(timeout))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(100_000)
}

fn serve(
    tasks: &Tasks,
    name: &'static str,
    router: Router,
    incoming: tokio_stream::wrappers::ReceiverStream<std::io::Result<listener::Connection>>,
    mut world: watch::Receiver<Arc<world::World>>,
) {
    tasks.spawn(name, async move {
        if world.wait_for(|world| world.serial > 0).await.is_err() {
            return;
        }
        if let Err(error) = router.serve_with_incoming(incoming).await {
            error!(server = name, %error, "server ended");
        }
    });
}
