use proptest::prelude::*;

use super::*;
use crate::config::certificates::{ClientPair, Security};

/// A token that says when it begins and ends, in seconds.
fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

struct File {
    dir: tempfile::TempDir,
    token: Token,
    metrics: Arc<Metrics>,
}

impl File {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::default());
        let token = Token::new(dir.path().join("token"), metrics.clone());
        Self { dir, token, metrics }
    }

    fn with(text: &str) -> Self {
        let file = Self::new();
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.token.path, text).unwrap();
    }

    fn ask(&self, now: SystemTime) -> Result<Option<HeaderValue>, Expired> {
        self.token.authorization_at(&endpoint(None), now)
    }
}

fn endpoint(client: Option<ClientPair>) -> Endpoint {
    let security = Security::Tls { roots: PathBuf::new(), client };
    Endpoint { address: "a:1".into(), server_name: "a".into(), security, headers: Default::default() }
}

#[test]
fn tokens_are_trimmed_optional_and_never_shown() {
    let file = File::new();
    assert_eq!(file.ask(at(0)), Ok(None));
    file.write("abc\n");
    let header = file.ask(at(0)).unwrap().unwrap();
    assert_eq!(header.to_str().unwrap(), "Bearer abc");
    assert_eq!(format!("{header:?}"), "Sensitive");
    for nothing in ["", " \n", "a\nb"] {
        file.write(nothing);
        assert_eq!(file.ask(at(0)), Ok(None), "{nothing:?}");
    }
}

#[test]
fn an_expired_token_is_not_sent_and_a_new_one_is_seen_at_once() {
    let file = File::with(&jwt(r#"{"iat":1000,"exp":4600}"#));
    assert!(file.ask(at(4599)).unwrap().is_some());
    let text = file.ask(at(4602)).unwrap_err().to_string();
    assert!(text.contains("token") && text.contains("1970-01-01T01:16:40Z (2 s ago)"), "{text}");
    for now in [4600, 4700] {
        assert_eq!(file.ask(at(now)).unwrap_err().to_string(), text, "told once");
    }
    assert_eq!(file.metrics.identity.expired_tokens.get(), 3);
    assert!(file.metrics.render(at(4700)).contains("istio_agent_token_expiry_seconds -100.0\n"));
    file.write(&jwt(r#"{"iat":4700,"exp":9000}"#));
    assert!(file.ask(at(4700)).unwrap().is_some());
    assert!(file.metrics.render(at(4700)).contains("istio_agent_token_expiry_seconds 4300.0\n"));
}

#[test]
fn a_certificate_of_ones_own_takes_the_place_of_an_expired_token() {
    let file = File::with(&jwt(r#"{"exp":1}"#));
    let now = SystemTime::now();
    let (issuer, key) = pki::issuer::Issuer::self_signed("a", Duration::from_secs(3600), now).unwrap();
    let at = |name: &str| file.dir.path().join(name);
    let pair = ClientPair { chain: at("cert-chain.pem"), key: at("key.pem") };
    let endpoint = endpoint(Some(pair));
    assert!(file.token.authorization_at(&endpoint, now).is_err(), "no files");
    std::fs::write(at("cert-chain.pem"), issuer.root_pem()).unwrap();
    std::fs::write(at("key.pem"), key.as_str()).unwrap();
    assert_eq!(file.token.authorization_at(&endpoint, now), Ok(None));
    let later = now + Duration::from_secs(3601);
    assert!(file.token.authorization_at(&endpoint, later).is_err(), "the certificate is over too");
}

#[test]
fn soon_is_a_tenth_of_its_life_or_a_minute() {
    let is_soon =
        |claims: &str, left: u64| Life::of(&jwt(claims)).unwrap().is_over_soon(Duration::from_secs(left));
    assert!(!is_soon(r#"{"iat":0,"exp":36000}"#, 3601));
    assert!(is_soon(r#"{"iat":0,"exp":36000}"#, 3600));
    assert!(is_soon(r#"{"iat":0,"exp":300}"#, 60));
    assert!(!is_soon(r#"{"iat":0,"exp":300}"#, 61));
    assert!(!is_soon(r#"{"exp":300}"#, 61));
}

#[test]
fn only_jwts_with_an_end_have_one() {
    assert_eq!(Life::of("opaque"), None);
    assert_eq!(Life::of("a.b.c"), None);
    assert_eq!(Life::of(&jwt("{}")), None);
    assert_eq!(Life::of(&jwt(r#"{"exp":"soon"}"#)), None);
    assert_eq!(Life::of(&format!("{}.more", jwt(r#"{"exp":5}"#))), None);
    assert_eq!(Life::of(&jwt(r#"{"exp":5.0}"#)), Some(Life { start: None, end: at(5) }));
    assert_eq!(Life::of(&jwt(r#"{"exp":1e300}"#)), None);
    assert_eq!(Life::of(&jwt(r#"{"exp":-1}"#)), None);
}

proptest! {
    #[test]
    fn no_text_upsets_the_reader(text in ".*", claims in "\\{\"(exp|iat)\":[-0-9.eE]{0,30}\\}") {
        Life::of(&text);
        if let Some(life) = Life::of(&jwt(&claims)) {
            stamp(life.end);
            life.is_over_soon(Duration::ZERO);
        }
    }
}
