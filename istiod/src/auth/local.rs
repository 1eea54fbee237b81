//! Tokens for meshes without Kubernetes: istiod signs them with a key of its
//! state directory (`istiod token`) and checks them itself.
//!
//! They are JWTs with the claims of a Kubernetes service account token, signed
//! with ES256.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use names::{Namespace, ServiceAccount, SpiffeId, TrustDomain};
use pki::key::{Algorithm as KeyAlgorithm, PrivateKey};
use serde::{Deserialize, Serialize};

use super::{Authenticator, Caller, Credentials, Refusal};
use crate::state_dir::{self, StateDir};

/// File of the signing key in the state directory.
pub const KEY_FILE: &str = "token-key.pem";
/// `iss` of the tokens.
pub const ISSUER: &str = "istiod";
/// Clocks of two machines may differ that much.
const LEEWAY: Duration = Duration::from_secs(10);
const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// Why tokens cannot be signed or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key file cannot be read or written.
    #[error(transparent)]
    State(#[from] state_dir::Error),
    /// The key cannot be made or is none.
    #[error(
        "{KEY_FILE} in the state directory: {0}; remove the file to get a new key (old tokens end with it)"
    )]
    Key(String),
    /// The token cannot be signed.
    #[error("sign the token: {0}")]
    Sign(String),
}

#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// Signs and checks tokens with one key.
pub struct Issuer {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuer(..)")
    }
}

impl Issuer {
    /// Loads the key of the state directory, making it when it is not there.
    ///
    /// # Errors
    /// When the key cannot be read, made or kept.
    pub fn open(state: &StateDir) -> Result<Self, Error> {
        let state = state.lock()?;
        if let Some(pem) = state.read(KEY_FILE)? {
            return Self::from_pem(&pem);
        }
        let key =
            PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(|error| Error::Key(error.to_string()))?;
        let pem = key.to_pkcs8_pem();
        state.create(KEY_FILE, &pem)?;
        Self::from_pem(&pem)
    }

    fn from_pem(pem: &str) -> Result<Self, Error> {
        let key = PrivateKey::from_pem(pem).map_err(|error| Error::Key(error.to_string()))?;
        let bad = |error: jsonwebtoken::errors::Error| Error::Key(error.to_string());
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key.to_pkcs8_pem().as_bytes()).map_err(bad)?,
            decoding: DecodingKey::from_ec_pem(key.public_key_pem().as_bytes()).map_err(bad)?,
        })
    }

    /// A token for that service account.
    ///
    /// # Errors
    /// When signing fails.
    pub fn issue(
        &self,
        namespace: &Namespace,
        service_account: &ServiceAccount,
        audience: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<String, Error> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: format!("{SUBJECT_PREFIX}{namespace}:{service_account}"),
            aud: vec![audience.into()],
            iat: now,
            nbf: now,
            exp: now.saturating_add(ttl.as_secs()),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.encoding)
            .map_err(|error| Error::Sign(error.to_string()))
    }

    /// Whom a token stands for.
    ///
    /// # Errors
    /// Why it stands for nobody; never holds the token.
    pub fn check(&self, token: &str, audiences: &[String]) -> Result<(Namespace, ServiceAccount), String> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.leeway = LEEWAY.as_secs();
        rules.validate_nbf = true;
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(audiences);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules)
            .map_err(|error| explain(&error, audiences))?
            .claims;
        let subject = claims.sub.strip_prefix(SUBJECT_PREFIX).and_then(|rest| rest.split_once(':'));
        let parsed =
            subject.and_then(|(namespace, name)| Some((namespace.parse().ok()?, name.parse().ok()?)));
        parsed.ok_or_else(|| format!("its subject {:?} is no service account", claims.sub))
    }
}

fn explain(error: &jsonwebtoken::errors::Error, audiences: &[String]) -> String {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "has expired: get a new one with `istiod token`".into(),
        ErrorKind::ImmatureSignature => "is not valid yet: compare the clocks of the two machines".into(),
        ErrorKind::InvalidAudience => format!("is for another audience; accepted: {}", audiences.join(", ")),
        ErrorKind::InvalidIssuer => format!("is of another issuer; accepted: {ISSUER}"),
        ErrorKind::InvalidSignature => "is not signed by this istiod (another state directory?)".into(),
        ErrorKind::InvalidAlgorithm => "is not signed with ES256".into(),
        _ => "is no token that istiod can read".into(),
    }
}

/// Takes tokens of an [`Issuer`].
#[derive(Debug)]
pub struct LocalToken {
    /// Signer of the tokens.
    pub issuer: Issuer,
    /// Audiences that are accepted.
    pub audiences: Vec<String>,
    /// Trust domain of the identities.
    pub trust_domain: TrustDomain,
}

#[tonic::async_trait]
impl Authenticator for LocalToken {
    fn name(&self) -> &'static str {
        "token"
    }

    async fn authenticate(&self, credentials: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let token = credentials.bearer?;
        let checked = self.issuer.check(token, &self.audiences).map(|(namespace, service_account)| Caller {
            identities: vec![SpiffeId {
                trust_domain: self.trust_domain.clone(),
                namespace,
                service_account,
            }],
            by: self.name(),
            pod: None,
        });
        Some(checked.map_err(Refusal::Unproven))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer() -> (tempfile::TempDir, Issuer) {
        let dir = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        (dir, issuer)
    }

    fn issue(issuer: &Issuer, audience: &str, ttl: Duration, at: SystemTime) -> String {
        issuer.issue(&"bookinfo".parse().unwrap(), &"reviews".parse().unwrap(), audience, ttl, at).unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_names_its_service_account() {
        let (dir, issuer) = issuer();
        let audiences = ["istio-ca".to_owned()];
        let token = issue(&issuer, "istio-ca", HOUR, SystemTime::now());
        let (namespace, name) = issuer.check(&token, &audiences).unwrap();
        assert_eq!((namespace.as_str(), name.as_str()), ("bookinfo", "reviews"));
        // The key lasts: a second start checks the same tokens.
        let again = Issuer::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        assert!(again.check(&token, &audiences).is_ok());
    }

    #[test]
    fn says_why_a_token_is_refused() {
        let (_dir, issuer) = issuer();
        let (_other_dir, other) = self::issuer();
        let audiences = ["istio-ca".to_owned()];
        let now = SystemTime::now();
        let good = issue(&issuer, "istio-ca", HOUR, now);
        let mut tampered = good.clone().into_bytes();
        let middle = good.find('.').unwrap() + 5;
        tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
        for (token, want) in [
            (issue(&issuer, "istio-ca", HOUR, now - 2 * HOUR), "expired"),
            (issue(&issuer, "istio-ca", 3 * HOUR, now + HOUR), "not valid yet"),
            (issue(&issuer, "somebody", HOUR, now), "another audience"),
            (issue(&other, "istio-ca", HOUR, now), "not signed by this istiod"),
            (String::from_utf8(tampered).unwrap(), "istiod"),
            ("garbage".into(), "no token"),
            ("eyJhbGciOiJub25lIn0.e30.".into(), "no token"),
        ] {
            let error = issuer.check(&token, &audiences).unwrap_err();
            assert!(error.contains(want), "{error} / {want}");
            assert!(!error.contains(&token));
        }
    }
}
