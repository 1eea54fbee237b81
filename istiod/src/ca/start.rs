//! Opens the authority and starts everything that keeps it up to date and tells of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use pki::certificate::Certificate;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use source::kubernetes::Selectors;
use tokio::sync::watch;

use super::authority::{self, Authority};
use super::node::Nodes;
use super::plugged::{self, Place};
use super::registrar::{self, Registrar};
use super::requests::Requests;
use super::secret::Store;
use super::{config_maps, crl, follow, selfsigned, serving, trust_bundle};
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
/// Where the roots of signers of the cluster may be.
const EXTERNAL_ROOT: &str = "./etc/external-ca-cert/root-cert.pem";
/// The roots of the cluster itself, which sign if no domain of signers is named.
const CLUSTER_ROOT: &str = "./var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
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
    /// Signers of the cluster that sign for workloads in place of the authority.
    pub registrar: Option<Arc<Registrar>>,
    /// Where istiod's own certificate comes from.
    pub own: serving::Source,
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
pub async fn open(
    tasks: &Tasks,
    settings: &Settings,
    origin: &Origin,
    files: &Files,
) -> anyhow::Result<Started> {
    match &origin.connection {
        Some(connection) => in_cluster(tasks, settings, files, origin, connection).await,
        None => alone(tasks, settings, files),
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
fn follow_files(tasks: &Tasks, place: Place, files: &Files, authority: &Authority) {
    let changes = files.watch(&place.files());
    tasks.spawn("CA files", follow::plugged(authority.clone(), place, changes));
}

fn place(settings: &Settings) -> Place {
    Place { dir: settings.ca_dir.clone(), skips_generated: settings.authority.in_cacerts }
}

/// Who asks signers of the cluster to sign, if they shall.
fn registrar(
    tasks: &Tasks,
    settings: &Settings,
    origin: &Origin,
    connection: &Connection,
) -> anyhow::Result<Option<Arc<Registrar>>> {
    let Some(signers) = settings.authority.signers.clone() else { return Ok(None) };
    let others = (signers.domain.is_empty()).then_some(CLUSTER_ROOT);
    let file = [Some(EXTERNAL_ROOT), others].into_iter().flatten().find(|file| Path::new(file).is_file());
    let roots = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
            Certificate::all_from_pem(&text).with_context(|| file.to_owned())?;
            text
        }
        None => String::new(),
    };
    let requests = Requests::new(connection);
    let registrar = Registrar::new(requests, signers, roots, origin.mesh.clone(), tasks.clone());
    Ok(Some(Arc::new(registrar)))
}

async fn in_cluster(
    tasks: &Tasks,
    settings: &Settings,
    files: &Files,
    origin: &Origin,
    connection: &Connection,
) -> anyhow::Result<Started> {
    let registrar = registrar(tasks, settings, origin, connection)?;
    let (mut authority, own) = match (&registrar, &settings.authority.own_signer) {
        _ if settings.authority.files.is_some() => of_others(tasks, settings, files)?,
        (Some(registrar), Some(signer)) => without_key(tasks, settings, origin, registrar, signer)?,
        _ => (with_key(tasks, settings, files, connection).await?, serving::Source::Authority),
    };
    if let Some(registrar) = &registrar {
        authority = authority.with_others(registrar.roots());
    }
    let audiences = settings.audiences.clone();
    let tokens = TokenReview::new(connection, audiences, settings.cluster_id.clone(), origin.mesh.clone());
    let lock = settings
        .leader_election
        .then(|| leader::elect(tasks, connection, &settings.namespace, leader::NAMESPACES, &settings.holder));
    let leads = lock.as_ref().map(Lock::leads);
    let selectors = selectors(tasks, origin);
    let roots = roots(tasks, &authority);
    if settings.authority.trust_bundle {
        trust_bundle::start(tasks, connection, roots.clone(), leads.clone());
    }
    let lists = crl::follow(tasks, files, &settings.ca_dir, &authority);
    let [root_map, crl_map] = &settings.ca_maps;
    for (name, key, value) in [(root_map, ROOT_KEY, roots), (crl_map, crl::FILE, lists)] {
        let kind = config_maps::Kind { name: name.clone(), key, value, namespace: settings.watched.clone() };
        config_maps::start(tasks, connection, kind, selectors.clone(), leads.clone());
    }
    let trusted = &settings.trusted_node_accounts;
    let nodes = (!trusted.is_empty()).then(|| Nodes::new(connection, trusted.clone()));
    Ok(Started {
        authority,
        tokens: Box::new(tokens),
        nodes,
        locks: lock.into_iter().collect(),
        registrar,
        own,
    })
}

