//! Tokens of end users, as far as they can be judged without the issuer's keys.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use proto::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtProvider, JwtRequirement,
};
use serde_json::Value;

use super::request::{Header, Request};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// It needs no token.
    Free,
    /// It has a token that is good, if its signature and times are: its claims.
    Good(Value),
    /// It has no token.
    Missing,
    /// It has one that is refused with a status.
    Bad(u16, String),
    /// This program does not know the requirement.
    Unknown(String),
}

/// What the filter makes of a request.
pub(super) fn check(config: &JwtAuthentication, request: &Request, is_preflight: bool) -> Outcome {
    if config.bypass_cors_preflight && is_preflight {
        return Outcome::Free;
    }
    let rule = config.rules.iter().find(|rule| {
        let prefix = rule.r#match.as_ref().and_then(|matcher| matcher.path_specifier.as_ref());
        match prefix {
            Some(proto::envoy::config::route::v3::route_match::PathSpecifier::Prefix(prefix)) => {
                request.path.starts_with(prefix.as_str())
            }
            _ => true,
        }
    });
    match rule.and_then(|rule| rule.requirement_type.as_ref()) {
        None => Outcome::Free,
        Some(RequirementType::Requires(requirement)) => judge(config, requirement, request),
        Some(RequirementType::RequirementName(name)) => match config.requirement_map.get(name) {
            Some(requirement) => judge(config, requirement, request),
            None => Outcome::Unknown(format!("requirement {name}")),
        },
    }
}

fn judge(config: &JwtAuthentication, requirement: &JwtRequirement, request: &Request) -> Outcome {
    let provider = |name: &str, audiences: Option<&Vec<String>>| match config.providers.get(name) {
        Some(provider) => verify(provider, audiences.unwrap_or(&provider.audiences), request),
        None => Outcome::Unknown(format!("provider {name}")),
    };
    match &requirement.requires_type {
        None => Outcome::Free,
        Some(RequiresType::ProviderName(name)) => provider(name, None),
        Some(RequiresType::ProviderAndAudiences(one)) => provider(&one.provider_name, Some(&one.audiences)),
        Some(RequiresType::AllowMissingOrFailed(())) => Outcome::Free,
        Some(RequiresType::AllowMissing(())) => {
            let found =
                config.providers.values().map(|provider| verify(provider, &provider.audiences, request));
            let found: Vec<Outcome> = found.filter(|outcome| *outcome != Outcome::Missing).collect();
            let good = found.iter().find(|outcome| matches!(outcome, Outcome::Good(_))).cloned();
            good.or_else(|| found.into_iter().next()).unwrap_or(Outcome::Free)
        }
        Some(RequiresType::RequiresAny(any)) => {
            let mut last = Outcome::Free;
            for one in &any.requirements {
                last = judge(config, one, request);
                if matches!(last, Outcome::Free | Outcome::Good(_) | Outcome::Unknown(_)) {
                    break;
                }
            }
            last
        }
        Some(RequiresType::RequiresAll(all)) => {
            let mut good = Outcome::Free;
            for one in &all.requirements {
                match judge(config, one, request) {
                    Outcome::Free => {}
                    Outcome::Good(claims) => good = Outcome::Good(claims),
                    bad => return bad,
                }
            }
            good
        }
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            Outcome::Unknown("claims without a check".into())
        }
    }
}

