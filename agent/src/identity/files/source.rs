//! The workload's identity out of files, in place of one from the CA.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::info;

use super::{Current, Material, Pair, Paths, Store};
use crate::config::certificates::Files;
use crate::identity::{Identity, first_end};
use crate::metrics::Metrics;

/// Publishes the identity that the files hold, again whenever they change.
/// Runs until the process ends.
pub async fn run(
    files: Files,
    store: Store,
    metrics: Arc<Metrics>,
    identity: watch::Sender<Option<Arc<Identity>>>,
) {
    let Files { chain, key, roots } = files;
    let mut pair = store.follow(&Paths::Pair { chain, key });
    let mut roots = store.follow(&Paths::Roots(roots));
    loop {
        if let (Some(pair), Some(roots)) = (newest(&mut pair), newest(&mut roots))
            && let (Material::Pair(pair), Material::Roots(roots_pem)) = (&*pair, &*roots)
        {
            publish(pair, roots_pem, &metrics, &identity);
        }
        let changed = tokio::select! {
            changed = pair.changed() => changed,
            changed = roots.changed() => changed,
        };
        if changed.is_err() {
            // The agent is ending.
            return;
        }
    }
}

fn newest(current: &mut Current) -> Option<Arc<Material>> {
    current.borrow_and_update().material.clone()
}

fn publish(pair: &Pair, roots_pem: &str, metrics: &Metrics, identity: &watch::Sender<Option<Arc<Identity>>>) {
    let is_same = identity.borrow().as_ref().is_some_and(|before| {
        before.chain_pem == pair.chain_pem && *before.key_pem == pair.key_pem && before.roots_pem == roots_pem
    });
    if is_same {
        return;
    }
    info!(target: "cache", serial = pair.leaf.serial, uris = ?pair.leaf.uris, "certificate and roots are those of files");
    let created = SystemTime::now();
    let roots_expire = first_end(roots_pem, created);
    metrics.identity.certificate_ends(pair.leaf.not_after, roots_expire);
    identity.send_replace(Some(Arc::new(Identity {
        chain_pem: pair.chain_pem.clone(),
        key_pem: Arc::new(pair.key_pem.clone()),
        roots_expire,
        roots_pem: roots_pem.to_owned(),
        created,
        expires: pair.leaf.not_after,
        serial: pair.leaf.serial.clone(),
        uris: pair.leaf.uris.clone(),
    })));
}
