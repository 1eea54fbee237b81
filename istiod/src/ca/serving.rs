//! istiod's own serving certificate: made anew whenever the authority changes,
//! and before it ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pki::issuer::San;
use pki::key::PrivateKey;
use runtime::tasks::Tasks;
use rustls::ServerConfig;
use tokio::sync::watch;
use tracing::error;

use super::authority::{Authority, Error};
use super::registrar::Registrar;
use crate::config::authority::Files;

/// A certificate is made anew after this part of its life.
const RENEW_AFTER: f64 = 0.8;
/// Between two attempts, when one fails.
const RETRY: Duration = Duration::from_secs(10);
/// The longest time that is slept in one go: clocks are set, machines suspended.
const LOOK: Duration = Duration::from_secs(3600);

/// The TLS settings of the moment, for servers that take them at each connection.
pub type Serving = watch::Receiver<Arc<ServerConfig>>;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The authority signs it.
    Authority,
    /// Others have, and put it into files.
    Files(Files),
    /// A signer of the cluster does.
    Cluster {
        /// Asks it.
        registrar: Arc<Registrar>,
        /// Its name.
        signer: String,
    },
}

/// What certificate is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Names of istiod.
    pub hosts: Vec<San>,
    /// Its lifetime.
    pub ttl: Duration,
}

impl Source {
    /// A certificate, and when it ends.
    async fn make(
        &self,
        authority: &Authority,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<(Arc<ServerConfig>, SystemTime), Error> {
        let Wanted { hosts, ttl } = wanted;
        match self {
            Self::Authority => {
                let config = authority.serving(hosts, *ttl, now)?;
                let current = authority.current();
                let end = now.checked_add(*ttl).unwrap_or(now);
                Ok((config, current.issuer.as_ref().map_or(end, |issuer| issuer.not_after().min(end))))
            }
            Self::Files(files) => {
                let read = |path: &Path| {
                    std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.into(), why })
                };
                let (chain, key) = (read(&files.cert)?, read(&files.key)?);
                let wrong = |why: &dyn std::fmt::Display| {
                    Error::Serving(format!("{} and {}: {why}", files.cert.display(), files.key.display()))
                };
                let leaf = pki::pair::check(&chain, &key).map_err(|error| wrong(&error))?;
                let key = PrivateKey::from_pem(&key).map_err(|error| wrong(&error))?;
                Ok((authority.serving_with(&chain, &key)?, leaf.not_after))
            }
            Self::Cluster { registrar, signer } => {
                let (chain, key, end) = registrar.serving(signer, hosts, *ttl).await?;
                Ok((authority.serving_with(&chain, &key)?, end))
            }
        }
    }
}

/// Makes the certificate and keeps it fresh.
///
/// # Errors
/// When the first one cannot be made.
pub async fn start(
    tasks: &Tasks,
    authority: &Authority,
    source: Source,
    wanted: Wanted,
) -> Result<Serving, Error> {
    let mut changes = authority.subscribe();
    changes.mark_unchanged();
    let mut made = SystemTime::now();
    let (first, mut end) = source.make(authority, &wanted, made).await?;
    let (publish, serving) = watch::channel(first);
    let authority = authority.clone();
    tasks.spawn("serving certificate", async move {
        let mut retry = None;
        loop {
            let due = made + end.duration_since(made).unwrap_or_default().mul_f64(RENEW_AFTER);
            // What cannot be made longer is not made without a pause.
            let left = || due.duration_since(SystemTime::now()).unwrap_or_default().max(RETRY);
            let wait = retry.unwrap_or_else(left);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait.min(LOOK)) => {
                    if retry.is_none() && SystemTime::now() < due {
                        continue;
                    }
                }
            }
            let now = SystemTime::now();
            retry = match source.make(&authority, &wanted, now).await {
                Ok((config, until)) => {
                    if until <= now {
                        error!(target: "ca", "istiod's certificate has ended: its clients refuse it until there is another");
                    }
                    (made, end) = (now, until);
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
