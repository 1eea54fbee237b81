use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use pki::key::{Algorithm as KeyAlgorithm, PrivateKey};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://issuer.example";

/// A key of the issuer: what signs, and what it publishes of it.
fn key(id: &str) -> (EncodingKey, Value) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let encoding = EncodingKey::from_ec_pem(key.to_pkcs8_pem().as_bytes()).unwrap();
    let pem = key.public_key_pem();
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
    // The last 64 bytes are the point.
    let (x, y) = der[der.len() - 64..].split_at(32);
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": text(x), "y": text(y)});
    (encoding, public)
}

fn seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "system:serviceaccount:shop:cart", "aud": ["istio-ca"], "exp": seconds() + 600})
}

fn token(key: &EncodingKey, id: &str, claims: &Value) -> String {
    let header = Header { kid: Some(id.into()), ..Header::new(Algorithm::ES256) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// An authenticator whose keys are told by the sender.
fn with_keys(keys: &[&Value]) -> (watch::Sender<Keys>, Oidc) {
    let (tell, keys) = watch::channel(known(keys));
    let rule = Rule::parse(&json!({"issuer": ISSUER, "audiences": ["istio-ca", "x"]}).to_string()).unwrap();
    (tell, Oidc { rule, keys, ask: Arc::default(), mesh: watch::channel(Mesh::default()).1 })
}

fn known(keys: &[&Value]) -> Keys {
    let set = keys.iter().map(|&key| serde_json::from_value::<Jwk>(key.clone()).unwrap()).collect();
    Keys { set, asked: Some(Instant::now()), failure: None }
}

async fn ask(oidc: &Oidc, token: &str) -> Result<String, Refusal> {
    let credentials = Credentials { bearer: Some(token), ..Credentials::default() };
    let caller = oidc.authenticate(&credentials).await.unwrap()?;
    Ok(caller.identities[0].to_string())
}

#[test]
fn a_rule_that_no_token_could_fit_is_refused() {
    let full = r#"{"issuer": "a", "jwks_uri": "https://b.example/keys", "audiences": ["c"], "more": 1}"#;
    assert_eq!(Rule::parse(full).unwrap().uri(), "https://b.example/keys");
    let other = r#"{"issuer": "https://a.example/", "audiences": ["c"]}"#;
    assert_eq!(Rule::parse(other).unwrap().uri(), "https://a.example/.well-known/openid-configuration");
    assert!(Rule::parse(r#"{"issuer": "a", "jwksUri": "http://b", "audiences": ["c"]}"#).is_ok());
    for (text, want) in [
        ("nonsense", "expected JSON"),
        (r#"{"audiences": ["c"]}"#, "issuer is missing"),
        (r#"{"issuer": "https://a"}"#, "audiences is missing"),
        (r#"{"issuer": "a", "audiences": ["c"]}"#, "not an http or https URI"),
    ] {
        assert!(Rule::parse(text).unwrap_err().contains(want), "{text}");
    }
}

#[tokio::test]
async fn a_token_of_the_issuer_is_its_service_account() {
    let (signs, public) = key("1");
    let (_tell, oidc) = with_keys(&[&public]);
    let good = token(&signs, "1", &claims());
    assert_eq!(ask(&oidc, &good).await.unwrap(), "spiffe://cluster.local/ns/shop/sa/cart");
    let mut one = claims();
    one["aud"] = "x".into();
    assert!(ask(&oidc, &token(&signs, "1", &one)).await.is_ok());
    assert!(oidc.authenticate(&Credentials::default()).await.is_none());
}

#[tokio::test]
async fn every_other_token_is_refused_with_the_reason() {
    let (signs, public) = key("1");
    let (foreign, _) = key("1");
    let (_tell, oidc) = with_keys(&[&public]);
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        token(&signs, "1", &claims)
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        token(&signs, "1", &claims)
    };
    let secret = EncodingKey::from_secret(public.to_string().as_bytes());
    for (token, want) in [
        (with("iss", "https://other.example".into()), "of issuer \"https://other.example\""),
        (with("aud", json!(["api"])), "another audience; accepted: istio-ca, x"),
        (with("exp", (seconds() - 60).into()), "has expired"),
        (with("nbf", (seconds() + 60).into()), "not valid yet"),
        (with("sub", "system:node:a".into()), "no service account"),
        (with("sub", "system:serviceaccount:a:b:c".into()), "no service account"),
        (without("exp"), "lacks one of"),
        (without("aud"), "lacks one of"),
        (token(&foreign, "1", &claims()), "not signed with a key"),
        (jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &secret).unwrap(), "HS256"),
        ("eyJhbGciOiJub25lIn0.e30.".into(), "no JWT"),
        ("garbage".into(), "no JWT"),
    ] {
        let refusal = ask(&oidc, &token).await.unwrap_err();
        assert!(
            matches!(refusal, Refusal::Unproven(_)) && refusal.to_string().contains(want),
            "{refusal} / {want}"
        );
        assert!(!refusal.to_string().contains(&token));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_asked_for_but_not_by_every_token() {
    let ((old, first), (new, second)) = (key("1"), key("2"));
    let (tell, oidc) = with_keys(&[&first]);
    let good = token(&new, "2", &claims());
    // The issuer was asked a moment ago.
    assert!(matches!(ask(&oidc, &good).await, Err(Refusal::Unproven(_))));
    tokio::time::advance(ASK_AGAIN).await;
    let asked = oidc.ask.clone();
    let answer = async {
        asked.notified().await;
        tell.send_replace(known(&[&first, &second]));
    };
    let (caller, ()) = tokio::join!(ask(&oidc, &good), answer);
    assert!(caller.is_ok());
    assert!(ask(&oidc, &token(&old, "1", &claims())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_keys_a_token_is_not_called_wrong() {
    let (signs, _) = key("1");
    let (_tell, oidc) = with_keys(&[]);
    tokio::time::advance(ASK_AGAIN).await;
    let refusal = ask(&oidc, &token(&signs, "1", &claims())).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal}");
}
