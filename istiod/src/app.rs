//! Puts istiod together: [`build`] starts everything and says where it
//! listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tracing::{error, info};

use crate::ads;
use crate::auth::client_cert::ClientCert;
use crate::auth::xfcc::Forwarded;
use crate::auth::{Authenticator, Chain};
use crate::ca::expiry::Expiry;
use crate::ca::service::Service as CaService;
use crate::ca::serving;
use crate::ca::start::{self, Started};
use crate::config::Settings;
use crate::debug::Pages;
use crate::debug::guard::Guard;
use crate::debug::observer::Observer;
use crate::hosts;
use crate::jwks::Keys;
use crate::kube::access::Access;
use crate::kube::leader::Lock;
use crate::listener;
use crate::metrics::{Build, Metrics};
use crate::origin::Origin;
use crate::push::connection::Hub;
use crate::push::debounce::Debounce;
use crate::push::status::Table;
use crate::push::trust;
use crate::webhook;
use crate::world::{self, Builder};

/// Proxies computed at once, for each CPU: results are shared, so more would
/// only wait for each other.
const THROTTLE_PER_CPU: usize = 1;
/// Wishes of debug pages that may wait.
const WISHES: usize = 4;
/// Bytes that a peer may send before it must wait; large meshes have large messages.
const WINDOW: u32 = 1024 * 1024;

/// Time for what is under way when a connection has come of age.
const LAST_WORDS: Duration = Duration::from_secs(10);

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
    /// What the API server asks, when there is something that answers.
    pub webhooks: Option<SocketAddr>,
    /// The roots of the mesh, PEM.
    pub roots: String,
    locks: Vec<Lock>,
    tasks: Tasks,
    shutdown: Duration,
}

