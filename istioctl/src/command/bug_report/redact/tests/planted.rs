//! A secret is planted wherever one may be, inside of anything; it is never found again,
//! and what is beside it always is.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// What is beside the secret.
const KEPT: &str = "reviews.shop.svc.cluster.local";

/// Fields, variables, flags and headers whose values are secret.
const NAMES: [&str; 16] = [
    "password",
    "apiKey",
    "client_secret",
    "DB_PASS",
    "x-api-key",
    "authorization",
    "cookie",
    "token",
    "passphrase",
    "SIGNING_KEY",
    "client-key-data",
    "connectionString",
    "credentials",
    "session_ticket_keys",
    "tokens",
    "MYSQL_PWD",
];

/// A secret: letters that occur in nothing else, and signs that may end it too early.
fn secret() -> impl Strategy<Value = String> {
    ("Zq[A-Za-z0-9]{6}", "[{,;:/!@$&]{0,2}", "[A-Za-z0-9]{4}Qz").prop_map(|(a, b, c)| format!("{a}{b}{c}"))
}

/// Parts of a secret that tell enough of it.
fn parts(secret: &str) -> [&str; 2] {
    [&secret[..8], &secret[secret.len() - 6..]]
}

fn name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(NAMES.to_vec())
}

/// An object with a secret, in each way that it may be in one.
fn planted() -> impl Strategy<Value = (String, Value)> {
    (secret(), name(), 0_usize..19).prop_map(|(secret, name, way)| {
        let value = match way {
            0 => json!({ name: secret }),
            1 => json!({ name: [secret] }),
            2 => json!({ name: {"value": secret} }),
            3 => json!({ name: [{"key": secret, "client": "a"}] }),
            4 => json!({"headers": {name: {"exact": secret}}}),
            5 => json!({"name": name, "string_match": {"exact": secret}}),
            6 => json!({"header": {"key": name, "value": secret}}),
            7 => json!({"when": [{"key": format!("request.headers[{name}]"), "values": [secret]}]}),
            8 => json!({"env": [{"name": "ANYTHING", "value": secret}]}),
            9 => json!({"args": [format!("--{name}={secret}")]}),
            10 => json!({"args": [format!("--{name}"), secret]}),
            11 => json!({"kind": "List", "items": [{"kind": "Secret", "data": {"db": secret}}]}),
            12 => json!({"kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"redis.conf": format!("requirepass {secret}")}}),
            13 => json!({"annotations": {"some/original": json!({"data": {"x": secret}}).to_string()}}),
            14 => json!({"users": {"inline_string": format!("u:{secret}")}}),
            15 => json!({"keys": [{"kty": "oct", "k": secret}]}),
            16 => json!({"auths": {"registry": {"auth": secret}}}),
            17 => json!({"headerName": name, "key": secret}),
            _ => json!({"proxyMetadata": {"VAULT": secret}}),
        };
        (secret, value)
    })
}

/// A line of text with a secret.
fn line() -> impl Strategy<Value = (String, String)> {
    ("Zq[A-Za-z0-9]{10}Qz", name(), 0_usize..18).prop_map(|(secret, name, way)| {
        let user = STANDARD.encode(format!("a:{secret}"));
        let login = STANDARD.encode(json!({"auths": {"r": {"auth": secret}}}).to_string());
        let line = match way {
            0 => format!("{name}={secret} done"),
            1 => format!("{name}: {secret}"),
            2 => format!("{name}=\"{secret} and more\""),
            3 => format!("{{\\\"{name}\\\":\\\"{secret}\\\"}}"),
            4 => format!("'{name}', '{secret}'"),
            5 => format!("--{name} {secret}"),
            6 => format!("GET /cb?{name}={secret}&x=1 HTTP/1.1"),
            7 => format!("GET /cb?a=b&X-Amz-Signature={secret} HTTP/1.1"),
            8 => format!("GET /cb?sig={secret}"),
            9 => format!("redis://:{secret}@redis:6379"),
            10 => format!("https://{secret}@host/x"),
            11 => format!("authorization: Bearer {secret}"),
            12 => format!("map[Authorization:[Bearer {secret}] Host:[a]]"),
            13 => format!("Set-Cookie: sid={secret}; Path=/"),
            14 => format!("2026-11-26T00:00:00Z\tdebug\tgot {}", json!({ name: secret, "a": [1] })),
            15 => format!("sent Basic {user}, and nothing else"),
            16 => format!("read {login} at once"),
            _ => format!("{name} = '{secret}'"),
        };
        let hidden = match way {
            15 => user,
            16 => login,
            _ => secret,
        };
        (hidden, line)
    })
}

/// What texts may be in: as they are, in a string of JSON, of YAML, and again.
fn wrapped(value: &Value, ways: &[usize]) -> Value {
    let mut value = value.clone();
    for way in ways {
        value = match way {
            0 => json!({"spec": {"list": [1, value, "a"]}, "host": KEPT}),
            1 => json!({"config": value.to_string(), "host": KEPT}),
            2 => json!({"config": rendered(&json!({"a": 1, "b": value})), "host": KEPT}),
            3 => json!({"config": serde_json::to_string_pretty(&value).unwrap(), "host": KEPT}),
            _ => Value::Object(Map::from_iter([
                ("items".to_owned(), json!([value])),
                ("host".to_owned(), KEPT.into()),
            ])),
        };
    }
    value
}

fn ways() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0_usize..5, 0..4)
}

