//! Key sets of issuers of tokens (RFC 7517), as Envoy reads them: it refuses a
//! whole listener for a set that it cannot use.

mod curve;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value};

use crate::json::Reader;
use curve::Curve;

/// Deepest nesting; Envoy's parser ends at 100.
const DEPTH: usize = 64;

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a key set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON, or JSON that parsers read differently.
    #[error("is not JSON: {0}")]
    Json(String),
    /// No list of keys.
    #[error("has no list \"keys\"")]
    NoKeys,
    /// An empty list.
    #[error("has no key")]
    Empty,
    /// No key can check a token.
    #[error("has no key that can be used; the first one {0}")]
    Unusable(&'static str),
}

/// Checks a key set; the answer is the positions of keys that are not public.
///
/// # Errors
/// When no token could be checked with it.
pub fn check(text: &str) -> Result<Vec<usize>, Error> {
    let value = parse(text).map_err(|error| Error::Json(error.to_string()))?;
    let Value::Object(set) = value else { return Err(Error::NoKeys) };
    let Some(Value::Array(keys)) = set.get("keys") else { return Err(Error::NoKeys) };
    let mut first = None;
    let mut is_usable = false;
    for key in keys {
        match usable(key) {
            Ok(()) => is_usable = true,
            Err(why) => first = first.or(Some(why)),
        }
    }
    if !is_usable {
        return Err(first.map_or(Error::Empty, Error::Unusable));
    }
    let is_private = |key: &Value| key.get("d").is_some() || key.get("kty").is_some_and(|kty| kty == "oct");
    Ok(keys.iter().enumerate().filter(|(_, key)| is_private(key)).map(|(index, _)| index).collect())
}

/// Reads a text that all parsers read alike.
fn parse(text: &str) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Reader::strict(DEPTH).deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Whether Envoy can check a token with a key.
fn usable(key: &Value) -> Result<(), &'static str> {
    let Value::Object(key) = key else { return Err("is no object") };
    let algorithm = text(key, "alg");
    match text(key, "kty") {
        Some("RSA") => rsa(key, algorithm),
        Some("EC") => elliptic(key, algorithm),
        Some("OKP") => {
            let is_edwards =
                text(key, "crv") == Some("Ed25519") && algorithm.is_none_or(|alg| alg == "EdDSA");
            let is_whole = bytes(key, "x").is_some_and(|x| x.len() == 32);
            if is_edwards && is_whole { Ok(()) } else { Err("is no key of Ed25519") }
        }
        Some("oct") => {
            let is_known = algorithm.is_none_or(|alg| ["HS256", "HS384", "HS512"].contains(&alg));
            let has_secret = bytes(key, "k").is_some_and(|k| !k.is_empty());
            if is_known && has_secret { Ok(()) } else { Err("is no key of HS256, HS384 or HS512") }
        }
        Some(_) => Err("has a kty other than RSA, EC, OKP and oct"),
        None => Err("has no kty"),
    }
}

fn rsa(key: &Map<String, Value>, algorithm: Option<&str>) -> Result<(), &'static str> {
    if algorithm.is_some_and(|alg| !alg.starts_with("RS") && !alg.starts_with("PS")) {
        return Err("is an RSA key for another algorithm");
    }
    let (Some(modulus), Some(exponent)) = (bytes(key, "n"), bytes(key, "e")) else {
        return Err("is an RSA key without n or e");
    };
    let size = bits(&modulus);
    if !(512..=16384).contains(&size) || !is_odd(&modulus) {
        return Err("is an RSA key with an n of a wrong size");
    }
    if !(2..=32).contains(&bits(&exponent)) || !is_odd(&exponent) {
        return Err("is an RSA key with a wrong e");
    }
    Ok(())
}

fn elliptic(key: &Map<String, Value>, algorithm: Option<&str>) -> Result<(), &'static str> {
    let of_algorithm = match algorithm {
        None => None,
        Some("ES256") => Some("P-256"),
        Some("ES384") => Some("P-384"),
        Some("ES512") => Some("P-521"),
        Some(_) => return Err("is an EC key for another algorithm"),
    };
    let name = text(key, "crv").or(of_algorithm).ok_or("is an EC key without crv")?;
    if of_algorithm.is_some_and(|other| other != name) {
        return Err("is an EC key whose alg does not fit its crv");
    }
    let curve = Curve::new(name).ok_or("is an EC key of another curve than P-256, P-384 and P-521")?;
    let (Some(x), Some(y)) = (bytes(key, "x"), bytes(key, "y")) else {
        return Err("is an EC key without x or y");
    };
    if curve.has(&x, &y) { Ok(()) } else { Err("is an EC key with a point that is not on its curve") }
}