/// Starts istiod.
///
/// # Errors
/// When the configuration directory, the CA or a port cannot be used.
pub async fn build(mut settings: Settings) -> anyhow::Result<Running> {
    let tasks = Tasks::new();
    let origin = Origin::open(&tasks, &mut settings).await?;
    let Started { authority, tokens, nodes, locks } = start::open(&tasks, &settings, &origin).await?;
    let roots = authority.root_pem();
    let trust = trust::follow(&tasks, &authority, origin.mesh.clone());
    let mut authenticators: Vec<Box<dyn Authenticator>> = vec![Box::new(ClientCert), tokens];
    if !settings.trusted_gateways.is_empty() {
        authenticators.push(Box::new(Forwarded { trusted: settings.trusted_gateways.clone() }));
    }
    let auth = Chain::new(authenticators);

    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let injections = Arc::new(webhook::metrics::Metrics::default());
    injections.register(&mut registry);
    let validations = Arc::new(webhook::validate::Metrics::default());
    validations.register(&mut registry);
    let patches = Arc::new(webhook::bundle::Metrics::default());
    patches.register(&mut registry);
    registry.register_collector(Box::new(Expiry(authority.clone())));
    registry.register_collector(Box::new(Build::default()));

    let mut builder = Builder::new(settings.mesh.clone(), &settings.cluster_id);
    builder.settings().features = settings.features.clone();
    builder.settings().variables = Arc::new(settings.provider_variables.clone());
    builder.settings().networks = Arc::new(settings.networks.clone());
    builder.settings().domain = settings.domain.as_str().into();
    let (publish, world) = watch::channel(Arc::new(builder.empty()));
    let (wish, wishes) = mpsc::channel(WISHES);
    let (tell, problems) = watch::channel(world::Problems::default());
    let updates = origin.updates(&tasks, &settings)?;
    let debounce = Debounce::new(settings.debounce_after, settings.debounce_max);
    let publisher = world::Publisher { world: publish, problems: tell, metrics: metrics.clone() };
    let keys = Keys::new(settings.keys.clone(), metrics.clone(), tasks.clone());
    tasks.spawn("world", world::run(builder, updates, origin.mesh, wishes, keys, debounce, publisher));

    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let throttle = if settings.push_throttle > 0 { settings.push_throttle } else { cpus * THROTTLE_PER_CPU };
    let table = Table::default();
    let observer = Observer::new(world.clone(), table.clone());
    registry.register_collector(Box::new(observer.clone()));
    let pushed = Arc::new(Notify::new());
    tasks.spawn("findings", observer.clone().tell(pushed.clone()));
    let system = [settings.namespace.clone(), settings.mesh.root_namespace.clone()];
    let namespaces = system.into_iter().chain(settings.debug_namespaces.clone()).collect();
    let pages = Pages {
        table: table.clone(),
        world: world.clone(),
        problems,
        observer,
        registry: Arc::new(registry),
        wish,
        guard: Guard::new(auth.clone(), namespaces, settings.debug_auth),
        instance: settings.instance.clone(),
    };
    let hub = Hub {
        world: world.clone(),
        table,
        pages: Arc::new(pages.clone()),
        pushed,
        throttle: Arc::new(Semaphore::new(throttle)),
        metrics: metrics.clone(),
        send_timeout: settings.send_timeout,
        identity_check: settings.identity_check,
        serial: Arc::new(AtomicU64::new(0)),
        trust,
        access: origin.connection.as_ref().map(|connection| Access::new(&tasks, connection)),
    };
    let ads = ads::Service::new(hub.clone(), auth.clone(), tasks.clone());
    let ca = CaService::new(authority.clone(), auth.clone(), metrics.clone()).with_nodes(nodes);
    let ca = IstioCertificateServiceServer::new(ca);

    let hosts = hosts::of(&settings)?;
    let tls = serving::start(&tasks, &authority, hosts.clone(), settings.root_ttl)?;
    let secure = bind("--secureGRPCAddr", settings.secure_grpc).await?;
    let secure_grpc = secure.local_addr()?;
    let incoming = listener::tls(&tasks, secure, tls.clone());
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

    let mut routes = webhook::server::Routes::default();
    let known = webhook::files::Known {
        mesh: Arc::new(settings.mesh.clone()),
        revision: settings.webhooks.revision.clone(),
        compliance_policy: settings.webhooks.compliance_policy.clone(),
    };
    let injector = match &origin.connection {
        // Files that are there were put there by somebody.
        Some(connection) if !settings.webhooks.dir.is_dir() => {
            let namespace = &settings.namespace;
            Some(webhook::config_map::watch(&tasks, connection, namespace, known).await)
        }
        _ => webhook::files::watch(&tasks, &settings.webhooks.dir, known),
    };
    if let Some(current) = injector {
        let injector = webhook::inject::Injector {
            settings: current,
            world: world.clone(),
            native: settings.webhooks.native,
            has_nodes: origin.connection.is_some(),
            cluster: settings.cluster_id.as_str().into(),
            metrics: injections,
        };
        routes.add(webhook::inject::PATH, move |request| injector.clone().handle(request));
    }
    if let Some(connection) = &origin.connection {
        let validator = webhook::validate::Validator {
            long: Arc::new(Semaphore::new(webhook::validate::LONG)),
            world: world.clone(),
            metrics: validations,
        };
        routes.add(webhook::validate::PATH, move |request| validator.clone().handle(request));
        let kept = webhook::bundle::Settings {
            revision: settings.webhooks.revision.clone(),
            namespace: settings.namespace.clone(),
            pod: settings.instance.clone(),
            injection: settings.webhooks.keeps_injection,
            validation: settings.webhooks.keeps_validation,
        };
        webhook::bundle::start(&tasks, connection, &authority, &kept, patches);
    }
    let mut webhooks = None;
    if let Some(address) = settings.webhooks.address.filter(|_| !routes.is_empty()) {
        let https = bind("--httpsAddr", address).await?;
        webhooks = Some(https.local_addr()?);
        webhook::server::serve(&tasks, listener::tls(&tasks, https, tls), routes);
    }

    let monitoring = bind("--monitoringAddr", settings.monitoring).await?;
    let http = bind("--httpAddr", settings.http).await?;
    let running = Running {
        secure_grpc,
        plain_grpc,
        monitoring: monitoring.local_addr()?,
        http: http.local_addr()?,
        webhooks,
        roots,
        locks,
        tasks: tasks.clone(),
        shutdown: settings.shutdown,
    };
    for (name, listener) in [("monitoring", monitoring), ("http", http)] {
        let pages = pages.clone();
        runtime::http::serve(&tasks, name, listener, move |request, peer| {
            let pages = pages.clone();
            async move {
                match pages.guard.admit(&request, peer).await {
                    Ok(access) => pages.answer(&request, &access),
                    Err(refusal) => *refusal,
                }
            }
        });
    }
    info!(
        ca = authority.current().origin, hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), secure_grpc = %running.secure_grpc,
        plain_grpc = ?running.plain_grpc, monitoring = %running.monitoring, http = %running.http, webhooks = ?running.webhooks, "istiod is listening"
    );
    Ok(running)
}

impl Running {
    /// Ends everything: streams at once, so that proxies look for another istiod.
    pub async fn stop(self) {
        // Another one writes at once.
        for lock in self.locks {
            lock.release().await;
        }
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
    let server = match settings.max_connection_age {
        Some(age) => Server::builder().max_connection_age(age).max_connection_age_grace(LAST_WORDS),
        None => Server::builder(),
    };
    server
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