/// An authority with the key of files, or of a Secret.
async fn with_key(
    tasks: &Tasks,
    settings: &Settings,
    files: &Files,
    connection: &Connection,
) -> anyhow::Result<Authority> {
    let renewal = renewal(settings);
    let domain = renewal.trust_domain.clone();
    let mut store = Store::new(connection, &settings.namespace, domain, settings.root_ttl);
    if settings.authority.in_cacerts {
        store = store.in_cacerts();
    }
    let ttls = (settings.workload_ttl, settings.max_workload_ttl);
    let place = place(settings);
    let authority = match place.open(SystemTime::now())? {
        Some(issuer) => Authority::new(issuer, plugged::ORIGIN, ttls.0, ttls.1),
        None => {
            let issuer = store.open().await.context("certificate authority")?;
            let changes = store.changes(tasks);
            let authority = Authority::new(issuer, store.origin(), ttls.0, ttls.1);
            let follow = follow::stored(authority.clone(), store, renewal, changes);
            tasks.spawn("root of the cluster", follow);
            authority
        }
    };
    follow_files(tasks, place, files, &authority);
    Ok(authority)
}

/// An authority whose roots are those of a file: others sign, for istiod too.
fn of_others(
    tasks: &Tasks,
    settings: &Settings,
    watcher: &Files,
) -> anyhow::Result<(Authority, serving::Source)> {
    let files = settings.authority.files.clone().context("no files of a certificate")?;
    let roots = follow::read_roots(&files.roots).map_err(|why| anyhow::anyhow!(why))?;
    let ttls = (settings.workload_ttl, settings.max_workload_ttl);
    let authority = Authority::without_key(roots, "others (ENABLE_CA_SERVER=false)", ttls.0, ttls.1);
    let changes = watcher.watch(&[files.cert.clone(), files.key.clone(), files.roots.clone()]);
    tasks.spawn("certificate files", follow::others(authority.clone(), files.roots.clone(), changes));
    Ok((authority, serving::Source::Files(files)))
}

/// An authority whose roots are those of a signer of the cluster, which signs for
/// istiod, too.
fn without_key(
    tasks: &Tasks,
    settings: &Settings,
    origin: &Origin,
    registrar: &Arc<Registrar>,
    signer: &str,
) -> anyhow::Result<(Authority, serving::Source)> {
    let roots = registrar::roots_of(&origin.mesh.borrow().config, signer);
    let roots = roots.with_context(|| {
        format!(
            "PILOT_CERT_PROVIDER=k8s.io/{signer}: the mesh configuration has no caCertificates with {signer} in \
             certSigners: workloads would not know istiod"
        )
    })?;
    Certificate::all_from_pem(&roots).context("caCertificates of the mesh configuration")?;
    let authority = Authority::without_key(
        roots,
        "a signer of the cluster",
        settings.workload_ttl,
        settings.max_workload_ttl,
    );
    let follow = registrar::follow(authority.clone(), origin.mesh.clone(), signer.to_owned());
    tasks.spawn("roots of the signer", follow);
    let own = serving::Source::Cluster { registrar: registrar.clone(), signer: signer.to_owned() };
    Ok((authority, own))
}

fn alone(tasks: &Tasks, settings: &Settings, files: &Files) -> anyhow::Result<Started> {
    let state = StateDir::open(&settings.state_dir)?;
    let now = SystemTime::now();
    let renewal = renewal(settings);
    anyhow::ensure!(
        settings.authority.signers.is_none(),
        "EXTERNAL_CA: signers are those of a cluster, and --configDir says that there is none"
    );
    anyhow::ensure!(
        settings.authority.files.is_none(),
        "ENABLE_CA_SERVER=false: without a cluster istiod is the authority"
    );
    let place = place(settings);
    let opened = match place.open(now) {
        Ok(Some(issuer)) => Ok((issuer, plugged::ORIGIN)),
        Ok(None) => selfsigned::open(&state, &renewal.trust_domain, settings.root_ttl, now)
            .map(|issuer| (issuer, selfsigned::ORIGIN)),
        Err(error) => Err(error),
    };
    let (issuer, from) = opened.context("certificate authority")?;
    let authority = Authority::new(issuer, from, settings.workload_ttl, settings.max_workload_ttl);
    // Agents on this machine and installers read the roots from here.
    state.lock()?.publish(ROOTS_FILE, &authority.root_pem())?;
    follow_files(tasks, place, files, &authority);
    let tokens = LocalToken {
        issuer: TokenIssuer::open(&state)?,
        audiences: settings.audiences.clone(),
        trust_domain: renewal.trust_domain.clone(),
    };
    tasks.spawn("self-signed root", follow::self_signed(authority.clone(), state.clone(), renewal));
    tasks.spawn("roots", follow::publish(authority.clone(), state, ROOTS_FILE));
    let (registrar, own) = (None, serving::Source::Authority);
    Ok(Started { authority, tokens: Box::new(tokens), nodes: None, locks: Vec::new(), registrar, own })
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