proptest! {
    #[test]
    fn a_secret_in_an_object_is_never_found_again((secret, value) in planted(), ways in ways()) {
        let mut all = wrapped(&json!({"here": value, "host": KEPT}), &ways);
        let page = redactor().text(&all.to_string());
        redactor().object(&mut all);
        let object = all.to_string();
        for clean in [&page, &object] {
            for part in parts(&secret) {
                prop_assert!(!clean.contains(part), "{} is in {}", part, clean);
            }
            prop_assert!(clean.matches(KEPT).count() > ways.len(), "{}", clean);
        }
    }

    #[test]
    fn a_secret_in_a_file_of_objects_is_never_found_again((secret, value) in planted(), ways in ways(), cut in 0_usize..3) {
        let mut all = rendered(&wrapped(&json!({"here": value}), &ways));
        // What cannot be read hides it, too.
        if cut == 0 && ways.is_empty() {
            all += "broken: [\n";
        }
        let clean = redactor().documents(&format!("host: {KEPT}\n---\n{all}---\nlast: {KEPT}\n"));
        for part in parts(&secret) {
            prop_assert!(!clean.contains(part), "{} is in {}", part, clean);
        }
        prop_assert!(clean.contains(&format!("host: {KEPT}")) && clean.contains(&format!("last: {KEPT}")), "{}", clean);
    }

    #[test]
    fn a_secret_in_a_log_is_never_found_again((secret, line) in line(), is_inside in any::<bool>()) {
        let log = format!("2026-11-26T00:00:00Z\tinfo\tads\tpush to {KEPT}\n{line}\nafter it {KEPT}:9080 200\n");
        let log = if is_inside { json!({"message": log, "host": KEPT}).to_string() } else { log };
        let clean = text(&log);
        prop_assert!(!clean.contains(&secret), "{}", clean);
        prop_assert!(clean.contains(&format!("push to {KEPT}")) && clean.contains(&format!("{KEPT}:9080 200")), "{}", clean);
    }

    #[test]
    fn a_key_in_base64_is_found_however_it_is_wrapped(
        body in "[A-Za-z0-9+/]{64}", before in "[a-z ]{0,20}", columns in 24_usize..90, end in "(\\\\n|\n|\r\n|\n    )",
    ) {
        let pem = format!("{before}-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n");
        let encoded = STANDARD.encode(&pem);
        let lines: Vec<&str> = encoded.as_bytes().chunks(columns).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let clean = text(&format!("host: {KEPT}\ndata: \"{}\"\nlast: {KEPT}\n", lines.join(&end)));
        for line in lines.iter().filter(|line| line.len() > 16) {
            prop_assert!(!clean.contains(line), "{}", clean);
        }
        prop_assert_eq!(clean.matches(KEPT).count(), 2, "{}", clean);
    }

    #[test]
    fn what_somebody_reads_a_report_for_stays(
        host in "[a-z]{3,9}\\.[a-z]{3,9}\\.svc\\.cluster\\.local", port in 1_u16.., version in "[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]",
        path in "/[a-z]{1,9}/[a-z0-9]{1,9}", code in 100_u16..600, ways in ways(),
    ) {
        let route = json!({
            "name": format!("{host}:{port}"), "domains": [host, format!("{host}:{port}")],
            "routes": [{"match": {"prefix": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
                "route": {"cluster": format!("outbound|{port}||{host}"), "timeout": "3s"}}],
            "version": version, "status": {"code": code, "message": format!("upstream {host} said {code}")},
            "tls": {"secretName": "web-cert", "credentialName": "web-cert", "private_key": {"filename": "/etc/certs/key.pem"}},
        });
        let mut clean = wrapped(&route, &ways);
        let before = clean.clone();
        redactor().object(&mut clean);
        prop_assert_eq!(clean, before);
        let line = format!("[2026-11-26T00:00:00.000Z] \"GET {path} HTTP/1.1\" {code} - via_upstream - \"-\" 0 95 7 6 \"-\" \"curl/8\" \"id\" \"{host}:{port}\" \"10.0.0.1:{port}\" outbound|{port}||{host} - {version}\n");
        prop_assert_eq!(&text(&line), &line);
    }
}
