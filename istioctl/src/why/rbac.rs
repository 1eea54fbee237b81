//! What an RBAC filter decides, policy by policy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proto::envoy::config::rbac::v3::permission::Rule;
use proto::envoy::config::rbac::v3::principal::Identifier;
use proto::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, rbac};
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::envoy::r#type::matcher::v3::filter_state_matcher::Matcher as StateMatcher;
use proto::envoy::r#type::matcher::v3::metadata_matcher::path_segment;
use proto::envoy::r#type::matcher::v3::{MetadataMatcher, PathMatcher, path_matcher};
use serde_json::Value;

use super::connection::Tls;
use super::matching::{self, cidr, header, show, show_cidr, show_header, string};
use super::message::unpack;
use super::request::Request;
use super::tri::Tri;

/// Where Istio's own proxies keep the identity of the client.
const PEER: &str = "io.istio.peer_principal";

/// What policies look at.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// `None` for a connection of bytes.
    pub(super) request: Option<&'a Request>,
    pub(super) destination: Option<IpAddr>,
    pub(super) port: u16,
    /// Server name that was asked for.
    pub(super) name: &'a str,
    /// Of the connection, and as the headers tell it.
    pub(super) source: Option<IpAddr>,
    pub(super) remote: Option<IpAddr>,
    /// TLS that ended here.
    pub(super) tls: Option<&'a Tls>,
    /// What filters said of the request, by their names.
    pub(super) metadata: &'a BTreeMap<String, Value>,
}

/// What a set of policies decides.
#[derive(Debug)]
pub(super) struct Decision {
    /// Whether it lets the request pass.
    pub(super) passes: Tri,
    /// The policy that decided, if one did.
    pub(super) policy: Option<String>,
    /// What each policy says.
    pub(super) details: Vec<String>,
}

/// Whether something holds, and what of it does not or is not known.
struct Judged(Tri, String);

/// Decides.
pub(super) fn decide(rules: &Rbac, facts: Facts<'_>) -> Decision {
    let judged: Vec<(&String, Judged)> =
        rules.policies.iter().map(|(name, policy)| (name, judge(policy, facts))).collect();
    let details = judged.iter().map(|(name, Judged(tri, why))| {
        let name = short(name);
        match tri {
            Tri::Yes => format!("{name}: matches"),
            Tri::No => format!("{name}: does not match: {why}"),
            Tri::Unknown => format!("{name}: cannot tell: {why}"),
        }
    });
    let details = details.collect();
    let of = |wanted: Tri| {
        judged.iter().find(|(_, Judged(tri, _))| *tri == wanted).map(|(name, _)| (*name).clone())
    };
    let (matched, unsure) = (of(Tri::Yes), of(Tri::Unknown));
    let matches = Tri::any(judged.iter().map(|(_, Judged(tri, _))| *tri));
    let passes = match rules.action() {
        rbac::Action::Allow => matches,
        rbac::Action::Deny => !matches,
        rbac::Action::Log => Tri::Yes,
    };
    Decision { passes, policy: matched.or(unsure), details }
}

/// `ns[NS]-policy[NAME]-rule[N]` as people know it.
pub(super) fn short(policy: &str) -> String {
    parts(policy).map_or_else(
        || policy.to_owned(),
        |(namespace, name, rule)| format!("AuthorizationPolicy {name}.{namespace} rule {rule}"),
    )
}

/// Namespace, name and rule in a policy's name.
pub(super) fn parts(policy: &str) -> Option<(&str, &str, &str)> {
    let rest = &policy[policy.find("ns[")? + 3..];
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (name, rest) = rest.split_once("]-rule[")?;
    Some((namespace, name, rest.split(']').next()?))
}

fn judge(policy: &Policy, facts: Facts<'_>) -> Judged {
    let what = any(policy.permissions.iter().map(|one| permission(one, facts)));
    let who = any(policy.principals.iter().map(|one| principal(one, facts)));
    let mut parts = vec![what, who];
    if policy.condition.is_some() || policy.checked_condition.is_some() {
        parts.push(Judged(Tri::Unknown, "a condition in CEL".into()));
    }
    all(parts)
}

/// All of them, with the first that does not hold.
fn all(of: impl IntoIterator<Item = Judged>) -> Judged {
    let mut unsure = None;
    for judged in of {
        match judged.0 {
            Tri::No => return judged,
            Tri::Unknown if unsure.is_none() => unsure = Some(judged),
            _ => {}
        }
    }
    unsure.unwrap_or_else(|| Judged(Tri::Yes, String::new()))
}

