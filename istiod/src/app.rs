//! Puts istiod together: [`build`] starts everything and says where it
//! listens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use proto::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tonic::service::Routes;
use tracing::{error, info, warn};

use crate::ads;
use crate::auth::assemble;
use crate::ca::expiry::Expiry;
use crate::ca::service::Service as CaService;
use crate::ca::serving;
use crate::ca::start::{self, Started};
use crate::config::Settings;
use crate::debug::Pages;
use crate::debug::guard::Guard;
use crate::debug::observer::Observer;
use crate::drain::Drain;
use crate::front::Front;
use crate::gateway_names::Names;
use crate::grpc;
use crate::hosts;
use crate::jwks::Keys;
use crate::kube::access::Access;
use crate::kube::leader::Lock;
use crate::listener;
use crate::metrics::{Build, Metrics};
use crate::origin::Origin;
use crate::push::bundles;
use crate::push::connection::Hub;
use crate::push::debounce::Debounce;
use crate::push::status::Table;
use crate::push::trust;
use crate::register::{self, Kept, Registrar};
use crate::scopes;
use crate::webhook;
use crate::world::{self, Builder};

/// Proxies computed at once, for each CPU: results are shared, so more would
/// only wait for each other.
const THROTTLE_PER_CPU: usize = 1;
/// Wishes of debug pages that may wait.
const WISHES: usize = 4;
/// The part of the time of shutdown in which connections are given up; the rest
/// is for what is under way then.
const HANDOVER: f64 = 0.8;
/// Time for tasks to end at their next wait.
const END: Duration = Duration::from_secs(1);

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
    workloads: Registrar,
    tasks: Tasks,
    drain: Drain,
    shutdown: Duration,
}

