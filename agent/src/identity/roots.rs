//! Roots: those of the system, and the bundle that the workload trusts.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::info;

use super::{Current, Identity};
use crate::metrics::Metrics;

/// Where systems keep the roots they trust, in the order they are looked for.
pub const SYSTEM: [&str; 8] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates",
];

/// The file with the roots that this system trusts, if it has one.
#[must_use]
pub fn system() -> Option<&'static Path> {
    SYSTEM.iter().map(Path::new).find(|path| path.is_file())
}

/// Roots that come over xDS, each a PEM text.
pub type Received = watch::Receiver<Arc<Vec<String>>>;

/// The certificates of all texts, each once, sorted by their PEM, so that the
/// same roots are the same text whatever order they come in. What is no
/// certificate is left out.
#[must_use]
pub fn bundle<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let blocks: BTreeSet<String> = texts.into_iter().flat_map(pki::certificate::blocks).collect();
    blocks.into_iter().collect()
}

/// Adds to the roots of each identity of `own` those that are configured
/// (`fixed`) and received, and publishes it; also when only the received ones
/// change. Runs until the process ends.
pub async fn run(
    mut own: Current,
    fixed: Vec<String>,
    mut received: Option<Received>,
    merged: watch::Sender<Option<Arc<Identity>>>,
    metrics: Arc<Metrics>,
) {
    loop {
        let identity = own.borrow_and_update().clone();
        if let Some(identity) = identity {
            let more = received.as_mut().map(|received| received.borrow_and_update().clone());
            let more = more.iter().flat_map(|texts| texts.iter());
            let all =
                bundle(std::iter::once(&identity.roots_pem).chain(&fixed).chain(more).map(String::as_str));
            publish(&identity, all, &merged, &metrics);
        }
        tokio::select! {
            Ok(()) = own.changed() => {}
            Ok(()) = changed(&mut received) => {}
            // Neither can change any more, and those who read are not told of an end.
            else => std::future::pending().await,
        }
    }
}

async fn changed(received: &mut Option<Received>) -> Result<(), watch::error::RecvError> {
    match received {
        Some(received) => received.changed().await,
        None => std::future::pending().await,
    }
}

fn publish(
    identity: &Arc<Identity>,
    roots: String,
    merged: &watch::Sender<Option<Arc<Identity>>>,
    metrics: &Metrics,
) {
    let before = merged.borrow().clone();
    let is_same_pair = before
        .as_ref()
        .is_some_and(|before| before.chain_pem == identity.chain_pem && before.key_pem == identity.key_pem);
    let is_same_bundle = before.as_ref().is_some_and(|before| before.roots_pem == roots);
    if is_same_pair && is_same_bundle {
        return;
    }
    if before.is_some() && !is_same_bundle {
        let count = roots.matches("-----BEGIN").count();
        info!(target: "cache", count, "the roots have changed");
    }
    let identity =
        if roots == identity.roots_pem { identity.clone() } else { Arc::new(identity.with_roots(roots)) };
    metrics.identity.certificate_ends(identity.expires, identity.roots_expire);
    merged.send_replace(Some(identity));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pki::csr::Csr;
    use pki::issuer::{Issuer, San};
    use pki::key::{Algorithm, Format, PrivateKey};
    use runtime::tasks::Tasks;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn issuer() -> Issuer {
        Issuer::self_signed("a", HOUR, SystemTime::now()).unwrap().0
    }

    fn identity(issuer: &Issuer) -> Option<Arc<Identity>> {
        let (now, key) = (SystemTime::now(), PrivateKey::generate(Algorithm::EcdsaP256).unwrap());
        let answer = issuer.issue(&Csr::of_key(&key).unwrap(), &[San::Dns("a".into())], HOUR, now).unwrap();
        Some(Arc::new(Identity::new(&key, Format::Pkcs8, &answer, now).unwrap()))
    }

    #[test]
    fn a_bundle_is_the_same_in_any_order() {
        let (a, b) = (issuer(), issuer());
        let (a, b) = (a.root_pem(), b.root_pem());
        let all = bundle([a, b]);
        assert_eq!(all, bundle([b, "garbage", &format!("{a}{b}"), a.trim_end()]));
        assert_eq!(all.len(), a.len() + b.len());
        assert_eq!(bundle([a]), a);
        assert_eq!(bundle([]), "");
    }

    #[tokio::test]
    async fn roots_are_merged_and_only_changes_are_published() {
        let (ca, fixed, more) = (issuer(), issuer(), issuer());
        let (own_tx, own) = watch::channel(None);
        let (received_tx, received) = watch::channel(Arc::default());
        let (tx, mut merged) = watch::channel(None);
        let tasks = Tasks::new();
        let fixed_roots = vec![fixed.root_pem().to_owned()];
        drop(tasks.spawn("roots", run(own, fixed_roots, Some(received), tx, Arc::default())));
        let mut next = async || {
            merged.changed().await.unwrap();
            merged.borrow_and_update().clone().unwrap()
        };

        own_tx.send_replace(identity(&ca));
        let first = next().await;
        assert_eq!(first.roots_pem, bundle([ca.root_pem(), fixed.root_pem()]));
        received_tx.send_replace(Arc::new(vec![more.root_pem().to_owned()]));
        let second = next().await;
        assert_eq!(second.roots_pem, bundle([ca.root_pem(), fixed.root_pem(), more.root_pem()]));
        assert_eq!(second.serial, first.serial, "no other certificate");
        assert!(Arc::ptr_eq(&second.key_pem, &first.key_pem));

        // The same again, and then a renewal: that alone is seen.
        received_tx.send_replace(Arc::new(vec![more.root_pem().to_owned(), ca.root_pem().to_owned()]));
        tokio::task::yield_now().await;
        own_tx.send_replace(identity(&ca));
        let third = next().await;
        assert_eq!(third.roots_pem, second.roots_pem);
        assert_ne!(third.serial, first.serial);

        // Whoever received roots is gone; what they were stays.
        drop(received_tx);
        let other = issuer();
        own_tx.send_replace(identity(&other));
        let all = [&other, &fixed, &more, &ca].map(Issuer::root_pem);
        assert_eq!(next().await.roots_pem, bundle(all));
        assert!(tasks.stop(Duration::from_secs(60)).await);
    }
}
