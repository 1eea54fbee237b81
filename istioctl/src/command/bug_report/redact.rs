//! What is secret is taken out of whatever is in the report: keys, tokens,
//! passwords, wherever they stand.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::{Captures, Regex};
use serde_json::Value;

/// Stands in the place of what was taken out.
pub(super) const REMOVED: &str = "[redacted]";
/// Annotations that hold a whole object once more.
const COPIES: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/last-applied-configuration",
];
/// Ends of names, letters and digits only, whose values are secret.
const SECRET: [&str; 18] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secretkey",
    "clientsecret",
    "hmacsecret",
    "privatekey",
    "apikey",
    "accesskey",
    "token",
    "credentials",
    "authorization",
    "cookie",
    "caheader",
    "xdsheader",
    "sessionkey",
    "encryptionkey",
];
/// Fields of Envoy's data sources that hold what they are of.
const INLINE: [&str; 4] = ["inline_string", "inlineString", "inline_bytes", "inlineBytes"];
/// Names that end so and whose values only name something.
const NAMES: [&str; 3] = ["pullsecret", "imagepullsecret", "nexttoken"];

/// A pattern that is known to be one.
#[expect(clippy::expect_used, reason = "the patterns are constant")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is constant")
}

/// Private keys as PEM, also with the ends of their lines written as `\n`.
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?s)-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)")
});
/// What may be PEM once more in base64.
static ENCODED: LazyLock<Regex> = LazyLock::new(|| pattern(r"LS0tLS1CRUdJTi[A-Za-z0-9+/]+={0,2}"));
/// JSON web tokens.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"));
/// Headers that prove who calls.
static HEADER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(bearer|basic|digest|negotiate)(\s+)[A-Za-z0-9+/=._~-]{8,}"));
/// Passwords and the like in running text and in URLs.
static PAIR: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)\b([a-z0-9_.-]*(?:password|passwd|passphrase|api[_-]?key|access[_-]?key|client[_-]?secret|secret[_-]?key|private[_-]?key|(?:access|refresh|id|auth|session|bearer)[_-]?token))(\\?["']?\s*[:=]\s*\\?["']?)([^\s"',;&<>{}\[\]\\]+)"#,
    )
});
/// Credentials in front of a host.
static USER: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]+:[^\s/@]+@"));

/// A text without what is secret.
pub(super) fn text(text: &str) -> String {
    let mut clean = Cow::Borrowed(text);
    let mut replace = |pattern: &Regex, with: &dyn Fn(&Captures<'_>) -> String| {
        if let Cow::Owned(next) = pattern.replace_all(&clean, |found: &Captures<'_>| with(found)) {
            clean = Cow::Owned(next);
        }
    };
    replace(&KEY, &|found| format!("-----BEGIN {}PRIVATE KEY----- {REMOVED}", &found[1]));
    replace(&ENCODED, &|found| {
        // A cut is no base64 as a whole: what is there of it is looked at.
        let whole = &found[0].trim_end_matches('=')[..found[0].trim_end_matches('=').len() / 4 * 4];
        let decoded = STANDARD.decode(whole).unwrap_or_default();
        let is_key = String::from_utf8_lossy(&decoded).contains("PRIVATE KEY");
        if is_key { REMOVED.to_owned() } else { found[0].to_owned() }
    });
    replace(&TOKEN, &|_| REMOVED.to_owned());
    replace(&HEADER, &|found| format!("{}{}{REMOVED}", &found[1], &found[2]));
    replace(&PAIR, &|found| format!("{}{}{REMOVED}", &found[1], &found[2]));
    replace(&USER, &|found| format!("{}{REMOVED}@", &found[1]));
    clean.into_owned()
}

