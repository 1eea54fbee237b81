use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;

mod planted;

const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtYXJrZXIifQ.c2lnbmF0dXJlLW1hcmtlcg";
const PEM: &str = "-----BEGIN RSA PRIVATE KEY-----\nTUFSS0VS\n-----END RSA PRIVATE KEY-----";

fn redactor() -> Redactor {
    Redactor::new("istio-system")
}

fn text(said: &str) -> String {
    redactor().text(said)
}

fn object(mut value: Value) -> Value {
    redactor().object(&mut value);
    value
}

#[test]
fn keys_and_tokens_are_found_wherever_they_stand() {
    let encoded = STANDARD.encode(format!("{PEM}\n"));
    for (said, hidden) in [
        (format!("key: {PEM} end"), "TUFSS0VS"),
        (PEM.replace('\n', "\\n"), "TUFSS0VS"),
        ("-----BEGIN PRIVATE KEY-----\nTUFSS0VS".to_owned(), "TUFSS0VS"),
        ("TUFSS0VS\nYWJj\n-----END PRIVATE KEY-----\nnext".to_owned(), "TUFSS0VS"),
        ("\"k\": \"TUFSS0VS\\nYWJj\\n-----END PRIVATE KEY-----\\n\"".to_owned(), "TUFSS0VS"),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nTUFSS0VS\n-----END PGP PRIVATE KEY BLOCK-----"
                .to_owned(),
            "TUFSS0VS",
        ),
        (format!("data: {encoded}"), &encoded[40..]),
        (format!("\"{}\"", &encoded[..encoded.len() - 7]), &encoded[40..60]),
        (format!("got {JWT}, refused"), "c2lnbmF0"),
        ("authorization: Bearer abc.def-123456".to_owned(), "abc.def"),
        ("Authorization: Basic dXNlcjpwYXNz".to_owned(), "dXNlcjpwYXNz"),
        ("> Basic YTpi".to_owned(), "YTpi"),
        ("next=Bearer%20abcdef123456".to_owned(), "abcdef123456"),
        ("https://user:hunter2@host/x".to_owned(), "hunter2"),
        ("db_password=hunter2 next".to_owned(), "hunter2"),
        ("{\"apiKey\": \"hunter2\"}".to_owned(), "hunter2"),
        ("?access_token=hunter2&x=1".to_owned(), "hunter2"),
        ("accessToken: hunter2\nx: 1".to_owned(), "hunter2"),
    ] {
        let clean = text(&said);
        assert!(!clean.contains(hidden) && clean.contains(REMOVED), "{said} became {clean}");
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
        "outbound|80||session-token::default_priority::max_connections::1024",
        "failed to fetch key and certificate for kubernetes://shop/web-secret: it is not there",
        "Basic information about a product; all information is basic",
        "bearer authentication failed; the authorization policy is right",
        "istio_requests_total{response_code=\"200\",source_app=\"web\"} 5",
        "GET /reviews?code HTTP/1.1 200 - via_upstream",
        "docker.io/istio/proxyv2:1.32@sha256:0123456789abcdef0123456789abcdef",
        "xds connection sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local-12 nonce=4f1a",
        "spiffe://cluster.local/ns/shop/sa/default",
    ] {
        assert_eq!(text(same), same);
    }
}

