//! Tokens of end users (RequestAuthentication).

use std::collections::{BTreeMap, BTreeSet};

use names::{ClusterName, Hostname};
use proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use proto::envoy::config::core::v3::{DataSource, HttpUri, data_source};
use proto::envoy::config::route::v3::{RouteMatch, route_match};
use proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use proto::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
    JwtRequirementOrList, RemoteJwks, RequirementRule,
};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::istio::security::v1beta1::JwtRule;
use proto::istio::security::v1beta1::jwt_rule::JwtRequirement as Presence;

use super::{Direction, Place};
use crate::generate::http::filter;
use crate::generate::message::seconds;
use crate::proxy::ProxyKind;
use crate::rbac::JWT_PAYLOAD;
use crate::scope::Scope;
use crate::settings::{KeyFetch, Settings};
use crate::snapshot::Snapshot;
use crate::snapshot::jwt::{host_and_port, key_uri};

/// A public key without a private one, for issuers whose keys are not known:
/// no token can be made that it accepts. Its `x` is the SHA-256 of a sentence,
/// so nobody chose it by a private key.
const NO_KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","x":"mD4xN-Fj4TVpI5X2E8oeXJuE_dOuMrfmQEVnr2QsiWU","y":"aAWrZwhJhEllOwjetSmd_pZACAOY2nI8tPd6p3wsY2s"}]}"#;
/// Claims that hold several values with spaces between them.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];

/// Filters for requests. Servers and gateways check tokens, clients do not.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    if place.direction == Direction::Outbound {
        return Vec::new();
    }
    let snapshot = scope.snapshot;
    let policies = snapshot.jwt.select(&scope.proxy.namespace, scope.labels());
    if policies.is_empty() {
        return Vec::new();
    }
    // Routes of a gateway may depend on claims, which are known only now.
    let clears_route = scope.proxy.kind == ProxyKind::Router;
    let ids: Vec<usize> = policies.iter().map(|policy| policy.id).collect();
    let filters = snapshot.jwt_filters.get((ids, clears_route), || {
        let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.spec.jwt_rules).collect();
        rules.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        let config = authentication(&rules, clears_route, snapshot);
        Vec::from_iter(config.map(|config| filter("envoy.filters.http.jwt_authn", &config)))
    });
    Vec::clone(&filters)
}

/// A token that is there must be valid; one that is missing is let through
/// unless it is required.
fn authentication(rules: &[&JwtRule], clears_route: bool, snapshot: &Snapshot) -> Option<JwtAuthentication> {
    let mut providers = BTreeMap::new();
    let (mut required, mut optional) = (Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("origins-{index}");
        let target = if rule.presence() == Presence::Required { &mut required } else { &mut optional };
        target.push(require(RequiresType::ProviderName(name.clone())));
        providers.insert(name, JwtProvider { clear_route_cache: clears_route, ..provider(rule, snapshot) });
    }
    let requirement = match (required.is_empty(), optional.is_empty()) {
        (true, true) => return None,
        (true, false) => valid_or_missing(optional),
        (false, true) => all_of(required),
        (false, false) => {
            required.push(valid_or_missing(optional));
            all_of(required)
        }
    };
    let matcher = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())),
        ..RouteMatch::default()
    };
    Some(JwtAuthentication {
        rules: vec![RequirementRule {
            r#match: Some(matcher),
            requirement_type: Some(RequirementType::Requires(requirement)),
        }],
        providers,
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    })
}

/// One of several tokens in the same place is valid for one of the issuers
/// only, so one that is valid is enough; else each must be valid or missing.
fn valid_or_missing(providers: Vec<JwtRequirement>) -> JwtRequirement {
    let missing = || require(RequiresType::AllowMissing(()));
    if let [only] = &providers[..] {
        return any_of(vec![only.clone(), missing()]);
    }
    let each = providers.iter().map(|provider| any_of(vec![provider.clone(), missing()])).collect();
    let mut any = providers;
    any.push(all_of_list(each));
    any_of(any)
}

