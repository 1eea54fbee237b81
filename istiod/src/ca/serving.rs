//! istiod's own serving certificate: made anew whenever the authority changes,
//! and before it ends.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::issuer::San;
use runtime::tasks::Tasks;
use rustls::ServerConfig;
use tokio::sync::watch;
use tracing::error;

use super::authority::{Authority, Error};

/// A certificate is made anew after this part of its life.
const RENEW_AFTER: f64 = 0.8;
/// Between two attempts, when one fails.
const RETRY: Duration = Duration::from_secs(10);
/// The longest time that is slept in one go: clocks are set, machines suspended.
const LOOK: Duration = Duration::from_secs(3600);

/// The TLS settings of the moment, for servers that take them at each connection.
pub type Serving = watch::Receiver<Arc<ServerConfig>>;

/// Makes the certificate for `hosts` and keeps it fresh.
///
/// # Errors
/// When the first one cannot be made.
pub fn start(tasks: &Tasks, authority: &Authority, hosts: Vec<San>, ttl: Duration) -> Result<Serving, Error> {
    let mut changes = authority.subscribe();
    changes.mark_unchanged();
    let mut made = SystemTime::now();
    let (publish, serving) = watch::channel(authority.serving(&hosts, ttl, made)?);
    let authority = authority.clone();
    tasks.spawn("serving certificate", async move {
        let mut retry = None;
        loop {
            let left = authority.current().issuer.not_after().duration_since(made).unwrap_or_default();
            let due = made + ttl.min(left).mul_f64(RENEW_AFTER);
            let wait = retry.unwrap_or_else(|| due.duration_since(SystemTime::now()).unwrap_or_default());
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.min(LOOK)) => {
                    if retry.is_none() && SystemTime::now() < due {
                        continue;
                    }
                }
            }
            let now = SystemTime::now();
            retry = match authority.serving(&hosts, ttl, now) {
                Ok(config) => {
                    made = now;
                    publish.send_replace(config);
                    None
                }
                Err(why) => {
                    error!(target: "ca", "{why}: the old one stays");
                    Some(RETRY)
                }
            };
        }
    });
    Ok(serving)
}
