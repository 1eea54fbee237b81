//! The service account's token: read anew for every call, because the kubelet
//! replaces it, and looked at before it is sent. What it says is not verified:
//! istiod does that; its end alone is of interest here.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde::Deserialize;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::stamp;
use super::told::Told;
use crate::config::Endpoint;
use crate::metrics::Metrics;
use crate::upstream;

/// Between two looks at the file while no call needs it: for warning and metric.
const PERIOD: Duration = Duration::from_secs(30);
/// A token that ends sooner should have been replaced; the kubelet does it at
/// 80 % of its life.
const SOON: Duration = Duration::from_secs(60);
/// Part of its life of which the same is true.
const SOON_PART: f64 = 0.1;

/// The token has expired.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token in {} has expired at {} ({} s ago) and is not sent: have it replaced (the kubelet does that for a projected token), and compare the clocks", path.display(), stamp(*at), ago.as_secs()
)]
pub struct Expired {
    /// Its file.
    pub path: PathBuf,
    /// When it ended.
    pub at: SystemTime,
    /// How long ago that was when it was seen first: the same token is the same
    /// error, which is told once.
    pub ago: Duration,
}

/// A file with a token.
pub struct Token {
    path: PathBuf,
    metrics: Arc<Metrics>,
    /// The warning about there being no token.
    missing: Told,
    /// What is said when it is not needed.
    replaced: Told,
    /// The warning about one that ends soon.
    soon: Told,
    expired: Mutex<Option<Expired>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Token {
    /// The token in that file.
    #[must_use]
    pub fn new(path: PathBuf, metrics: Arc<Metrics>) -> Self {
        Self {
            path,
            metrics,
            missing: Told::new(),
            replaced: Told::new(),
            soon: Told::new(),
            expired: Mutex::new(None),
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The `authorization` header of a call to that server. `None` without a
    /// token: the server may know the caller otherwise.
    ///
    /// # Errors
    /// When the token has expired, also after another look, and no certificate
    /// of the agent's own can take its place.
    pub fn authorization(&self, endpoint: &Endpoint) -> Result<Option<HeaderValue>, Expired> {
        self.authorization_at(endpoint, SystemTime::now())
    }

    fn authorization_at(&self, endpoint: &Endpoint, now: SystemTime) -> Result<Option<HeaderValue>, Expired> {
        let mut read = self.read(now);
        if matches!(read, Read::Expired(_)) {
            // It may be replaced at this very moment.
            read = self.read(now);
        }
        match read {
            Read::Good(header) => Ok(Some(header)),
            _ if self.is_replaced(endpoint, &read, now) => Ok(None),
            Read::None(error) => {
                if self.missing.is_new(&error) {
                    warn!(target: "ca", path = %self.path.display(), error, "no token: istiod is asked without one");
                }
                Ok(None)
            }
            Read::Expired(expired) => {
                self.metrics.identity.expired_tokens.inc();
                Err(expired)
            }
        }
    }

    /// Whether a certificate of the agent's own takes the place of a token that
    /// is of no use: a virtual machine has one for its first certificate only.
    fn is_replaced(&self, endpoint: &Endpoint, read: &Read, now: SystemTime) -> bool {
        let is_replaced = upstream::client_certificate(endpoint, now).is_some();
        let reason = match read {
            Read::Good(_) => return false,
            Read::None(error) => error.clone(),
            Read::Expired(expired) => expired.to_string(),
        };
        if is_replaced && self.replaced.is_new(&reason) {
            info!(target: "ca", reason, "the agent's own certificate is shown instead");
        }
        is_replaced
    }

    fn read(&self, now: SystemTime) -> Read {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => {
                self.metrics.identity.token_ends(None);
                return Read::None(error.to_string());
            }
        };
        let value = Zeroizing::new(format!("{}{}", names::header::BEARER, text.trim()));
        let header = HeaderValue::from_str(&value).ok().filter(|_| !text.trim().is_empty());
        let Some(mut header) = header else {
            self.metrics.identity.token_ends(None);
            return Read::None("the file holds no token".into());
        };
        header.set_sensitive(true);
        let life = Life::of(text.trim());
        self.metrics.identity.token_ends(life.map(|life| life.end));
        let Some(life) = life else {
            self.missing.clear();
            return Read::Good(header);
        };
        match life.end.duration_since(now) {
            Ok(left) if !left.is_zero() => {
                self.missing.clear();
                self.warn_of_end(life, left);
                Read::Good(header)
            }
            _ => Read::Expired(self.expired(life.end, now)),
        }
    }

    fn expired(&self, at: SystemTime, now: SystemTime) -> Expired {
        let mut seen = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref().filter(|seen| seen.at == at) {
            return seen.clone();
        }
        let ago = now.duration_since(at).unwrap_or_default();
        seen.insert(Expired { path: self.path.clone(), at, ago }).clone()
    }

    fn warn_of_end(&self, life: Life, left: Duration) {
        if life.is_over_soon(left) && self.soon.is_new(&stamp(life.end)) {
            warn!(target: "ca", path = %self.path.display(), expires = stamp(life.end), ?left, "the token ends soon and has not been replaced");
        }
    }

    /// Keeps metric and warnings true while no call needs the token, which is
    /// then for calls to that server; that there is none, they tell when they
    /// need it. Runs until the process ends.
    pub async fn watch(self: Arc<Self>, endpoint: Endpoint) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let told = Told::new();
        loop {
            ticks.tick().await;
            let now = SystemTime::now();
            let read = self.read(now);
            if let Read::Expired(expired) = &read
                && !self.is_replaced(&endpoint, &read, now)
                && told.is_new(&stamp(expired.at))
            {
                warn!(target: "ca", "{expired}");
            }
        }
    }
}

/// What is in the file.
enum Read {
    /// Nothing of use, and why.
    None(String),
    /// A token that can be sent.
    Good(HeaderValue),
    /// One that is over.
    Expired(Expired),
}

/// From when to when a token is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    start: Option<SystemTime>,
    end: SystemTime,
}

impl Life {
    /// What a JWT says; `None` for other tokens and for one without an end.
    fn of(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Claims {
            exp: Option<f64>,
            iat: Option<f64>,
        }
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
        let claims: Claims = serde_json::from_slice(&bytes).ok()?;
        let time = |seconds: f64| UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?);
        Some(Self { start: claims.iat.and_then(time), end: claims.exp.and_then(time)? })
    }

    fn is_over_soon(self, left: Duration) -> bool {
        let life = self.start.and_then(|start| self.end.duration_since(start).ok()).unwrap_or_default();
        left <= life.mul_f64(SOON_PART).max(SOON)
    }
}

#[cfg(test)]
mod tests;