/// One of them; why not is said of all.
fn any(of: impl IntoIterator<Item = Judged>) -> Judged {
    let (mut why, mut tri) = (Vec::new(), Tri::No);
    for judged in of {
        match judged.0 {
            Tri::Yes => return judged,
            Tri::Unknown => tri = Tri::Unknown,
            Tri::No => {}
        }
        if !why.contains(&judged.1) {
            why.push(judged.1);
        }
    }
    let more = why.len().saturating_sub(3);
    why.truncate(3);
    let mut text = why.join("; nor ");
    if more > 0 {
        text += &format!("; nor {more} more");
    }
    Judged(tri, text)
}

fn of(tri: impl Into<Tri>, why: String) -> Judged {
    Judged(tri.into(), why)
}

fn not(judged: &Judged, what: &str) -> Judged {
    let why = if judged.1.is_empty() { format!("not {what}") } else { format!("not ({})", judged.1) };
    Judged(!judged.0, why)
}

fn url_path(matcher: &PathMatcher, facts: Facts<'_>) -> Judged {
    let wanted = match &matcher.rule {
        Some(path_matcher::Rule::Path(matcher)) => show(matcher),
        None => String::new(),
    };
    let path = facts.request.map_or("", Request::bare_path);
    of(
        facts.request.map_or(Tri::No, |request| matching::path(matcher, request)),
        format!("path {path} is not {wanted}"),
    )
}

fn headers(matcher: &proto::envoy::config::route::v3::HeaderMatcher, facts: Facts<'_>) -> Judged {
    let tri = facts.request.map_or(Tri::No, |request| header(matcher, request));
    let is = match facts.request.map(|request| request.header(&matcher.name)) {
        Some(super::request::Header::Value(value)) => format!("{} is {value}", matcher.name),
        Some(super::request::Header::Unknown) => format!("{} is made by Envoy", matcher.name),
        Some(super::request::Header::Missing) | None => format!("there is no {}", matcher.name),
    };
    of(tri, format!("{is}, wanted {}", show_header(matcher)))
}

fn said(matcher: &MetadataMatcher, facts: Facts<'_>) -> Judged {
    let tri = matching::metadata(matcher, facts.metadata.get(&matcher.filter));
    let path: Vec<&str> = matcher
        .path
        .iter()
        .filter_map(|segment| segment.segment.as_ref().map(|path_segment::Segment::Key(key)| key.as_str()))
        .collect();
    let what = if matcher.filter.ends_with("jwt_authn") { "the token's claim" } else { "metadata" };
    let claim = path.iter().copied().filter(|key| *key != "payload").collect::<Vec<_>>().join(".");
    of(tri, format!("{what} {claim} does not fit"))
}

fn permission(permission: &Permission, facts: Facts<'_>) -> Judged {
    match &permission.rule {
        Some(Rule::Any(is)) => of(*is, "never".into()),
        Some(Rule::AndRules(set)) => all(set.rules.iter().map(|one| self::permission(one, facts))),
        Some(Rule::OrRules(set)) => any(set.rules.iter().map(|one| self::permission(one, facts))),
        Some(Rule::NotRule(one)) => not(&self::permission(one, facts), "what it excludes"),
        Some(Rule::Header(matcher)) => headers(matcher, facts),
        Some(Rule::UrlPath(matcher)) => url_path(matcher, facts),
        Some(Rule::DestinationIp(range)) => {
            of(cidr(range, facts.destination), format!("the destination is not in {}", show_cidr(range)))
        }
        Some(Rule::DestinationPort(port)) => {
            of(u32::from(facts.port) == *port, format!("port {} is not {port}", facts.port))
        }
        Some(Rule::DestinationPortRange(range)) => of(
            (range.start..range.end).contains(&i32::from(facts.port)),
            format!("port {} is not from {} to {}", facts.port, range.start, range.end - 1),
        ),
        Some(Rule::Metadata(matcher)) => said(matcher, facts),
        Some(Rule::SourcedMetadata(sourced)) => match &sourced.metadata_matcher {
            Some(matcher) if sourced.metadata_source == 0 => said(matcher, facts),
            _ => of(Tri::Unknown, "metadata of the route".into()),
        },
        Some(Rule::RequestedServerName(matcher)) => {
            of(string(matcher, facts.name), format!("SNI {:?} is not {}", facts.name, show(matcher)))
        }
        Some(Rule::UriTemplate(config)) => {
            let template = config.typed_config.as_ref().and_then(unpack::<UriTemplateMatchConfig>);
            let Some(template) = template else { return of(Tri::Unknown, config.name.clone()) };
            let path = facts.request.map_or("", Request::bare_path);
            let tri = matching::regex(&matching::template(&template.path_template), path);
            of(tri, format!("path {path} is not {}", template.path_template))
        }
        Some(Rule::Matcher(config)) => of(Tri::Unknown, config.name.clone()),
        None => of(Tri::Unknown, "a condition that is not known".into()),
    }
}