fn text<'a>(key: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    key.get(name).and_then(Value::as_str)
}

fn bytes(key: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64URL.decode(text(key, name)?).ok()
}

/// Size of a number of which the first byte is the highest.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = &number[zeros..];
    rest.first().map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize)
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|last| last % 2 == 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "mD4xN-Fj4TVpI5X2E8oeXJuE_dOuMrfmQEVnr2QsiWU";
    const Y: &str = "aAWrZwhJhEllOwjetSmd_pZACAOY2nI8tPd6p3wsY2s";

    fn encode(bytes: &[u8]) -> String {
        BASE64URL.encode(bytes)
    }

    fn with(keys: &Value) -> Result<Vec<usize>, Error> {
        check(&json!({"keys": keys}).to_string())
    }

    #[test]
    fn takes_what_envoy_takes() {
        let modulus = encode(&[vec![0x80], vec![0; 126], vec![1]].concat());
        let ec = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
        assert_eq!(with(&json!([ec])), Ok(vec![]));
        assert_eq!(with(&json!([{"kty": "EC", "alg": "ES256", "x": X, "y": Y}])), Ok(vec![]));
        assert_eq!(with(&json!([{"kty": "RSA", "n": modulus, "e": "AQAB", "kid": 3}])), Ok(vec![]));
        assert_eq!(with(&json!([5, {"kty": "zz"}, ec])), Ok(vec![]));
        assert_eq!(with(&json!([ec, {"kty": "oct", "k": "AQAB"}])), Ok(vec![1]));
        let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&[1; 32]), "d": "AQAB"});
        assert_eq!(with(&json!([okp])), Ok(vec![0]));
    }

    #[test]
    fn refuses_what_envoy_refuses() {
        let modulus = encode(&[vec![0x80], vec![0; 126], vec![1]].concat());
        for (key, why) in [
            (json!({"kty": "EC", "crv": "P-256", "x": X, "y": X}), "point"),
            (json!({"kty": "EC", "crv": "P-256", "alg": "ES384", "x": X, "y": Y}), "does not fit"),
            (json!({"kty": "EC", "crv": "P-256", "alg": "none", "x": X, "y": Y}), "algorithm"),
            (json!({"kty": "EC", "crv": "secp256k1", "x": X, "y": Y}), "curve"),
            (json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}), "size"),
            (json!({"kty": "RSA", "n": encode(&[0x80; 128]), "e": "AQAB"}), "size"),
            (json!({"kty": "RSA", "n": modulus, "e": "AQ"}), "wrong e"),
            (json!({"kty": "RSA", "n": modulus, "e": "AQAB", "alg": "ES256"}), "algorithm"),
            (json!({"kty": "RSA", "n": modulus.replace('A', "+"), "e": "AQAB"}), "without n"),
            (json!({"kty": "OKP", "crv": "Ed448", "x": encode(&[1; 32])}), "Ed25519"),
            (json!({"kty": "oct", "k": ""}), "HS256"),
            (json!({"kty": 5}), "no kty"),
            (json!(5), "no object"),
        ] {
            let error = with(&json!([key])).unwrap_err();
            assert!(matches!(error, Error::Unusable(found) if found.contains(why)), "{key}: {error}");
        }
        assert_eq!(with(&json!([])), Err(Error::Empty));
        assert_eq!(with(&json!({})), Err(Error::NoKeys));
        assert_eq!(check("[]"), Err(Error::NoKeys));
        let one = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y}).to_string();
        for text in [
            String::new(),
            "<html>".into(),
            format!("{{\"keys\": [], \"keys\": [{one}]}}"),
            format!("{{\"keys\": [{}]}}", one.replacen('{', "{\"kty\": \"EC\", ", 1)),
            format!("{{\"keys\": [{one}]}} x"),
            format!("{{\"keys\": [{one}], \"a\": 1e999}}"),
            format!("{{\"keys\": [{one}], \"a\": {}{}}}", "[".repeat(100), "]".repeat(100)),
        ] {
            assert!(matches!(check(&text), Err(Error::Json(_))), "{text}");
        }
    }
}