fn require(requires: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(requires) }
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    require(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn all_of_list(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    require(RequiresType::RequiresAll(JwtRequirementAndList { requirements }))
}

/// All of them; Envoy wants two at least in a list.
fn all_of(mut requirements: Vec<JwtRequirement>) -> JwtRequirement {
    if requirements.len() == 1 { requirements.remove(0) } else { all_of_list(requirements) }
}

fn provider(rule: &JwtRule, snapshot: &Snapshot) -> JwtProvider {
    let is_good = |name: &str| config::is_header_name(name);
    let mut claims: BTreeSet<&str> = SPACE_DELIMITED.into();
    claims.extend(rule.space_delimited_claims.iter().map(String::as_str));
    let claim_to_headers = rule
        .output_claim_to_headers
        .iter()
        .filter(|output| is_good(&output.header) && !output.claim.is_empty())
        .map(|output| JwtClaimToHeader {
            header_name: output.header.clone(),
            claim_name: output.claim.clone(),
            ..JwtClaimToHeader::default()
        });
    let from_headers = rule
        .from_headers
        .iter()
        .filter(|header| is_good(&header.name) && !header.prefix.contains(['\0', '\r', '\n']))
        .map(|header| JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() });
    let payload_header = Some(&rule.output_payload_to_header).filter(|name| is_good(name));
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        forward_payload_header: payload_header.cloned().unwrap_or_default(),
        payload_in_metadata: JWT_PAYLOAD.into(),
        normalize_payload_in_metadata: Some(NormalizePayload {
            space_delimited_claims: claims.into_iter().map(str::to_owned).collect(),
        }),
        claim_to_headers: claim_to_headers.collect(),
        from_headers: from_headers.collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        jwks_source_specifier: Some(source(rule, snapshot)),
        ..JwtProvider::default()
    }
}

/// Where Envoy has the keys of an issuer from.
fn source(rule: &JwtRule, snapshot: &Snapshot) -> JwksSourceSpecifier {
    if let Some(remote) = remote(rule, snapshot) {
        return JwksSourceSpecifier::RemoteJwks(remote);
    }
    JwksSourceSpecifier::LocalJwks(DataSource {
        specifier: Some(data_source::Specifier::InlineString(keys(rule, &snapshot.settings))),
        ..DataSource::default()
    })
}

/// How Envoy fetches the keys itself, where it does.
fn remote(rule: &JwtRule, snapshot: &Snapshot) -> Option<RemoteJwks> {
    let mode = snapshot.settings.features.key_fetch;
    if mode == KeyFetch::Istiod || rule.jwks_uri.is_empty() {
        return None;
    }
    let (host, port) = host_and_port(&rule.jwks_uri)?;
    let host = Hostname::new(host);
    if mode == KeyFetch::Hybrid {
        snapshot.service(&host)?;
    }
    let timeout = rule.timeout.map_or_else(|| seconds(5), |timeout| Some(timeout.into()));
    Some(RemoteJwks {
        http_uri: Some(HttpUri {
            uri: rule.jwks_uri.clone(),
            timeout,
            http_upstream_type: Some(HttpUpstreamType::Cluster(
                ClusterName::outbound(port, "", &host).to_string(),
            )),
        }),
        cache_duration: seconds(300),
        ..RemoteJwks::default()
    })
}

/// The keys of an issuer: those of the rule, or those that were fetched. With
/// keys that are missing or useless every token is refused.
fn keys(rule: &JwtRule, settings: &Settings) -> String {
    let fetched = || settings.key_sets.get(&key_uri(rule)?);
    let known = if rule.jwks.is_empty() { fetched() } else { Some(&rule.jwks) };
    let known = known.filter(|keys| config::jwks::check(keys).is_ok());
    known.map_or_else(|| NO_KEYS.to_owned(), Clone::clone)
}

#[cfg(test)]
mod tests;