fn principal(principal: &Principal, facts: Facts<'_>) -> Judged {
    let identity = facts.tls.and_then(|tls| tls.identity.as_deref());
    let shown = identity.unwrap_or("no identity: the connection is in plaintext");
    match &principal.identifier {
        Some(Identifier::Any(is)) => of(*is, "nobody".into()),
        Some(Identifier::AndIds(set)) => all(set.ids.iter().map(|one| self::principal(one, facts))),
        Some(Identifier::OrIds(set)) => any(set.ids.iter().map(|one| self::principal(one, facts))),
        Some(Identifier::NotId(one)) => not(&self::principal(one, facts), "whom it excludes"),
        Some(Identifier::Authenticated(wanted)) => match &wanted.principal_name {
            None => of(facts.tls.is_some(), "the connection is in plaintext".into()),
            Some(matcher) => of(
                identity.map_or(Tri::No, |identity| string(matcher, identity)),
                format!("the client has {shown}, wanted {}", show(matcher)),
            ),
        },
        Some(Identifier::FilterState(state)) if state.key == PEER => match &state.matcher {
            Some(StateMatcher::StringMatch(matcher)) => of(
                identity.map_or(Tri::No, |identity| string(matcher, identity)),
                format!("the client has {shown}, wanted {}", show(matcher)),
            ),
            _ => of(Tri::Unknown, state.key.clone()),
        },
        Some(Identifier::FilterState(state)) => of(Tri::Unknown, format!("filter state {}", state.key)),
        Some(Identifier::SourceIp(range) | Identifier::DirectRemoteIp(range)) => of(
            cidr(range, facts.source),
            format!("the client {} is not in {}", ip(facts.source), show_cidr(range)),
        ),
        Some(Identifier::RemoteIp(range)) => of(
            cidr(range, facts.remote),
            format!("the client {} is not in {}", ip(facts.remote), show_cidr(range)),
        ),
        Some(Identifier::Header(matcher)) => headers(matcher, facts),
        Some(Identifier::UrlPath(matcher)) => url_path(matcher, facts),
        Some(Identifier::Metadata(matcher)) => said(matcher, facts),
        Some(Identifier::SourcedMetadata(sourced)) => match &sourced.metadata_matcher {
            Some(matcher) if sourced.metadata_source == 0 => said(matcher, facts),
            _ => of(Tri::Unknown, "metadata of the route".into()),
        },
        Some(Identifier::Custom(config)) => of(Tri::Unknown, config.name.clone()),
        None => of(Tri::Unknown, "a condition that is not known".into()),
    }
}

fn ip(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "?".into(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::rbac::v3::principal::Authenticated;
    use proto::envoy::r#type::matcher::v3::StringMatcher;
    use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

    use super::*;

    fn rules(action: rbac::Action, principals: Vec<Identifier>) -> Rbac {
        let principals =
            principals.into_iter().map(|identifier| Principal { identifier: Some(identifier) }).collect();
        let permissions = vec![Permission { rule: Some(Rule::Any(true)) }];
        let policy = Policy { permissions, principals, ..Policy::default() };
        Rbac {
            action: action.into(),
            policies: BTreeMap::from([("ns[a]-policy[b]-rule[1]".to_owned(), policy)]),
            ..Rbac::default()
        }
    }

    #[test]
    fn the_identity_of_the_client_decides() {
        let metadata = BTreeMap::new();
        let identity = |text: &str| {
            Some(Tls {
                name: String::new(),
                protocols: Vec::new(),
                identity: Some(text.into()),
                wanted: Vec::new(),
            })
        };
        let decide = |action, tls: &Option<Tls>| {
            let name = StringMatcher {
                match_pattern: Some(MatchPattern::Prefix("spiffe://td/ns/x/".into())),
                ignore_case: false,
            };
            let wanted = Identifier::Authenticated(Authenticated { principal_name: Some(name) });
            let facts = Facts {
                request: None,
                destination: None,
                port: 80,
                name: "",
                source: None,
                remote: None,
                tls: tls.as_ref(),
                metadata: &metadata,
            };
            decide(&rules(action, vec![wanted]), facts)
        };
        let good = identity("spiffe://td/ns/x/sa/y");
        let bad = identity("spiffe://td/ns/z/sa/y");
        assert_eq!(decide(rbac::Action::Allow, &good).passes, Tri::Yes);
        assert_eq!(decide(rbac::Action::Allow, &bad).passes, Tri::No);
        assert_eq!(decide(rbac::Action::Allow, &None).passes, Tri::No);
        let denied = decide(rbac::Action::Deny, &good);
        assert_eq!((denied.passes, denied.policy.as_deref()), (Tri::No, Some("ns[a]-policy[b]-rule[1]")));
        assert_eq!(denied.details, ["AuthorizationPolicy b.a rule 1: matches"]);
        assert_eq!(decide(rbac::Action::Log, &good).passes, Tri::Yes);
    }
}
