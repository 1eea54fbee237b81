//! Tokens of the cases, signed with keys made for this run.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use anyhow::Context as _;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// Name of the key that the policies know.
const KEY: &str = "k1";
/// End of the tokens that say no other: far away.
const FAR: u64 = 4_715_782_722;

/// Names of the tokens, and what they say.
const CLAIMS: &[(&str, &str)] = &[
    ("one", r#"{"iss":"one@issuer","sub":"sub-1","iat":1562182722,"groups":["group-1"]}"#),
    ("two", r#"{"iss":"two@issuer","sub":"sub-2","groups":["group-2"]}"#),
    ("expired", r#"{"iss":"one@issuer","sub":"sub-1","exp":1562182722}"#),
    ("early", r#"{"iss":"one@issuer","sub":"sub-1","nbf":4600000000}"#),
    ("unknown", r#"{"iss":"nobody@issuer","sub":"sub-1"}"#),
    ("aud", r#"{"iss":"one@issuer","sub":"sub-1","aud":"foo"}"#),
    ("audiences", r#"{"iss":"one@issuer","sub":"sub-1","aud":["foo","bar"]}"#),
    ("presenter", r#"{"iss":"one@issuer","sub":"sub-1","azp":"bar"}"#),
    (
        "nested1",
        r#"{"iss":"one@issuer","sub":"sub-1","nested":{"key1":["valueA","valueB"],"nested-2":{"key1":["valueA","valueB"]}}}"#,
    ),
    (
        "nested2",
        r#"{"iss":"one@issuer","sub":"sub-1","iat":1604008018,"nested":{"key2":"valueC","nested-2":{"key2":"valueC"}}}"#,
    ),
    (
        "slashes",
        r#"{"iss":"one@issuer","sub":"sub-1","one@issuer/simple":"valueC","one@issuer/nested":{"key1":"valueC","nested-2":{"key1":"valueC"}}}"#,
    ),
    ("permission", r#"{"iss":"two@issuer","sub":"sub-2","permission":"read write"}"#),
    ("scope", r#"{"iss":"two@issuer","sub":"sub-2","scope":"write read"}"#),
    ("custom", r#"{"iss":"two@issuer","sub":"sub-2","custom_scope":"admin user"}"#),
];

/// All of them.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The key that the policies know, as a JWKS.
    pub(crate) keys: String,
    all: BTreeMap<String, String>,
}

impl Tokens {
    fn new() -> anyhow::Result<Self> {
        let key = || -> anyhow::Result<EncodingKey> {
            let key = pki::key::PrivateKey::generate(pki::key::Algorithm::EcdsaP256)?;
            Ok(EncodingKey::from_ec_pem(key.to_pkcs8_pem().as_bytes())?)
        };
        let (known, other) = (key()?, key()?);
        let mut jwk = Jwk::from_encoding_key(&known, Algorithm::ES256)?;
        jwk.common.key_id = Some(KEY.into());
        let header = Header { kid: Some(KEY.into()), ..Header::new(Algorithm::ES256) };
        let mut all = BTreeMap::new();
        for (name, claims) in CLAIMS {
            let mut claims: Value = serde_json::from_str(claims)?;
            if claims.get("exp").is_none() {
                claims["exp"] = json!(FAR);
            }
            all.insert((*name).to_owned(), encode(&header, &claims, &known)?);
            if *name == "one" {
                all.insert("forged".into(), encode(&header, &claims, &other)?);
            }
        }
        // Signed by nobody, which its head says.
        let one = &all["one"];
        let payload = one.split('.').nth(1).context("a payload")?;
        all.insert("none".into(), format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}."));
        Ok(Self { keys: serde_json::to_string(&JwkSet { keys: vec![jwk] })?, all })
    }

    /// The text with `{NAME}` replaced by that token, and `{NAME.payload}` by
    /// its middle part.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, token) in &self.all {
            text = text.replace(&format!("{{{name}}}"), token);
            if let Some(payload) = token.split('.').nth(1) {
                text = text.replace(&format!("{{{name}.payload}}"), payload);
            }
        }
        text
    }
}

/// The tokens of this run.
pub(crate) fn tokens() -> anyhow::Result<&'static Tokens> {
    static TOKENS: OnceLock<Result<Tokens, String>> = OnceLock::new();
    let tokens = TOKENS.get_or_init(|| Tokens::new().map_err(|error| format!("{error:#}")));
    tokens.as_ref().map_err(|error| anyhow::anyhow!("tokens: {error}"))
}