/// An object without what is secret.
pub(super) fn value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in COPIES {
                fields.remove(name);
            }
            // `{name: PASSWORD, value: x}`, `{header: {key: authorization, value: x}}`.
            let named =
                ["name", "key", "headerName", "header"].iter().find_map(|field| fields.get(*field)?.as_str());
            if named.is_some_and(is_secret) {
                for field in ["value", "rawValue"] {
                    if let Some(value) = fields.get_mut(field) {
                        hide(value);
                    }
                }
            }
            for (name, value) in fields {
                if is_secret(name) {
                    hide(value);
                } else {
                    self::value(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::String(said) => *said = text(said),
        _ => {}
    }
}

/// A text is hidden; of what is below a name that sounds secret, what holds the secret itself.
fn hide(value: &mut Value) {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => REMOVED.clone_into(text),
        Value::Object(fields) => {
            for (name, value) in fields {
                if INLINE.contains(&name.as_str()) || is_secret(name) {
                    hide(value);
                } else {
                    self::value(value);
                }
            }
        }
        other => self::value(other),
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    SECRET.iter().any(|end| plain.ends_with(end)) && !NAMES.contains(&plain.as_str())
}

/// A Secret of Kubernetes: what it is called, and what it has.
pub(super) fn secret(object: &mut Value) {
    for part in ["data", "stringData"] {
        for (_, value) in object.get_mut(part).and_then(Value::as_object_mut).into_iter().flatten() {
            *value = REMOVED.into();
        }
    }
    value(object);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtYXJrZXIifQ.c2lnbmF0dXJlLW1hcmtlcg";
    const PEM: &str = "-----BEGIN RSA PRIVATE KEY-----\nTUFSS0VS\n-----END RSA PRIVATE KEY-----";

    #[test]
    fn keys_and_tokens_are_found_wherever_they_stand() {
        let encoded = STANDARD.encode(format!("{PEM}\n"));
        for (text_, hidden) in [
            (format!("key: {PEM} end"), "TUFSS0VS"),
            (PEM.replace('\n', "\\n"), "TUFSS0VS"),
            ("-----BEGIN PRIVATE KEY-----\nTUFSS0VS".to_owned(), "TUFSS0VS"),
            (format!("data: {encoded}"), &encoded[40..]),
            (format!("\"{}\"", &encoded[..encoded.len() - 7]), &encoded[40..60]),
            (format!("got {JWT}, refused"), "c2lnbmF0"),
            ("authorization: Bearer abc.def-123456".to_owned(), "abc.def"),
            ("Authorization: Basic dXNlcjpwYXNz".to_owned(), "dXNlcjpwYXNz"),
            ("https://user:hunter2@host/x".to_owned(), "hunter2"),
            ("db_password=hunter2 next".to_owned(), "hunter2"),
            ("{\"apiKey\": \"hunter2\"}".to_owned(), "hunter2"),
            ("?access_token=hunter2&x=1".to_owned(), "hunter2"),
            ("accessToken: hunter2\nx: 1".to_owned(), "hunter2"),
        ] {
            let clean = text(&text_);
            assert!(!clean.contains(hidden) && clean.contains(REMOVED), "{text_} became {clean}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        let certificate =
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", "QUJD".repeat(9));
        for same in [
            certificate.as_str(),
            &STANDARD.encode(&certificate),
            "2026-11-25T09:00:00Z\tinfo\tads\tpush\ttype=CDS proxy=web-0.shop",
            "tokens: 5; basic auth is off; the secretName of a gateway",
            "https://istiod.istio-system.svc:15012/x@y",
            "outbound|9080||reviews.default.svc.cluster.local",
        ] {
            assert_eq!(text(same), same);
        }
    }

    #[test]
    fn objects_lose_what_their_names_say_is_secret() {
        let mut object = json!({
            "metadata": {"annotations": {COPIES[0]: "{\"a\": 1}", "kept": "yes"}},
            "spec": {
                "containers": [{
                    "env": [{"name": "DB_PASSWORD", "value": "marker"}, {"name": "MODE", "value": "fast"}],
                    "args": ["--token=marker"],
                }],
                "automountServiceAccountToken": true,
                "volumes": [{"secret": {"secretName": "web"}}],
                "clientSecret": "marker",
                "headers": [{"header": {"key": "Authorization", "value": "marker"}}],
                "private_key": {"inline_bytes": "bWFya2Vy"},
                "credentialName": "web-cert",
                "mesh": format!("defaultConfig:\n  proxyMetadata:\n    API_KEY: {}\n", "marker"),
            },
        });
        // As a flag it is a pair in running text.
        object["spec"]["containers"][0]["args"][0] = "--auth-token=marker".into();
        value(&mut object);
        let all = object.to_string();
        assert!(!all.contains("marker") && !all.contains("bWFya2Vy") && !all.contains(COPIES[0]), "{all}");
        for kept in ["\"kept\":\"yes\"", "\"fast\"", "web-cert", "\"secretName\":\"web\"", "true"] {
            assert!(all.contains(kept), "no {kept}: {all}");
        }
    }

    #[test]
    fn a_secret_keeps_the_names_of_its_parts() {
        let mut object = json!({
            "kind": "Secret", "metadata": {"name": "web"}, "type": "kubernetes.io/tls",
            "data": {"tls.crt": "bWFya2Vy", "tls.key": "bWFya2Vy"}, "stringData": {"x": "marker"},
        });
        secret(&mut object);
        let all = object.to_string();
        assert!(!all.contains("arker") && !all.contains("bWFya2Vy") && all.contains("tls.key"), "{all}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_cleaned_and_cleaning_again_changes_nothing(noise in ".{0,200}") {
            let clean = text(&noise);
            prop_assert_eq!(&text(&clean), &clean);
        }

        #[test]
        fn a_key_is_found_between_anything(before in "[ -~\n]{0,40}", after in "[ -~\n]{0,40}") {
            let clean = text(&format!("{before}{PEM}{after}"));
            prop_assert!(!clean.contains("TUFSS0VS"), "{}", clean);
        }
    }
}