/// Starts istiod.
///
/// # Errors
/// When the configuration directory, the CA or a port cannot be used.
pub async fn build(mut settings: Settings) -> anyhow::Result<Running> {
    let tasks = Tasks::new();
    let monitoring = bind("--monitoringAddr", settings.monitoring).await?;
    let http = bind("--httpAddr", settings.http).await?;
    let pages_at = (monitoring.local_addr()?, http.local_addr()?);
    let front = Front::new("the mesh configuration");
    front.serve(&tasks, "monitoring", monitoring);
    front.serve(&tasks, "http", http);
    if let Some(address) = settings.controlz {
        scopes::serve(&tasks, address).await;
    }
    let files = Files::start(&tasks, |path, error| {
        warn!(target: "config", path = %path.display(), %error, "not watched by the kernel: looked at every second");
    });
    let origin = Origin::open(&tasks, &mut settings).await?;
    front.waits_for("the certificate authority");
    let Started { authority, tokens, nodes, locks, registrar: signers, own } =
        start::open(&tasks, &settings, &origin, &files).await?;
    let roots = authority.root_pem();
    let drain = Drain::default();
    let bundles = bundles::follow(&tasks, assemble::client(&tasks), origin.mesh.clone());
    let trust = trust::follow(&tasks, &authority, origin.mesh.clone(), bundles);
    let auth = assemble::chain(&tasks, &settings, &origin.mesh, tokens);

    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let injections = Arc::new(webhook::metrics::Metrics::default());
    injections.register(&mut registry);
    let validations = Arc::new(webhook::validate::Metrics::default());
    validations.register(&mut registry);
    let patches = Arc::new(webhook::bundle::Metrics::default());
    patches.register(&mut registry);
    let registrations = Arc::new(register::Metrics::default());
    registrations.register(&mut registry);
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
    let (entries, updates) = match &origin.connection {
        Some(connection) => (Kept::in_cluster(connection), updates),
        None => Kept::beside(&tasks, updates),
    };
    let debounce = Debounce::new(settings.debounce_after, settings.debounce_max);
    let publisher = world::Publisher { world: publish, problems: tell, metrics: metrics.clone() };
    let keys = Keys::new(settings.keys.clone(), metrics.clone(), tasks.clone());
    let outside = world::Outside { keys, names: Names::new(tasks.clone()) };
    tasks.spawn("world", world::run(builder, updates, origin.mesh, wishes, outside, debounce, publisher));
    let mut first = world.clone();
    tasks.spawn("code", async move {
        if first.wait_for(|world| world.serial > 0).await.is_ok() {
            runtime::code::give_back();
        }
    });

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
        cluster: settings.cluster_id.clone(),
        drain: drain.clone(),
    };
    let parts = register::Parts {
        settings: settings.registration.clone(),
        instance: settings.holder.clone(),
        max_connection_age: settings.max_connection_age,
        world: world.clone(),
        leads: locks.first().map(Lock::leads),
        metrics: registrations,
    };
    let workloads = Registrar::start(&tasks, entries, parts);
    let hub = Hub {
        world: world.clone(),
        workloads: workloads.clone(),
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
    let ca = CaService::new(authority.clone(), auth.clone(), metrics.clone())
        .with_nodes(nodes)
        .with_registrar(signers);
    let ca = IstioCertificateServiceServer::new(ca);

    let hosts = hosts::of(&settings)?;
    let wanted = serving::Wanted { hosts: hosts.clone(), ttl: settings.root_ttl };
    let tls = serving::start(&tasks, &authority, own, wanted).await?;
    let secure = bind("--secureGRPCAddr", settings.secure_grpc).await?;
    let secure_grpc = secure.local_addr()?;
    let incoming = listener::tls(&tasks, secure, tls.clone());
    let server = grpc::Server {
        keepalive: settings.keepalive,
        age: settings.max_connection_age,
        drain: drain.clone(),
    };
    let mut services = Routes::new(ads.clone());
    if settings.authority.files.is_none() {
        services = services.add_service(ca);
    }
    server.clone().serve(&tasks, "grpc", services, incoming, world.clone());
    let mut plain_grpc = None;
    if let Some(address) = settings.plain_grpc {
        let plain = bind("--grpcAddr", address).await?;
        plain_grpc = Some(plain.local_addr()?);
        let incoming = listener::plain(&tasks, plain);
        server.serve(&tasks, "plaintext grpc", Routes::new(ads), incoming, world.clone());
    }

    let mut routes = webhook::server::Routes::default();
    let known = webhook::files::Known {
        revision: settings.webhooks.revision.clone(),
        compliance_policy: settings.webhooks.compliance_policy.clone(),
        platform: settings.webhooks.platform.clone(),
    };
    let injector = match &origin.connection {
        // Files that are there were put there by somebody.
        Some(connection) if !settings.webhooks.dir.is_dir() => {
            let namespace = &settings.namespace;
            front.waits_for("the settings of the injector");
            Some(webhook::config_map::watch(&tasks, connection, namespace, known).await)
        }
        _ => webhook::files::watch(&tasks, &files, &settings.webhooks.dir, known),
    };
    if let Some(current) = injector {
        let injector = webhook::inject::Injector {
            settings: current,
            world: world.clone(),
            native: settings.webhooks.native,
            has_nodes: origin.connection.is_some(),
            cluster: settings.cluster_id.as_str().into(),
            kubelets: webhook::inject::Kubelets::default(),
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
        webhook::server::serve(&tasks, listener::tls(&tasks, https, tls), routes, drain.clone());
    }

    let running = Running {
        secure_grpc,
        plain_grpc,
        monitoring: pages_at.0,
        http: pages_at.1,
        webhooks,
        roots,
        locks,
        workloads,
        tasks: tasks.clone(),
        drain,
        shutdown: settings.shutdown,
    };
    front.open(pages);
    info!(
        ca = authority.current().origin, hosts = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), secure_grpc = %running.secure_grpc,
        plain_grpc = ?running.plain_grpc, monitoring = %running.monitoring, http = %running.http, webhooks = ?running.webhooks, "istiod is listening"
    );
    Ok(running)
}

impl Running {
    /// Ends everything. It is told as not ready first; then connections are given
    /// up one after another, so that other istiods get their proxies one after another.
    pub async fn stop(self) {
        let begin = Instant::now();
        self.drain.begin(self.shutdown.mul_f64(HANDOVER));
        // Another one writes at once.
        for lock in self.locks {
            lock.release().await;
        }
        let left = self.shutdown.saturating_sub(begin.elapsed());
        if tokio::time::timeout(left, self.drain.emptied()).await.is_err() {
            error!("some connections did not end in time");
        }
        self.workloads.farewell().await;
        // What is left waits for nobody.
        let left = self.shutdown.saturating_sub(begin.elapsed()).max(END);
        if !self.tasks.stop(left).await {
            error!("some tasks did not end in time");
        }
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{flag}: listen on {address}"))
}
