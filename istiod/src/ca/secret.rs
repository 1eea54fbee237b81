//! A root of istiod's own, kept in the Secret `istio-ca-secret` of the control
//! plane's namespace: all istiods of a cluster sign with the same key.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use names::TrustDomain;
use pki::issuer::{self, Issuer, Material, Pem};
use pki::key::{Algorithm, PrivateKey};
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use source::kubernetes::{self, Health, Resource, reason};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::follow::Renewal;
use crate::kube::Connection;

/// What logs say of it.
pub const ORIGIN: &str = "self-signed root of Secret istio-ca-secret";
/// Its name.
pub const NAME: &str = "istio-ca-secret";
const TYPE: &str = "istio.io/ca-root";
const CERT: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const ROOT: &str = "root-cert.pem";
/// Keys that are there without a value, as readers of the Secret know it.
const EMPTY: [&str; 2] = ["cert-chain.pem", "key.pem"];
/// Waits for an API server that does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Why the Secret gives no authority.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do as asked.
    #[error("Secret {namespace}/{NAME}: {action}: {why}")]
    Api {
        /// Namespace of the Secret.
        namespace: String,
        /// What was asked.
        action: &'static str,
        /// What was answered.
        why: String,
        /// Whether the same may work later.
        may_change: bool,
    },
    /// What is in it makes no authority.
    #[error(
        "Secret {namespace}/{NAME}: {why}; restore it from a copy, or delete it for a new root, which every workload \
         must then be given"
    )]
    Damaged {
        /// Namespace of the Secret.
        namespace: String,
        /// What is wrong.
        why: String,
    },
    /// A root cannot be made.
    #[error(transparent)]
    Make(#[from] issuer::Error),
}

/// The Secret of one cluster.
#[derive(Clone)]
pub struct Store {
    client: Client,
    health: Health,
    namespace: String,
    trust_domain: TrustDomain,
    ttl: Duration,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Store {
    /// The Secret of that namespace; a root that must be made is for `trust_domain`
    /// and lasts `ttl`.
    #[must_use]
    pub fn new(connection: &Connection, namespace: &str, trust_domain: TrustDomain, ttl: Duration) -> Self {
        let Connection { client, health, .. } = connection;
        let (client, health, namespace) = (client.clone(), health.clone(), namespace.to_owned());
        Self { client, health, namespace, trust_domain, ttl }
    }

    /// Loads the root, making it when there is none: of several istiods that begin
    /// at the same time, all take that of the first. Waits for the API server.
    ///
    /// # Errors
    /// When the Secret cannot be used.
    pub async fn open(&self) -> Result<Issuer, Error> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut health = self.health.clone();
        let mut said = String::new();
        loop {
            let error = match self.load_or_make(SystemTime::now()).await {
                Err(error @ Error::Api { may_change: true, .. }) => error.to_string(),
                done => return done,
            };
            if said != error {
                warn!(target: "ca", "{error}: trying again");
                said = error;
            }
            timeout(backoff.next_wait(), health.returned()).await.ok();
        }
    }

