//! Opens the authority and starts everything that keeps it up to date and tells of it.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use source::kubernetes::Selectors;
use tokio::sync::watch;
use tracing::warn;

use super::authority::{self, Authority};
use super::node::Nodes;
use super::secret::{self, Store};
use super::{config_maps, crl, follow, plugged, selfsigned};
use crate::auth::Authenticator;
use crate::auth::local::{Issuer as TokenIssuer, LocalToken};
use crate::auth::token_review::TokenReview;
use crate::config::Settings;
use crate::kube::leader::{self, Lock};
use crate::kube::{self, Connection};
use crate::origin::Origin;
use crate::state_dir::StateDir;

/// File of the state directory that has the roots of the mesh.
const ROOTS_FILE: &str = "roots.pem";
/// Key of the roots in their ConfigMap.
const ROOT_KEY: &str = "root-cert.pem";

/// What of istiod depends on where it runs.
pub struct Started {
    /// The authority.
    pub authority: Authority,
    /// What checks tokens.
    pub tokens: Box<dyn Authenticator>,
    /// Who may ask for certificates of others.
    pub nodes: Option<Nodes>,
    /// What only one of several istiods does, with the cluster's leave.
    pub locks: Vec<Lock>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Opens the authority: the files of a plug-in CA if they are there, else a
/// self-signed root, which a cluster keeps in a Secret, and a mesh without one in the
/// state directory.
///
/// # Errors
/// When it cannot be loaded.
pub async fn open(tasks: &Tasks, settings: &Settings, origin: &Origin) -> anyhow::Result<Started> {
    let files = Files::start(tasks, |path, error| {
        warn!(target: "ca", path = %path.display(), %error, "not watched by the kernel: looked at every second");
    });
    match &origin.connection {
        Some(connection) => in_cluster(tasks, settings, &files, origin, connection).await,
        None => alone(tasks, settings, &files),
    }
}

fn renewal(settings: &Settings) -> follow::Renewal {
    follow::Renewal {
        interval: settings.root_check.max(Duration::from_secs(1)),
        grace: settings.root_grace,
        ttl: settings.root_ttl,
        trust_domain: authority::trust_domain(settings),
    }
}

/// Follows the files of a plug-in CA.
fn follow_files(tasks: &Tasks, settings: &Settings, files: &Files, authority: &Authority) {
    let dir = settings.ca_dir.clone();
    let changes = files.watch(&plugged::FILES.map(|name| dir.join(name)));
    tasks.spawn("CA files", follow::plugged(authority.clone(), dir, changes));
}

async fn in_cluster(
    tasks: &Tasks,
    settings: &Settings,
    files: &Files,
    origin: &Origin,
    connection: &Connection,
) -> anyhow::Result<Started> {
    let renewal = renewal(settings);
    let domain = renewal.trust_domain.clone();
    let store = Store::new(connection, &settings.namespace, domain, settings.root_ttl);
    let ttls = (settings.workload_ttl, settings.max_workload_ttl);
    let authority = match plugged::open(&settings.ca_dir, SystemTime::now())? {
        Some(issuer) => Authority::new(issuer, plugged::ORIGIN, ttls.0, ttls.1),
        None => {
            let changes = store.changes(tasks);
            let issuer = store.open().await.context("certificate authority")?;
            let authority = Authority::new(issuer, secret::ORIGIN, ttls.0, ttls.1);
            let follow = follow::stored(authority.clone(), store, renewal, changes);
            tasks.spawn("root of the cluster", follow);
            authority
        }
    };
    follow_files(tasks, settings, files, &authority);
    let audiences = settings.audiences.clone();
    let tokens = TokenReview::new(connection, audiences, settings.cluster_id.clone(), origin.mesh.clone());
    let lock = settings
        .leader_election
        .then(|| leader::elect(tasks, connection, &settings.namespace, leader::NAMESPACES, &settings.holder));
    let leads = lock.as_ref().map(Lock::leads);
    let selectors = selectors(tasks, origin);
    let roots = roots(tasks, &authority);
    let lists = crl::follow(tasks, files, &settings.ca_dir);
    let [root_map, crl_map] = &settings.ca_maps;
    for (name, key, value) in [(root_map, ROOT_KEY, roots), (crl_map, crl::FILE, lists)] {
        let kind = config_maps::Kind { name: name.clone(), key, value };
        config_maps::start(tasks, connection, kind, selectors.clone(), leads.clone());
    }
    let trusted = &settings.trusted_node_accounts;
    let nodes = (!trusted.is_empty()).then(|| Nodes::new(connection, trusted.clone()));
    Ok(Started { authority, tokens: Box::new(tokens), nodes, locks: lock.into_iter().collect() })
}

fn alone(tasks: &Tasks, settings: &Settings, files: &Files) -> anyhow::Result<Started> {
    let state = StateDir::open(&settings.state_dir)?;
    let now = SystemTime::now();
    let renewal = renewal(settings);
    let opened = match plugged::open(&settings.ca_dir, now) {
        Ok(Some(issuer)) => Ok((issuer, plugged::ORIGIN)),
        Ok(None) => selfsigned::open(&state, &renewal.trust_domain, settings.root_ttl, now)
            .map(|issuer| (issuer, selfsigned::ORIGIN)),
        Err(error) => Err(error),
    };
    let (issuer, from) = opened.context("certificate authority")?;
    let authority = Authority::new(issuer, from, settings.workload_ttl, settings.max_workload_ttl);
    // Agents on this machine and installers read the roots from here.
    state.lock()?.publish(ROOTS_FILE, &authority.root_pem())?;
    follow_files(tasks, settings, files, &authority);
    let tokens = LocalToken {
        issuer: TokenIssuer::open(&state)?,
        audiences: settings.audiences.clone(),
        trust_domain: renewal.trust_domain.clone(),
    };
    tasks.spawn("self-signed root", follow::self_signed(authority.clone(), state.clone(), renewal));
    tasks.spawn("roots", follow::publish(authority.clone(), state, ROOTS_FILE));
    Ok(Started { authority, tokens: Box::new(tokens), nodes: None, locks: Vec::new() })
}

/// The roots of the mesh, now and at every change.
fn roots(tasks: &Tasks, authority: &Authority) -> watch::Receiver<String> {
    let mut changes = authority.subscribe();
    let (tell, roots) = watch::channel(changes.borrow_and_update().roots.clone());
    tasks.spawn("roots", async move {
        while changes.changed().await.is_ok() {
            tell.send_replace(changes.borrow_and_update().roots.clone());
        }
    });
    roots
}

/// The namespaces of the mesh, now and at every change.
fn selectors(tasks: &Tasks, origin: &Origin) -> watch::Receiver<Selectors> {
    let mut mesh = origin.mesh.clone();
    let (tell, selectors) = watch::channel(kube::mesh::selectors(&mesh.borrow_and_update().config));
    tasks.spawn("namespaces of roots", async move {
        while mesh.changed().await.is_ok() {
            tell.send_replace(kube::mesh::selectors(&mesh.borrow_and_update().config));
        }
    });
    selectors
}