#[test]
fn objects_lose_what_their_names_say_is_secret() {
    let all = object(json!({
        "metadata": {"annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{\"a\": 1}", "kept": "yes",
            "banzaicloud.com/last-applied": "{\"data\": {\"x\": \"bWFya2Vy\"}}", "own": "H4sIAAAAAAAA/marker/marker",
        }},
        "spec": {
            "containers": [{
                "env": [
                    {"name": "DB_PASSWORD", "value": "marker"}, {"name": "MODE", "value": "fast"},
                    {"name": "SALT", "value": "marker"}, {"name": "ISTIO_META_CLUSTER_ID", "value": "c1"},
                    {"name": "X", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                ],
                "args": ["--token=marker", "--password", "marker", "-u", "me:marker", "--port", "80"],
            }],
            "automountServiceAccountToken": true,
            "volumes": [
                {"name": "web-token", "secret": {"secretName": "web", "items": [{"key": "tls.key", "path": "k"}]}},
                {"projected": {"sources": [{"serviceAccountToken": {"audience": "istio-ca", "path": "t", "expirationSeconds": 43200}}]}},
            ],
            "clientSecret": {"value": "marker"},
            "passwords": ["marker"],
            "password": 123_456,
            "headers": [{"header": {"key": "Authorization", "value": "marker"}}, {"name": "x-api-key", "string_match": {"exact": "marker"}}],
            "match": {"headers": {"x-api-key": {"exact": "marker"}, "end-user": {"exact": "jason"}}},
            "when": [{"key": "request.headers[x-api-key]", "values": ["marker"]}],
            "private_key": {"inline_bytes": "bWFya2Vy"},
            "users": {"inline_string": "u:{SHA}marker"},
            "pkcs12": {"inline_bytes": "bWFya2Vy"},
            "session_ticket_keys": {"keys": [{"inline_bytes": "bWFya2Vy"}, {"filename": "/etc/ticket"}]},
            "credentials": [{"key": "marker", "client": "marker"}],
            "jwks": "{\"keys\": [{\"kty\": \"oct\", \"k\": \"marker\"}, {\"kty\": \"RSA\", \"n\": \"public\", \"e\": \"AQAB\", \"d\": \"marker\"}]}",
            "token_bucket": {"max_tokens": 77},
            "credentialName": "web-cert",
            "mesh": "defaultConfig:\n  proxyMetadata:\n    API_KEY: marker\n    SALT: marker\n    ISTIO_META_DNS_CAPTURE: \"true\"\n",
        },
    }))
    .to_string();
    assert!(!all.contains("marker") && !all.contains("bWFya2Vy") && !all.contains("123456"), "{all}");
    for kept in [
        "\"kept\":\"yes\"",
        "\"fast\"",
        "\"c1\"",
        "web-cert",
        "\"secretName\":\"web\"",
        "\"tls.key\"",
        "true",
        "\"key\":\"password\",\"name\":\"db\"",
        "\"--port\",\"80\"",
        "istio-ca",
        "43200",
        "jason",
        "/etc/ticket",
        "public",
        "AQAB",
        "77",
        "ISTIO_META_DNS_CAPTURE",
    ] {
        assert!(all.contains(kept), "no {kept}: {all}");
    }
}

#[test]
fn a_secret_keeps_the_names_of_its_parts_wherever_it_is() {
    let one = json!({
        "kind": "Secret",
        "metadata": {"name": "web", "labels": {"a": "kept"}, "annotations": {"copy": "marker"}},
        "type": "kubernetes.io/tls", "data": {"tls.crt": "bWFya2Vy", "tls.key": "bWFya2Vy"}, "stringData": {"x": "marker"},
    });
    let mut bare = one.clone();
    bare.as_object_mut().unwrap().remove("kind");
    for mut value in [
        one.clone(),
        json!({"kind": "List", "items": [one]}),
        json!({"kind": "SecretList", "items": [{"metadata": {"name": "web"}, "data": {"tls.key": "bWFya2Vy"}}]}),
        json!({"a": {"b": [bare]}}),
        json!({"template": one.to_string()}),
    ] {
        redactor().object(&mut value);
        let all = value.to_string();
        assert!(!all.contains("arker") && !all.contains("bWFya2Vy") && all.contains("tls.key"), "{all}");
        assert!(all.contains("web"), "{all}");
    }
    let mut other = json!({"kind": "Thing", "data": {"a": "bWFya2Vy"}});
    redactor().secret(&mut other);
    assert_eq!(other, json!({"kind": "Thing", "data": {"a": REMOVED}}));
    // What only names one is as anything else.
    let reference = json!({"kind": "Secret", "name": "web", "namespace": "shop"});
    assert_eq!(object(reference.clone()), reference);
}

#[test]
fn only_config_maps_of_istio_have_contents() {
    let map = |name: &str, namespace: &str| {
        object(json!({
            "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
            "data": {"mesh": "rootNamespace: istio-system\nclientSecret: marker\n", "redis.conf": "requirepass foobared"},
        }))
    };
    let own = map("istio", "istio-system")["data"]["mesh"].as_str().unwrap().to_owned();
    assert!(own.contains("rootNamespace: istio-system") && !own.contains("marker"), "{own}");
    for other in [map("istio", "shop"), map("settings", "istio-system")] {
        assert_eq!(other["data"]["redis.conf"], format!("{REMOVED}: 20 bytes"), "{other}");
        assert!(!other.to_string().contains("rootNamespace"), "{other}");
    }
    let release = object(json!({
        "kind": "ConfigMap", "metadata": {"name": "istio-x", "namespace": "istio-system", "labels": {"owner": "helm"}},
        "data": {"release": "SDRzSUFBQUFBQUFB"}, "binaryData": {"a": "AAAA"},
    }));
    assert!(!release.to_string().contains("SDRz") && !release.to_string().contains("AAAA"), "{release}");
}

