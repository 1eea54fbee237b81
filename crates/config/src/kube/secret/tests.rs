use std::time::{Duration, SystemTime};

use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};

use super::*;
use crate::Severity;
use crate::validate::Checker;

struct Material {
    chain: String,
    key: String,
    roots: String,
}

fn material() -> Material {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let (issuer, _) = Issuer::self_signed("cluster.local", day, now).unwrap();
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let san = [San::Dns("shop.example".into())];
    let issued = issuer.issue(&Csr::of_key(&key).unwrap(), &san, day, now).unwrap();
    Material {
        chain: pki::certificate::join_pem(&issued[..1]),
        key: key.to_pkcs8_pem().to_string(),
        roots: issuer.root_pem().to_owned(),
    }
}

fn secret(kind: &str, values: &[(&str, &str)]) -> Secret {
    let encoded = values.iter().map(|(name, value)| ((*name).to_owned(), STANDARD.encode(value)));
    Secret { secret_type: kind.into(), data: encoded.collect(), ..Secret::default() }
}

fn findings(secret: Secret) -> Vec<(Severity, String)> {
    let mut checker = Checker::default();
    crate::Spec::Secret(Box::new(secret)).check(&mut checker);
    checker.findings.into_iter().map(|finding| (finding.severity, finding.field)).collect()
}

#[test]
fn both_forms_of_names_are_read() {
    let Material { chain, key, roots } = material();
    let tls = secret(TLS_TYPE, &[("tls.crt", &chain), ("tls.key", &key), ("ca.crt", &roots)]);
    let generic = secret("Opaque", &[("cert", &chain), ("key", &key), ("cacert", &roots)]);
    for secret in [tls, generic] {
        let pair = secret.pair().unwrap();
        assert_eq!((&pair.chain[..], &pair.key[..]), (chain.as_bytes(), key.as_bytes()));
        assert_eq!(secret.roots().unwrap().certificates, roots.as_bytes());
        assert!(findings(secret).is_empty());
    }
}

#[test]
fn plain_values_come_before_encoded_ones() {
    let mut secret = secret("Opaque", &[("a", "old")]);
    secret.string_data.insert("a".into(), "new".into());
    assert_eq!(secret.value("a").unwrap(), b"new");
    secret.data.insert("b".into(), "bmV3\nbGluZQ==\n".into());
    assert_eq!(secret.value("b").unwrap(), b"newline");
}

#[test]
fn a_broken_secret_for_tls_is_refused_and_any_other_is_told() {
    let (Material { chain, key, .. }, other) = (material(), material());
    for (values, field) in [
        (vec![("tls.crt", "x"), ("tls.key", &*key)], "data.tls.crt"),
        (vec![("tls.crt", &*chain), ("tls.key", "x")], "data.tls.key"),
        (vec![("tls.crt", &*chain), ("tls.key", &*other.key)], "data.tls.key"),
        (vec![("tls.crt", &*chain), ("tls.key", "")], "data.tls.key"),
        (vec![("tls.crt", &*chain), ("tls.key", &*key), ("ca.crt", "x")], "data.ca.crt"),
    ] {
        let found = |kind| findings(secret(kind, &values));
        assert_eq!(found(TLS_TYPE), [(Severity::Error, field.to_owned())], "{field}");
        assert_eq!(found("Opaque"), [(Severity::Warning, field.to_owned())], "{field}");
    }
    assert_eq!(findings(secret(TLS_TYPE, &[("x", "y")])), [(Severity::Error, String::new())]);
    assert!(findings(secret("Opaque", &[("password", "y")])).is_empty());
    let mut broken = secret("Opaque", &[]);
    broken.data.insert("x".into(), "?".into());
    assert_eq!(findings(broken), [(Severity::Error, "data.x".to_owned())]);
}

#[test]
fn nothing_shows_a_value() {
    let Material { chain, key, .. } = material();
    let good = secret(TLS_TYPE, &[("tls.crt", &chain), ("tls.key", &key)]);
    let bad = secret(TLS_TYPE, &[("tls.crt", "geheim"), ("tls.key", "geheim")]);
    let texts = [format!("{good:?} {:?}", good.pair()), format!("{bad:?} {:?}", bad.pair())];
    for text in texts {
        assert!(text.contains("tls.key"), "{text}");
        assert!(!text.contains("PRIVATE") && !text.contains("LS0t") && !text.contains("geheim"), "{text}");
    }
}

#[test]
fn reading_does_not_change_what_it_is() {
    let Material { chain, key, .. } = material();
    let one = secret(TLS_TYPE, &[("tls.crt", &chain), ("tls.key", &key)]);
    let other = one.clone();
    one.pair().unwrap();
    assert_eq!(one, other);
}
