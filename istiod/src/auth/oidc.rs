//! Tokens of an issuer outside of the cluster (`JWT_RULE`): istiod checks them
//! itself, with the keys that the issuer publishes.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use names::{Namespace, ServiceAccount, SpiffeId};
use pilot::snapshot::jwt::DISCOVERY;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{Authenticator, Caller, Credentials, Refusal};
use crate::jwks::Client;
use crate::kube::mesh::Mesh;

/// Clocks of two machines may differ that much.
const LEEWAY: Duration = Duration::from_secs(10);
/// Time for one answer of the issuer.
const ANSWER: Duration = Duration::from_secs(5);
/// Waits after failures, shortest and longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For a token with a key that is not known the issuer is asked again, but not sooner than
/// that: whoever may write tokens could else ask it as often as they like.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// What the subject of a token begins with.
const SUBJECT: &str = "system:serviceaccount:";
/// Signatures whose key the issuer keeps for itself.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whose tokens are taken: the fields of Istio's `JWTRule` that matter here.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Rule {
    /// `iss` of the tokens.
    pub issuer: String,
    /// Where the issuer's keys are; without it, its discovery document says so.
    #[serde(alias = "jwksUri")]
    pub jwks_uri: String,
    /// Audiences, of which a token must have one.
    pub audiences: Vec<String>,
}

impl Rule {
    /// Reads a rule from JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rule: Self = serde_json::from_str(text).map_err(|error| {
            format!("expected JSON as {{\"issuer\": .., \"jwks_uri\": .., \"audiences\": [..]}}: {error}")
        })?;
        if rule.issuer.is_empty() {
            return Err("issuer is missing: name the iss of the tokens".to_owned());
        }
        if rule.audiences.iter().all(String::is_empty) {
            return Err("audiences is missing: every token would be refused".to_owned());
        }
        let uri = rule.uri();
        if uri.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https"))) {
            return Ok(rule);
        }
        Err(format!("{uri:?} is not an http or https URI: name one in jwks_uri"))
    }

    fn uri(&self) -> String {
        if self.jwks_uri.is_empty() {
            return format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        }
        self.jwks_uri.clone()
    }
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default)]
struct Keys {
    set: Arc<[Jwk]>,
    /// When the issuer was asked last.
    asked: Option<Instant>,
    /// Why it has not answered then.
    failure: Option<String>,
}

/// Checks tokens of one issuer.
pub struct Oidc {
    rule: Rule,
    keys: watch::Receiver<Keys>,
    /// Asks for other keys.
    ask: Arc<Notify>,
    /// Has the trust domain of identities, which may change.
    mesh: watch::Receiver<Mesh>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.rule.issuer).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
}

/// A claim that is looked at before the signature.
#[derive(Debug, Deserialize)]
struct Unverified {
    iss: Option<String>,
}

impl Oidc {
    /// Follows the keys of that rule, which are fetched again after `refresh`.
    #[must_use]
    pub fn start(
        tasks: &Tasks,
        rule: Rule,
        refresh: Duration,
        client: Client,
        mesh: watch::Receiver<Mesh>,
    ) -> Self {
        let (tell, keys) = watch::channel(Keys::default());
        let ask = Arc::new(Notify::new());
        tasks.spawn("keys of JWT_RULE", follow(rule.clone(), refresh, client, tell, ask.clone()));
        Self { rule, keys, ask, mesh }
    }

    /// Whom a token stands for.
    async fn check(&self, token: &str) -> Result<(Namespace, ServiceAccount), Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| "is no JWT that istiod can read")?;
        let issuer = issuer(token).unwrap_or_default();
        if issuer != self.rule.issuer {
            return Err(format!("is of issuer {issuer:?}, not of {:?} (JWT_RULE)", self.rule.issuer).into());
        }
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!("is signed with {:?}, which is not accepted", header.alg).into());
        }
        let known = self.keys.borrow().clone();
        let first = verify(token, &header, &known.set, &self.rule);
        let Err(Failed::Key) = first else { return first.map_err(|failed| failed.refusal(&self.rule)) };
        // The issuer may have new keys.
        let keys = self.newer(known).await;
        let second = verify(token, &header, &keys.set, &self.rule);
        match (second, keys.failure) {
            (Err(Failed::Key), Some(why)) => {
                Err(Refusal::Unavailable(format!("the keys of issuer {issuer} cannot be fetched: {why}")))
            }
            (second, _) => second.map_err(|failed| failed.refusal(&self.rule)),
        }
    }

    /// The keys after the issuer was asked again, if it is time for that.
    async fn newer(&self, known: Keys) -> Keys {
        if known.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return known;
        }
        let mut keys = self.keys.clone();
        self.ask.notify_one();
        let newer = timeout(2 * ANSWER, keys.wait_for(|keys| keys.asked > known.asked)).await;
        match newer {
            Ok(Ok(newer)) => newer.clone(),
            _ => Keys { failure: Some("no answer in time".into()), ..known },
        }
    }
}

