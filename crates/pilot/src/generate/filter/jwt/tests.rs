use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::*;

fn rule(issuer: &str) -> JwtRule {
    JwtRule { issuer: issuer.into(), ..JwtRule::default() }
}

fn settings() -> Settings {
    Settings::new(Arc::default(), "c")
}

fn snapshot(settings: &Settings) -> Snapshot {
    Snapshot::build(&config::Store::default(), settings)
}

fn inline(provider: &JwtProvider) -> &str {
    let Some(JwksSourceSpecifier::LocalJwks(source)) = &provider.jwks_source_specifier else { panic!() };
    let Some(data_source::Specifier::InlineString(keys)) = &source.specifier else { panic!() };
    keys
}

/// A short form of a requirement.
fn show(requirement: &JwtRequirement) -> String {
    let list = |requirements: &[JwtRequirement], word: &str| {
        format!("({})", requirements.iter().map(show).collect::<Vec<_>>().join(word))
    };
    match requirement.requires_type.as_ref().unwrap() {
        RequiresType::ProviderName(name) => name.replace("origins-", ""),
        RequiresType::RequiresAny(any) => list(&any.requirements, " | "),
        RequiresType::RequiresAll(all) => list(&all.requirements, " & "),
        RequiresType::AllowMissing(()) => "missing".into(),
        other => panic!("{other:?}"),
    }
}

fn requirement(rules: &[JwtRule]) -> String {
    let rules: Vec<&JwtRule> = rules.iter().collect();
    let config = authentication(&rules, false, &snapshot(&settings())).unwrap();
    let Some(RequirementType::Requires(requirement)) = &config.rules[0].requirement_type else { panic!() };
    show(requirement)
}

#[test]
fn a_token_may_be_missing_unless_it_is_required() {
    let required = |issuer| JwtRule { presence: Presence::Required.into(), ..rule(issuer) };
    assert_eq!(requirement(&[rule("a")]), "(0 | missing)");
    assert_eq!(requirement(&[rule("a"), rule("b")]), "(0 | 1 | ((0 | missing) & (1 | missing)))");
    assert_eq!(requirement(&[required("a")]), "0");
    assert_eq!(requirement(&[required("a"), required("b")]), "(0 & 1)");
    assert_eq!(requirement(&[rule("a"), required("b")]), "(1 & (0 | missing))");
    assert!(authentication(&[], false, &snapshot(&settings())).is_none());
}

#[test]
fn the_key_for_unknown_issuers_is_the_hash_of_a_sentence() {
    use base64::Engine as _;
    assert!(config::jwks::check(NO_KEYS).is_ok(), "Envoy must take it");
    let hash = Sha256::digest("Nobody has the private key of this public key: 1");
    let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash);
    assert!(NO_KEYS.contains(&format!("\"x\":\"{x}\"")), "{x}");
}

#[test]
fn keys_are_those_of_the_rule_or_those_fetched_or_none() {
    let good = NO_KEYS.replace("\"alg\":\"ES256\",", "");
    let mut settings = settings();
    settings.key_sets = Arc::new(BTreeMap::from([
        ("https://a/keys".to_owned(), good.clone()),
        ("https://b/.well-known/openid-configuration".to_owned(), good.clone()),
        ("https://broken/keys".to_owned(), "{\"keys\": []}".to_owned()),
    ]));
    let with_uri = |uri: &str| JwtRule { jwks_uri: uri.into(), ..rule("i") };
    let with_keys = |keys: &str| JwtRule { jwks: keys.into(), ..with_uri("https://a/keys") };
    for (rule, want) in [
        (with_uri("https://a/keys"), good.as_str()),
        (rule("https://b/"), &good),
        (with_uri("https://c/keys"), NO_KEYS),
        (with_uri("https://broken/keys"), NO_KEYS),
        (rule("someone"), NO_KEYS),
        (with_keys(&good), &good),
        (with_keys("{}"), NO_KEYS),
    ] {
        assert_eq!(inline(&provider(&rule, &snapshot(&settings))), want, "{rule:?}");
    }
}

#[test]
fn what_envoy_would_refuse_is_left_out() {
    use proto::istio::security::v1beta1::{ClaimToHeader, JwtHeader as Header};
    let rule = JwtRule {
        from_headers: vec![
            Header { name: String::new(), prefix: String::new() },
            Header { name: "x-token".into(), prefix: "Token ".into() },
        ],
        output_claim_to_headers: vec![
            ClaimToHeader { header: "a b".into(), claim: "c".into() },
            ClaimToHeader { header: "x-group".into(), claim: "group".into() },
        ],
        output_payload_to_header: "a\nb".into(),
        space_delimited_claims: vec!["roles".into(), "scope".into()],
        ..rule("i")
    };
    let provider = provider(&rule, &snapshot(&settings()));
    assert_eq!(provider.from_headers.len(), 1);
    assert_eq!(provider.claim_to_headers.len(), 1);
    assert_eq!(provider.forward_payload_header, "");
    let claims = provider.normalize_payload_in_metadata.unwrap().space_delimited_claims;
    assert_eq!(claims, ["permission", "roles", "scope"]);
}

#[test]
fn envoy_fetches_keys_itself_where_it_shall() {
    let cluster = |mode, uri: &str| {
        let mut settings = settings();
        settings.features.key_fetch = mode;
        let rule = JwtRule { jwks_uri: uri.into(), ..rule("i") };
        let source = remote(&rule, &snapshot(&settings))?;
        let Some(HttpUpstreamType::Cluster(cluster)) = source.http_uri?.http_upstream_type else { panic!() };
        Some(cluster)
    };
    let uri = "https://keys.example:8443/keys";
    assert_eq!(cluster(KeyFetch::Envoy, uri).as_deref(), Some("outbound|8443||keys.example"));
    assert_eq!(cluster(KeyFetch::Envoy, "http://a/k").as_deref(), Some("outbound|80||a"));
    assert_eq!(cluster(KeyFetch::Envoy, "ftp://a/k"), None);
    assert_eq!(cluster(KeyFetch::Envoy, ""), None);
    assert_eq!(cluster(KeyFetch::Hybrid, uri), None, "no service of the mesh");
    assert_eq!(cluster(KeyFetch::Istiod, uri), None);
}
