//! Gets the first certificate, publishes it, and renews it for ever: at the
//! grace ratio of its life, whoever is or is not subscribed. While the CA does
//! not answer, the old one stays in force.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::backoff::Backoff;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Identity;
use super::csr_client::Client;

/// Waits between tries while there is no certificate: a pod is waiting for it.
const FIRST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Waits between tries while there is one.
const RENEWAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A renewal is never closer than this to the one before, whatever the CA's lifetimes are.
const MIN_PERIOD: Duration = Duration::from_millis(500);

/// Runs until the process ends.
pub async fn run(client: Client, current: watch::Sender<Option<Arc<Identity>>>) {
    let mut backoff = Backoff::new(FIRST.0, FIRST.1);
    let mut told = String::new();
    loop {
        match client.ask().await {
            Ok(identity) => {
                let delay = delay(&client, &identity);
                let expires = time::OffsetDateTime::from(identity.expires);
                info!(target: "cache", serial = identity.serial, uris = ?identity.uris, %expires, renewal_in = ?delay, "certificate obtained");
                client.metrics.certificate_expires(identity.expires);
                current.send_replace(Some(Arc::new(identity)));
                backoff = Backoff::new(RENEWAL.0, RENEWAL.1);
                told.clear();
                tokio::time::sleep(delay).await;
            }
            Err(error) => {
                let wait = backoff.next_wait();
                let text = error.to_string();
                // The same reason again and again helps nobody.
                if text == told {
                    tracing::debug!(target: "cache", error = text, ?wait, "no certificate yet");
                } else {
                    warn!(target: "cache", error = text, ?wait, "no certificate; trying again");
                    told = text;
                }
                tokio::time::sleep(wait).await;
            }
        }
    }
}

fn delay(client: &Client, identity: &Identity) -> Duration {
    let settings = &client.settings;
    let jitter = settings.grace_jitter * rand::random_range(-1.0..=1.0);
    let now = SystemTime::now();
    pki::renew::delay(identity.created, identity.expires, settings.grace_ratio, jitter, now).max(MIN_PERIOD)
}