    async fn load_or_make(&self, now: SystemTime) -> Result<Issuer, Error> {
        if let Some(secret) = self.get().await? {
            return self.read(&secret, now);
        }
        let key = PrivateKey::generate(Algorithm::EcdsaP256)
            .map_err(|error| issuer::Error::Sign(error.to_string()))?;
        let pem = key.to_pkcs8_pem();
        let made = Issuer::self_signed_by(key, self.trust_domain.as_str(), self.ttl, now)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.into()),
            data: Some(data(made.root_pem(), &pem)),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams::default();
        match in_time(api.create(&params, &secret)).await {
            Ok(_) => {
                info!(target: "ca", namespace = self.namespace, "Secret {NAME} is made, with a new root");
                Ok(made)
            }
            // Another istiod was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => match self.get().await? {
                Some(secret) => self.read(&secret, now),
                None => Err(self.error("read", "it was deleted just now".into(), true)),
            },
            Err(error) => Err(self.failed("create", &error)),
        }
    }

    /// The root of the Secret as it is now, renewed if it is time for that. `None`
    /// when there is no Secret.
    ///
    /// # Errors
    /// When the Secret cannot be used.
    pub async fn check(&self, renewal: &Renewal, now: SystemTime) -> Result<Option<Issuer>, Error> {
        let Some(mut secret) = self.get().await? else { return Ok(None) };
        let issuer = self.read(&secret, now)?;
        if !renewal.is_due(&issuer, now) {
            return Ok(Some(issuer));
        }
        let key = PrivateKey::from_pem(self.text(&secret, KEY)?)
            .map_err(|error| self.damaged(format!("{KEY}: {error}")))?;
        let renewed = Issuer::self_signed_by(key, renewal.trust_domain.as_str(), renewal.ttl, now)?;
        let value = || ByteString(renewed.root_pem().as_bytes().to_vec());
        let data = secret.data.get_or_insert_default();
        data.insert(CERT.into(), value());
        data.insert(ROOT.into(), value());
        // It is taken only if nobody else has changed it since it was read.
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams::default();
        match in_time(api.replace(NAME, &params, &secret)).await {
            Ok(_) => {
                info!(target: "ca", serial = renewed.certificate().serial, "the root of Secret {NAME} is renewed");
                Ok(Some(renewed))
            }
            Err(error) => Err(self.failed("update", &error)),
        }
    }

    /// Tells that the Secret is another one than before.
    #[must_use]
    pub fn changes(&self, tasks: &Tasks) -> watch::Receiver<String> {
        let (tell, seen) = watch::channel(String::new());
        let resource = Resource {
            name: "Secret of the CA",
            paths: vec![format!("/api/v1/namespaces/{}/secrets", self.namespace)],
            fields: Some(format!("metadata.name={NAME}")),
            // What is in it is read when it is needed, and kept nowhere else.
            only_metadata: true,
            defined: None,
        };
        let version = |object: serde_json::Value| {
            object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
        };
        let follow =
            kubernetes::follow(self.client.clone(), self.health.clone(), resource, version, move |event| {
                let version = match event {
                    kubernetes::Event::Listed(all) => all.into_iter().next().unwrap_or_default(),
                    kubernetes::Event::Set(version) => version,
                    kubernetes::Event::Gone(_) => String::new(),
                };
                tell.send_if_modified(|before| {
                    let is_other = *before != version;
                    *before = version;
                    is_other
                });
                std::future::ready(!tell.is_closed())
            });
        tasks.spawn("Secret of the CA", follow);
        seen
    }

    async fn get(&self) -> Result<Option<Secret>, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        in_time(api.get_opt(NAME)).await.map_err(|error| self.failed("read", &error))
    }

    fn text<'a>(&self, secret: &'a Secret, key: &str) -> Result<&'a str, Error> {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        let value = value.ok_or_else(|| self.damaged(format!("{key} is not there")))?;
        std::str::from_utf8(&value.0).map_err(|_| self.damaged(format!("{key} is no text")))
    }

    fn read(&self, secret: &Secret, now: SystemTime) -> Result<Issuer, Error> {
        let (cert, key) = (self.text(secret, CERT)?, self.text(secret, KEY)?);
        // Old ones have no value of its own for it.
        let root = self.text(secret, ROOT).ok().filter(|text| !text.trim().is_empty());
        let material = Material {
            cert: Pem { file: CERT, text: cert },
            key: Pem { file: KEY, text: key },
            chain: Pem { file: EMPTY[0], text: "" },
            root: root.map_or(Pem { file: CERT, text: cert }, |text| Pem { file: ROOT, text }),
        };
        Issuer::load(&material, now).map_err(|error| self.damaged(error.to_string()))
    }

    fn failed(&self, action: &'static str, error: &kube::Error) -> Error {
        self.health.suspect();
        let may_change = match error {
            kube::Error::Api(status) => !matches!(status.code, 400 | 401 | 403 | 422),
            _ => true,
        };
        self.error(action, reason(error), may_change)
    }

    fn error(&self, action: &'static str, why: String, may_change: bool) -> Error {
        Error::Api { namespace: self.namespace.clone(), action, why, may_change }
    }

    fn damaged(&self, why: String) -> Error {
        Error::Damaged { namespace: self.namespace.clone(), why }
    }
}

fn data(root: &str, key: &str) -> BTreeMap<String, ByteString> {
    let empty = EMPTY.map(|name| (name, ""));
    let values = [(CERT, root), (KEY, key), (ROOT, root)].into_iter().chain(empty);
    values.map(|(name, value)| (name.to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(ANSWER, request).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(format!("no answer within {ANSWER:?}").into())),
    }
}
