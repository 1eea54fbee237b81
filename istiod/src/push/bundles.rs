//! Roots that other trust domains publish (`caCertificates[].spiffeBundleUrl`):
//! fetched, and again from time to time; what was good stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh::MeshConfig;
use pki::certificate::{self, Certificate};
use proto::istio::mesh::v1alpha1::mesh_config::certificate_data::CertificateData;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::jwks::{Client, shown};
use crate::kube::mesh::Mesh;

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// A bundle is fetched again after that, or sooner if it says so.
const REFRESH: Duration = Duration::from_secs(30 * 60);
/// The shortest time that a bundle may ask for.
const MIN_REFRESH: Duration = Duration::from_secs(60);
/// Waits after failures, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The roots of each URL, PEM, of those that were fetched.
pub type Roots = Arc<BTreeMap<String, Vec<String>>>;

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Nobody can be asked like that.
    #[error("only https is used for roots")]
    Scheme,
    /// No answer.
    #[error(transparent)]
    Fetch(#[from] crate::jwks::Error),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is no bundle.
    #[error("is no SPIFFE bundle: {0}")]
    Bundle(String),
}

/// A SPIFFE bundle (the fields that matter here).
#[derive(Debug, Deserialize)]
struct Bundle {
    #[serde(default)]
    spiffe_refresh_hint: u64,
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize)]
struct Key {
    #[serde(default, rename = "use")]
    usage: String,
    #[serde(default)]
    x5c: Vec<String>,
}

/// Follows the URLs of the mesh configuration.
#[must_use]
pub fn follow(tasks: &Tasks, client: Client, mut mesh: watch::Receiver<Mesh>) -> watch::Receiver<Roots> {
    let (tell, roots) = watch::channel(Roots::default());
    let tell = Arc::new(tell);
    let own = tasks.clone();
    tasks.spawn("trust bundles", async move {
        let mut fetchers: BTreeMap<String, JoinHandle<Option<()>>> = BTreeMap::new();
        loop {
            let wanted = urls(&mesh.borrow_and_update().config);
            fetchers.retain(|url, task| {
                let is_wanted = wanted.contains(url);
                if !is_wanted {
                    task.abort();
                }
                is_wanted
            });
            tell.send_if_modified(|roots| {
                let has_more = roots.keys().any(|url| !wanted.contains(url));
                if has_more {
                    Arc::make_mut(roots).retain(|url, _| wanted.contains(url));
                }
                has_more
            });
            for url in wanted {
                let fetch = fetch(client.clone(), url.clone(), tell.clone());
                fetchers.entry(url).or_insert_with(|| own.spawn("trust bundle", fetch));
            }
            if mesh.changed().await.is_err() {
                // Mesh configurations of a directory do not change.
                std::future::pending::<()>().await;
            }
        }
    });
    roots
}

/// URLs of bundles; one that has certificates as well is not asked, as in Istio.
fn urls(config: &MeshConfig) -> Vec<String> {
    let urls = config.ca_certificates.iter().filter_map(|data| match &data.certificate_data {
        Some(CertificateData::SpiffeBundleUrl(url)) if !url.is_empty() => Some(url.clone()),
        _ => None,
    });
    let mut urls: Vec<String> = urls.collect();
    urls.sort_unstable();
    urls.dedup();
    urls
}