/// Keeps the keys fresh.
async fn follow(rule: Rule, refresh: Duration, client: Client, tell: watch::Sender<Keys>, ask: Arc<Notify>) {
    let uri = rule.uri();
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let fetched = client.keys(&uri, ANSWER).await.map_err(|error| error.to_string());
        let fetched = fetched.and_then(|text| {
            let set: JwkSet = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            Ok(Arc::<[Jwk]>::from(set.keys))
        });
        let wait = match &fetched {
            Ok(_) => {
                backoff.reset();
                refresh
            }
            Err(_) => backoff.next_wait(),
        };
        tell.send_modify(|keys| {
            keys.asked = Some(Instant::now());
            match fetched {
                Ok(set) => {
                    if keys.failure.take().is_some() || keys.set.is_empty() {
                        info!(target: "auth", issuer = rule.issuer, "keys of JWT_RULE fetched");
                    }
                    keys.set = set;
                }
                Err(why) => {
                    if keys.failure.as_ref() != Some(&why) {
                        let then = if keys.set.is_empty() { "no token is accepted yet" } else { "the last ones stay" };
                        warn!(target: "auth", issuer = rule.issuer, "keys of JWT_RULE cannot be fetched: {why}: {then}");
                    }
                    keys.failure = Some(why);
                }
            }
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ask.notified() => {}
        }
    }
}

/// Why a token is not good.
enum Failed {
    /// No key that is known fits.
    Key,
    /// It says something else than it must.
    Claims(&'static str),
    /// It is of nobody.
    Subject(String),
}

impl Failed {
    fn refusal(self, rule: &Rule) -> Refusal {
        match self {
            Self::Key => format!("is not signed with a key of issuer {:?}", rule.issuer).into(),
            Self::Claims("audience") => {
                format!("is for another audience; accepted: {}", rule.audiences.join(", ")).into()
            }
            Self::Claims(why) => why.into(),
            Self::Subject(subject) => format!("its subject {subject:?} is no service account").into(),
        }
    }
}

fn verify(
    token: &str,
    header: &jsonwebtoken::Header,
    keys: &[Jwk],
    rule: &Rule,
) -> Result<(Namespace, ServiceAccount), Failed> {
    let mut rules = Validation::new(header.alg);
    rules.leeway = LEEWAY.as_secs();
    rules.validate_nbf = true;
    rules.set_issuer(&[&rule.issuer]);
    rules.set_audience(&rule.audiences);
    rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let fits = |key: &&Jwk| match (&header.kid, &key.common.key_id) {
        (Some(wanted), Some(id)) => wanted == id,
        _ => true,
    };
    for key in keys.iter().filter(fits) {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match jsonwebtoken::decode::<Claims>(token, &key, &rules) {
            Ok(data) => return account(&data.claims.sub),
            Err(error) => {
                use jsonwebtoken::errors::ErrorKind;
                match error.kind() {
                    ErrorKind::ExpiredSignature => return Err(Failed::Claims("has expired")),
                    ErrorKind::ImmatureSignature => {
                        return Err(Failed::Claims(
                            "is not valid yet: compare the clocks of the two machines",
                        ));
                    }
                    ErrorKind::InvalidAudience => return Err(Failed::Claims("audience")),
                    ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidIssuer => {
                        return Err(Failed::Claims("lacks one of exp, iss, aud and sub"));
                    }
                    // Another key may fit.
                    _ => {}
                }
            }
        }
    }
    Err(Failed::Key)
}

fn account(subject: &str) -> Result<(Namespace, ServiceAccount), Failed> {
    let parts = subject.strip_prefix(SUBJECT).and_then(|rest| rest.split_once(':'));
    let parts = parts.filter(|(_, name)| !name.contains(':'));
    let parsed = parts.and_then(|(namespace, name)| Some((namespace.parse().ok()?, name.parse().ok()?)));
    parsed.ok_or_else(|| Failed::Subject(subject.to_owned()))
}

/// Who says to have made a token; not proven yet.
fn issuer(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Unverified>(&claims).ok()?.iss
}

#[tonic::async_trait]
impl Authenticator for Oidc {
    fn name(&self) -> &'static str {
        "JWT_RULE"
    }

    async fn authenticate(&self, credentials: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let token = credentials.bearer?;
        let (namespace, service_account) = match self.check(token).await {
            Ok(account) => account,
            Err(refusal) => return Some(Err(refusal)),
        };
        let trust_domain = self.mesh.borrow().config.trust_domain().parse().unwrap_or_default();
        let id = SpiffeId { trust_domain, namespace, service_account };
        Some(Ok(Caller { identities: vec![id], by: self.name(), pod: None }))
    }
}

#[cfg(test)]
mod tests;