#[test]
fn secrets_of_envoy_keep_their_certificates() {
    let dump = object(json!({"dynamic_active_secrets": [{
        "name": "default", "version_info": "v1", "last_updated": "2026-11-26T00:00:00Z",
        "secret": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": "default",
            "tls_certificate": {"certificate_chain": {"inline_bytes": "UFVCTElD"}, "private_key": {"inline_bytes": "bWFya2Vy"}},
        },
    }]}));
    let all = dump.to_string();
    for kept in ["UFVCTElD", "v1", "2026-11-26", "default"] {
        assert!(all.contains(kept), "no {kept}: {all}");
    }
    assert!(!all.contains("bWFya2Vy"), "{all}");
}

#[test]
fn files_of_objects_lose_what_is_secret() {
    let said = "kind: Secret\nmetadata: {name: a}\ndata: {tls.key: bWFya2Vy}\n---\nkind: Service\nmetadata: {name: b}\n---\n: [\n\
        ---\nkind: List\nitems:\n- kind: Secret\n  data: {db: bWFya2Vy}\n---\nkind: Secret\ndata: {db: bWFya2Vy\n---\na: [hello\n";
    let clean = redactor().documents(said);
    assert!(!clean.contains("bWFya2Vy"), "{clean}");
    for kept in ["tls.key", "name: b", "db: ", UNREADABLE, "a: [hello"] {
        assert!(clean.contains(kept), "no {kept}: {clean}");
    }
    assert_eq!(Redactor::off().documents(said), said);
}

#[test]
fn lines_tell_what_the_next_ones_are() {
    let said = "password: |\n  marker\n  marker\nnext: 1\n- name: x-api-key\n  value: marker\n  kept: 1\ntokens:\n- marker\n\
        data:\n  a: marker\nsecret:\n  secretName: web\n  other: marker\nlast: 1";
    let clean = text(said);
    assert!(!clean.contains("marker"), "{clean}");
    for kept in ["next: 1", "kept: 1", "secretName: web", "last: 1", "  a: "] {
        assert!(clean.contains(kept), "no {kept}: {clean}");
    }
}

#[test]
fn yaml_without_a_secret_keeps_its_form() {
    let same = json!({"a": "x: 1.10  # as before\nvolume: {secret: {secretName: web}}\n"});
    assert_eq!(object(same.clone()), same);
    let commented = object(json!({"a": "x: 1.10  # password: marker\nb: 1\n"})).to_string();
    assert!(!commented.contains("marker") && commented.contains("1.10  #"), "{commented}");
}

#[test]
fn a_long_line_that_was_cut_is_cleaned_at_once() {
    let one = json!({"name": "web", "token": "marker", "host": "reviews.shop", "a": [{"b": {}}]}).to_string();
    let mut cut = format!("[{}", vec![one; 3000].join(","));
    cut.truncate(cut.len() - 3);
    let clean = text(&cut);
    assert!(!clean.contains("marker") && clean.matches("reviews.shop").count() == 3000);
}

#[test]
fn what_names_lead_to_in_other_forms_is_found() {
    for said in [
        "Data:map[tls.key:[45 45 77] a:1] token:[marker other] b",
        "{password=marker, user=x}",
        "a=b&amp;token=marker&amp;c",
        "$ curl -H \"x-api-key: marker marker\" http://a",
        "can't use password=marker'marker here",
        "{\"a\": \"{\\\"token\\\": \\\"marker marker\\\"}\"",
        "set auth.password=marker",
        "x-vault-token:marker",
        "local api_key = 'it''s marker'",
        "Digest username=\"u\", response=\"marker\"",
        "ghp_marker0123456789abcdef",
        "AKIAMARKER0123456789 or glpat-marker0123456789",
    ] {
        let clean = text(said);
        assert!(!clean.to_lowercase().contains("marker"), "{said} became {clean}");
    }
}

#[test]
fn users_before_hosts_are_taken_out() {
    for (said, clean) in [
        ("redis://:hunter2@redis:6379", "redis://[redacted]@redis:6379"),
        ("https://ghx@github.com/a", "https://[redacted]@github.com/a"),
        ("postgres://u:p/w@h", "postgres://[redacted]@h"),
        ("HTTPS://u:p@ss@h/x", "HTTPS://[redacted]@h/x"),
        ("to u:p@tcp(h:3306)/db", "to [redacted]@tcp(h:3306)/db"),
        ("http:\\/\\/u:p@h\\/x", "http:\\/\\/[redacted]@h\\/x"),
    ] {
        assert_eq!(text(said), clean);
    }
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