/// Fetches for ever.
async fn fetch(client: Client, url: String, tell: Arc<watch::Sender<Roots>>) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut said = String::new();
    loop {
        let wait = match ask(&client, &url).await {
            Ok((roots, refresh)) => {
                said.clear();
                backoff.reset();
                tell.send_if_modified(|all| {
                    if all.get(&url) == Some(&roots) {
                        return false;
                    }
                    info!(target: "ca", url = shown(&url), count = roots.len(), "roots of a trust bundle fetched");
                    Arc::make_mut(all).insert(url.clone(), roots);
                    true
                });
                refresh
            }
            Err(error) => {
                let why = error.to_string();
                if said != why {
                    let then = if tell.borrow().contains_key(&url) {
                        "the last ones stay"
                    } else {
                        "there are none"
                    };
                    warn!(
                        target: "ca", url = shown(&url), %error,
                        "mesh configuration: caCertificates: roots cannot be fetched: {then}"
                    );
                    said = why;
                }
                backoff.next_wait()
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn ask(client: &Client, url: &str) -> Result<(Vec<String>, Duration), Error> {
    let url = match url.split_once("://") {
        Some(("https", _)) => url.to_owned(),
        Some(_) => return Err(Error::Scheme),
        None => format!("https://{url}"),
    };
    let text = tokio::time::timeout(ANSWER, client.get(&url)).await.map_err(|_| Error::Timeout(ANSWER))??;
    read(&text)
}

/// The roots of a bundle, and the time after which to ask again.
fn read(text: &str) -> Result<(Vec<String>, Duration), Error> {
    let bad = |why: &dyn std::fmt::Display| Error::Bundle(why.to_string());
    let bundle: Bundle = serde_json::from_str(text).map_err(|error| bad(&error))?;
    let mut roots = Vec::new();
    for (number, key) in bundle.keys.iter().enumerate().filter(|(_, key)| key.usage == "x509-svid") {
        let [root] = key.x5c.as_slice() else {
            return Err(bad(&format!(
                "keys[{number}].x5c has {} certificates: one is expected",
                key.x5c.len()
            )));
        };
        let der = STANDARD.decode(root).map_err(|error| bad(&format!("keys[{number}].x5c: {error}")))?;
        let root =
            Certificate::from_der(&der).map_err(|error| bad(&format!("keys[{number}].x5c: {error}")))?;
        if !root.is_ca {
            return Err(bad(&format!("keys[{number}].x5c is not the certificate of an authority")));
        }
        roots.push(pem(&der));
    }
    if roots.is_empty() {
        return Err(bad(&"it has no key with use x509-svid"));
    }
    let refresh = match bundle.spiffe_refresh_hint {
        0 => REFRESH,
        seconds => Duration::from_secs(seconds).clamp(MIN_REFRESH, REFRESH),
    };
    Ok((roots, refresh))
}

/// As all certificates are written that are compared.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut lines = vec!["-----BEGIN CERTIFICATE-----"];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push(line);
        rest = after;
    }
    lines.push("-----END CERTIFICATE-----\n");
    certificate::blocks(&lines.join("\n")).concat()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use pki::issuer::Issuer;
    use serde_json::{Value, json};

    use super::*;

    fn root(name: &str) -> String {
        let issuer = Issuer::self_signed(name, Duration::from_secs(3600), SystemTime::now()).unwrap().0;
        issuer.root_pem().to_owned()
    }

    fn key(root: &str) -> Value {
        let der = Certificate::all_from_pem(root).unwrap()[0].der().to_vec();
        json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(der)]})
    }

    #[test]
    fn roots_of_a_bundle_are_written_as_others_are() {
        let (a, b) = (root("a"), root("b"));
        let jwt = json!({"use": "jwt-svid", "kid": "1"});
        let text = json!({"spiffe_sequence": 1, "spiffe_refresh_hint": 120, "keys": [key(&a), jwt, key(&b)]});
        let (roots, refresh) = read(&text.to_string()).unwrap();
        assert_eq!((roots, refresh), (vec![a.clone(), b], Duration::from_secs(120)));
        for (hint, want) in [(0, REFRESH), (1, MIN_REFRESH), (u64::MAX, REFRESH)] {
            let text = json!({"spiffe_refresh_hint": hint, "keys": [key(&a)]}).to_string();
            assert_eq!(read(&text).unwrap().1, want);
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused_as_a_whole() {
        let a = root("a");
        for (text, want) in [
            (json!({"keys": []}), "no key with use"),
            (json!({"keys": [{"use": "x509-svid"}, key(&a)]}), "keys[0].x5c has 0 certificates"),
            (json!({"keys": [key(&a), {"use": "x509-svid", "x5c": ["AAAA"]}]}), "keys[1].x5c"),
            (json!({"keys": [{"use": "x509-svid", "x5c": ["?"]}]}), "keys[0].x5c"),
            (json!([]), "is no SPIFFE bundle"),
        ] {
            let error = read(&text.to_string()).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn urls_are_those_of_the_mesh_configuration_each_once() {
        let text = "caCertificates: [{spiffeBundleUrl: b.example}, {spiffeBundleUrl: a.example}, \
                    {spiffeBundleUrl: b.example}, {pem: x}]";
        assert_eq!(urls(&MeshConfig::from_yaml(text).unwrap()), ["a.example", "b.example"]);
    }

    #[tokio::test]
    async fn roots_are_never_fetched_without_tls() {
        let client = Client { guard: crate::jwks::Guard::default(), insecure: false, tasks: Tasks::new() };
        let error = ask(&client, "http://a.example").await.unwrap_err();
        assert!(matches!(error, Error::Scheme));
    }
}
