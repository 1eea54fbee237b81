//! A root of istiod's own, kept in the Secret `istio-ca-secret` of the control
//! plane's namespace (or `cacerts`, with `USE_CACERTS_FOR_SELF_SIGNED_CA`): all
//! istiods of a cluster sign with the same key.

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

/// Its usual name.
const NAME: &str = "istio-ca-secret";
/// The name that a CA of the user's own has, and a self-signed one if that is wanted.
const OWN_NAME: &str = "cacerts";
/// A key that a Secret `cacerts` has if istiod has made it.
pub const GENERATED: &str = "istio-generated";
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
    #[error("Secret {namespace}/{name}: {action}: {why}")]
    Api {
        /// Name of the Secret.
        name: &'static str,
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
        "Secret {namespace}/{name}: {why}; restore it from a copy, or delete it for a new root, which every workload \
         must then be given"
    )]
    Damaged {
        /// Name of the Secret.
        name: &'static str,
        /// Namespace of the Secret.
        namespace: String,
        /// What is wrong.
        why: String,
    },
    /// The Secret is not one that istiod has made.
    #[error(
        "Secret {namespace}/{OWN_NAME} has no key {GENERATED}: it is a CA of your own, which istiod reads from the files \
         of ROOT_CA_DIR: mount it there"
    )]
    Foreign {
        /// Namespace of the Secret.
        namespace: String,
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
    /// Name of the Secret that there is, once it is known.
    name: &'static str,
    /// Name of one that must be made.
    new: &'static str,
    trust_domain: TrustDomain,
    ttl: Duration,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, name, .. } = self;
        f.debug_struct("Store").field("namespace", namespace).field("name", name).finish_non_exhaustive()
    }
}

impl Store {
    /// The Secret of that namespace; a root that must be made is for `trust_domain`
    /// and lasts `ttl`.
    #[must_use]
    pub fn new(connection: &Connection, namespace: &str, trust_domain: TrustDomain, ttl: Duration) -> Self {
        let Connection { client, health, .. } = connection;
        let (client, health, namespace) = (client.clone(), health.clone(), namespace.to_owned());
        Self { client, health, namespace, name: NAME, new: NAME, trust_domain, ttl }
    }

    /// A root that must be made is kept in `cacerts`, and found there.
    #[must_use]
    pub fn in_cacerts(mut self) -> Self {
        self.new = OWN_NAME;
        self
    }

    /// What logs say of the authority.
    #[must_use]
    pub fn origin(&self) -> &'static str {
        match self.name {
            OWN_NAME => "self-signed root of Secret cacerts",
            _ => "self-signed root of Secret istio-ca-secret",
        }
    }

    /// Name of the Secret.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Loads the root, making it when there is none: of several istiods that begin
    /// at the same time, all take that of the first. Waits for the API server.
    ///
    /// # Errors
    /// When the Secret cannot be used.
    pub async fn open(&mut self) -> Result<Issuer, Error> {
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

    async fn load_or_make(&mut self, now: SystemTime) -> Result<Issuer, Error> {
        // One of the usual name is always used.
        for name in [NAME, self.new] {
            self.name = name;
            if let Some(secret) = self.get().await? {
                return self.read(&secret, now);
            }
        }
        let key = PrivateKey::generate(Algorithm::EcdsaP256)
            .map_err(|error| issuer::Error::Sign(error.to_string()))?;
        let pem = key.to_pkcs8_pem();
        let made = Issuer::self_signed_by(key, self.trust_domain.as_str(), self.ttl, now)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.name.into()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.into()),
            data: Some(data(self.name, made.root_pem(), &pem)),
            ..Secret::default()
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PostParams::default();
        match in_time(api.create(&params, &secret)).await {
            Ok(_) => {
                info!(target: "ca", namespace = self.namespace, "Secret {} is made, with a new root", self.name);
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
        match in_time(api.replace(self.name, &params, &secret)).await {
            Ok(_) => {
                info!(target: "ca", serial = renewed.certificate().serial, "the root of Secret {} is renewed", self.name);
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
            fields: Some(format!("metadata.name={}", self.name)),
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
        in_time(api.get_opt(self.name)).await.map_err(|error| self.failed("read", &error))
    }

    fn text<'a>(&self, secret: &'a Secret, key: &str) -> Result<&'a str, Error> {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        let value = value.ok_or_else(|| self.damaged(format!("{key} is not there")))?;
        std::str::from_utf8(&value.0).map_err(|_| self.damaged(format!("{key} is no text")))
    }

    fn read(&self, secret: &Secret, now: SystemTime) -> Result<Issuer, Error> {
        let has_mark = secret.data.as_ref().is_some_and(|data| data.contains_key(GENERATED));
        if self.name == OWN_NAME && !has_mark {
            return Err(Error::Foreign { namespace: self.namespace.clone() });
        }
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
        Error::Api { name: self.name, namespace: self.namespace.clone(), action, why, may_change }
    }

    fn damaged(&self, why: String) -> Error {
        Error::Damaged { name: self.name, namespace: self.namespace.clone(), why }
    }
}

fn data(name: &str, root: &str, key: &str) -> BTreeMap<String, ByteString> {
    let empty = EMPTY.map(|name| (name, ""));
    let mark = (name == OWN_NAME).then_some((GENERATED, ""));
    let values = [(CERT, root), (KEY, key), (ROOT, root)].into_iter().chain(empty).chain(mark);
    values.map(|(name, value)| (name.to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(ANSWER, request).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(format!("no answer within {ANSWER:?}").into())),
    }
}