/// The token that a provider would look at.
fn token(provider: &JwtProvider, request: &Request) -> Option<String> {
    let is_default = provider.from_headers.is_empty()
        && provider.from_params.is_empty()
        && provider.from_cookies.is_empty();
    let header = |name: &str, prefix: &str| match request.header(name) {
        Header::Value(value) => {
            let at = value.find(prefix)?;
            Some(value[at + prefix.len()..].trim_start_matches(' ').to_owned())
        }
        _ => None,
    };
    let param = |name: &str| {
        let mut pairs = request.query().split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    if is_default {
        return header("authorization", "Bearer ").or_else(|| param("access_token"));
    }
    let cookie = |name: &str| match request.header("cookie") {
        Header::Value(value) => {
            let mut pairs = value.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        }
        _ => None,
    };
    let headers = provider.from_headers.iter().filter_map(|own| header(&own.name, &own.value_prefix));
    let params = provider.from_params.iter().filter_map(|name| param(name));
    headers.chain(params).chain(provider.from_cookies.iter().filter_map(|name| cookie(name))).next()
}

fn verify(provider: &JwtProvider, audiences: &[String], request: &Request) -> Outcome {
    let Some(token) = token(provider, request) else { return Outcome::Missing };
    let Some(mut claims) = claims(&token) else {
        return Outcome::Bad(401, "the token is not of the form HEADER.PAYLOAD.SIGNATURE".into());
    };
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if !provider.issuer.is_empty() && issuer != provider.issuer {
        return Outcome::Bad(401, format!("the token's issuer is {issuer:?}, not {:?}", provider.issuer));
    }
    let own: Vec<String> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let trim = |audience: &str| {
        let audience = audience
            .strip_prefix("https://")
            .or_else(|| audience.strip_prefix("http://"))
            .unwrap_or(audience);
        audience.trim_end_matches('/').to_owned()
    };
    if !audiences.is_empty() && !own.iter().any(|one| audiences.iter().any(|known| trim(known) == trim(one)))
    {
        return Outcome::Bad(403, format!("the token is for {own:?}, not for {audiences:?}"));
    }
    for name in
        provider.normalize_payload_in_metadata.iter().flat_map(|normal| &normal.space_delimited_claims)
    {
        let words =
            claims.get(name).and_then(Value::as_str).map(|text| text.split(' ').collect::<Vec<_>>().into());
        if let (Some(words), Some(claims)) = (words, claims.as_object_mut()) {
            claims.insert(name.clone(), words);
        }
    }
    Outcome::Good(claims)
}

fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// What a token would have to be.
pub(super) fn show(providers: &BTreeMap<String, JwtProvider>) -> String {
    let one = |provider: &JwtProvider| {
        let audiences = match provider.audiences.as_slice() {
            [] => String::new(),
            some => format!(" for {}", some.join(" or ")),
        };
        let headers = provider.from_headers.iter().map(|own| format!("header {}", own.name));
        let params = provider.from_params.iter().map(|name| format!("parameter {name}"));
        let cookies = provider.from_cookies.iter().map(|name| format!("cookie {name}"));
        let places: Vec<String> = headers.chain(params).chain(cookies).collect();
        let place =
            if places.is_empty() { "header authorization: Bearer".into() } else { places.join(" or ") };
        format!("issuer {}{audiences} in {place}", provider.issuer)
    };
    providers.values().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use proto::envoy::extensions::filters::http::jwt_authn::v3::{JwtRequirementOrList, RequirementRule};

    use super::*;

    fn request(token: Option<&str>) -> Request {
        let headers = token.map(|token| ("authorization".to_owned(), Some(format!("Bearer {token}"))));
        Request {
            method: "GET".into(),
            scheme: "http",
            authority: "a".into(),
            path: "/".into(),
            headers: headers.into_iter().collect(),
            is_http2: false,
        }
    }

    #[test]
    fn a_token_must_be_of_a_known_issuer_or_missing() {
        let needs = |requires| JwtRequirement { requires_type: Some(requires) };
        let any = JwtRequirementOrList {
            requirements: vec![
                needs(RequiresType::ProviderName("p".into())),
                needs(RequiresType::AllowMissing(())),
            ],
        };
        let provider =
            JwtProvider { issuer: "me".into(), audiences: vec!["you".into()], ..JwtProvider::default() };
        let config = JwtAuthentication {
            providers: BTreeMap::from([("p".to_owned(), provider)]),
            rules: vec![RequirementRule {
                r#match: None,
                requirement_type: Some(RequirementType::Requires(needs(RequiresType::RequiresAny(any)))),
            }],
            ..JwtAuthentication::default()
        };
        let of = |payload: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(check(&config, &request(None), false), Outcome::Free);
        let good = of(r#"{"iss": "me", "aud": ["you"]}"#);
        assert!(
            matches!(check(&config, &request(Some(&good)), false), Outcome::Good(claims) if claims["iss"] == "me")
        );
        let foreign = of(r#"{"iss": "they"}"#);
        assert!(matches!(check(&config, &request(Some(&foreign)), false), Outcome::Bad(401, _)));
        let elsewhere = of(r#"{"iss": "me", "aud": "they"}"#);
        assert!(matches!(check(&config, &request(Some(&elsewhere)), false), Outcome::Bad(403, _)));
        assert!(matches!(check(&config, &request(Some("x")), false), Outcome::Bad(401, _)));
    }
}
