//! Rules of `RequestAuthentication`.

use proto::istio::security::v1beta1::{JwtRule, RequestAuthentication};

use crate::jwks;
use crate::validate::{Checker, is_header_name};

pub(super) fn check(policy: &RequestAuthentication, checker: &mut Checker) {
    checker.selection(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs);
    for (index, rule) in policy.jwt_rules.iter().enumerate() {
        self::rule(&format!("jwtRules[{index}]"), rule, checker);
    }
}

fn rule(at: &str, rule: &JwtRule, checker: &mut Checker) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        checker.error(format!("{at}.issuer"), "is missing: give the issuer, or the jwksUri of its keys");
    }
    keys(at, rule, checker);
    for (name, values) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        for (index, value) in values.iter().enumerate() {
            if value.is_empty() {
                checker.error(format!("{at}.{name}[{index}]"), "is empty: leave the value out");
            }
        }
    }
    for (index, header) in rule.from_headers.iter().enumerate() {
        let at = format!("{at}.fromHeaders[{index}]");
        header_name(&format!("{at}.name"), &header.name, checker);
        if header.prefix.contains(['\0', '\r', '\n']) {
            checker.error(format!("{at}.prefix"), format!("{:?} has control characters", header.prefix));
        }
    }
    if !rule.output_payload_to_header.is_empty() {
        header_name(&format!("{at}.outputPayloadToHeader"), &rule.output_payload_to_header, checker);
    }
    for (index, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = format!("{at}.outputClaimToHeaders[{index}]");
        if output.claim.is_empty() {
            checker.error(format!("{at}.claim"), "is missing: name the claim");
        }
        let field = format!("{at}.header");
        header_name(&field, &output.header, checker);
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if is_header_name(&output.header) && !output.header.bytes().all(is_plain) {
            let message =
                format!("{:?} has other characters than letters, digits, hyphens and _", output.header);
            checker.error(field, message);
        }
    }
    checker.duration(&format!("{at}.timeout"), rule.timeout.as_ref());
}

/// Where the keys of the issuer come from.
fn keys(at: &str, rule: &JwtRule, checker: &mut Checker) {
    if !rule.jwks_uri.is_empty()
        && let Err(why) = uri(&rule.jwks_uri)
    {
        let message = format!("{:?} {why}: expected http://HOST/PATH or https://HOST/PATH", rule.jwks_uri);
        checker.error(format!("{at}.jwksUri"), message);
    }
    if rule.jwks.is_empty() {
        if rule.jwks_uri.is_empty() && !rule.issuer.is_empty() && uri(&rule.issuer).is_err() {
            let message = "has no jwks and no jwksUri, and an issuer that is no URI by which keys could be found: every token is refused";
            checker.warn(at, message);
        }
        return;
    }
    let at = format!("{at}.jwks");
    match jwks::check(&rule.jwks) {
        Ok(private) => {
            for index in private {
                let message = format!(
                    "has a key (keys[{index}]) that is not public: only public keys belong into a configuration"
                );
                checker.warn(&at, message);
            }
        }
        Err(why) => checker.error(&at, why.to_string()),
    }
}

/// What is wrong with a URI that is fetched.
fn uri(text: &str) -> Result<(), &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("is no URI")?;
    if !["http", "https"].contains(&scheme) {
        return Err("has another scheme than http and https");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, "80"),
    };
    if name.is_empty() || text.contains(char::is_whitespace) || text.contains(char::is_control) {
        return Err("names no host");
    }
    port.parse::<u16>().map_or(Err("has a port that is none"), |_| Ok(()))
}

fn header_name(at: &str, name: &str, checker: &mut Checker) {
    if name.is_empty() {
        checker.error(at, "is missing: name a header");
    } else if !is_header_name(name) {
        checker.error(at, format!("{name:?} is not the name of a header"));
    }
}

#[cfg(test)]
mod tests {
    use crate::{Severity, yaml};

    const KEYS: &str = r#"{"keys": [{"kty": "oct", "k": "AQAB"}]}"#;

    fn found(rule: &str) -> Vec<(Severity, String)> {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
             metadata: {{name: p, namespace: ns}}\nspec: {{jwtRules: [{rule}]}}\n"
        );
        let problems = yaml::read("a.yaml", &text).problems.into_iter();
        problems
            .map(|problem| {
                (problem.severity, problem.field.trim_start_matches("spec.jwtRules[0]").to_owned())
            })
            .collect()
    }

    #[test]
    fn a_rule_with_everything_is_accepted() {
        let rule = "{issuer: 'https://i', jwksUri: 'https://[::1]:8443/keys', audiences: [a], \
            fromHeaders: [{name: x-token, prefix: 'T '}], fromParams: [p], fromCookies: [c], \
            outputPayloadToHeader: x-payload, outputClaimToHeaders: [{header: x-a, claim: a.b}], \
            forwardOriginalToken: true, timeout: 2s, spaceDelimitedClaims: [roles], presence: REQUIRED}";
        assert_eq!(found(rule), []);
        assert_eq!(found("{issuer: 'https://i/'}"), []);
    }

    #[test]
    fn what_could_not_work_is_refused() {
        for (rule, field) in [
            ("{audiences: [a]}", ".issuer"),
            ("{issuer: i, jwksUri: 'ftp://a/b'}", ".jwksUri"),
            ("{issuer: i, jwksUri: '/keys'}", ".jwksUri"),
            ("{issuer: i, jwksUri: 'http:///keys'}", ".jwksUri"),
            ("{issuer: i, jwksUri: 'http://a:99999/keys'}", ".jwksUri"),
            ("{issuer: i, jwks: x}", ".jwks"),
            ("{issuer: i, jwks: '{\"keys\": []}'}", ".jwks"),
            ("{issuer: 'https://i', audiences: ['']}", ".audiences[0]"),
            ("{issuer: 'https://i', fromParams: ['']}", ".fromParams[0]"),
            ("{issuer: 'https://i', fromCookies: ['']}", ".fromCookies[0]"),
            ("{issuer: 'https://i', fromHeaders: [{prefix: a}]}", ".fromHeaders[0].name"),
            ("{issuer: 'https://i', outputPayloadToHeader: a b}", ".outputPayloadToHeader"),
            (
                "{issuer: 'https://i', outputClaimToHeaders: [{header: 'a:', claim: b}]}",
                ".outputClaimToHeaders[0].header",
            ),
            ("{issuer: 'https://i', outputClaimToHeaders: [{header: a}]}", ".outputClaimToHeaders[0].claim"),
            ("{issuer: 'https://i', timeout: 0s}", ".timeout"),
        ] {
            assert_eq!(found(rule), [(Severity::Error, field.to_owned())], "{rule}");
        }
    }

    #[test]
    fn what_hardly_is_meant_is_told() {
        assert_eq!(found("{issuer: someone}"), [(Severity::Warning, String::new())]);
        assert_eq!(found(&format!("{{issuer: i, jwks: '{KEYS}'}}")), [(Severity::Warning, ".jwks".into())]);
    }
}
