//! Envoy's principals: who asks.

use proto::envoy::config::rbac::v3::Principal;
use proto::envoy::config::rbac::v3::principal::{Authenticated, Identifier, Set};
use proto::envoy::r#type::matcher::v3::StringMatcher;

use super::matcher::{self, escape};
use super::rule::{Context, Unusable};

/// What identities of workloads begin with.
const SCHEME: &str = "spiffe://";

/// An attribute of who asks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attribute<'a> {
    Ip,
    RemoteIp,
    Namespace,
    TrustDomain,
    ServiceAccount,
    Principal,
    RequestPrincipal,
    Audiences,
    Presenter,
    /// The brackets after `request.headers`.
    Header(&'a str),
    /// The brackets after `request.auth.claims`.
    Claims(&'a str),
}

fn of(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

pub(super) fn any() -> Principal {
    of(Identifier::Any(true))
}

pub(super) fn all_of(ids: Vec<Principal>) -> Principal {
    of(Identifier::AndIds(Set { ids }))
}

pub(super) fn one_of(ids: Vec<Principal>) -> Principal {
    of(Identifier::OrIds(Set { ids }))
}

pub(super) fn not(id: Principal) -> Principal {
    of(Identifier::NotId(Box::new(id)))
}

/// One of those values; `None` when none is left.
pub(super) fn values(
    attribute: Attribute<'_>,
    values: &[String],
    context: Context<'_>,
) -> Result<Option<Principal>, Unusable> {
    if values.is_empty() {
        return Ok(None);
    }
    match attribute {
        Attribute::RequestPrincipal => context.usable(request_principals(values, context)),
        Attribute::Audiences => context.usable(claims(&["aud"], values, context)),
        Attribute::Presenter => context.usable(claims(&["azp"], values, context)),
        Attribute::Claims(brackets) => {
            context.usable(nested(brackets).and_then(|path| claims(&path, values, context)))
        }
        _ => {
            let mut ids = Vec::with_capacity(values.len());
            for value in values {
                ids.extend(context.usable(one(attribute, value, context))?);
            }
            Ok((!ids.is_empty()).then(|| one_of(ids)))
        }
    }
}

fn one(attribute: Attribute<'_>, value: &str, context: Context<'_>) -> Result<Principal, Unusable> {
    let identifier = match attribute {
        Attribute::Ip => Identifier::DirectRemoteIp(matcher::cidr(value).ok_or(Unusable)?),
        Attribute::RemoteIp => Identifier::RemoteIp(matcher::cidr(value).ok_or(Unusable)?),
        Attribute::Namespace => peer(matcher::regex(namespace(value))),
        Attribute::TrustDomain => peer(trust_domain(value)),
        Attribute::ServiceAccount => {
            let (namespace, account) = value.split_once('/').unwrap_or((context.namespace, value));
            let (namespace, account) = (escape(namespace), escape(account));
            peer(matcher::regex(format!("{SCHEME}.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?")))
        }
        Attribute::Principal => peer(matcher::value(value, SCHEME)),
        Attribute::Header(brackets) => {
            let name = brackets.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(Unusable)?;
            // `:method` and its like are headers, too.
            if context.is_tcp || !config::is_header_name(name.strip_prefix(':').unwrap_or(name)) {
                return Err(Unusable);
            }
            Identifier::Header(matcher::header(name, value, false))
        }
        Attribute::RequestPrincipal | Attribute::Audiences | Attribute::Presenter | Attribute::Claims(_) => {
            return Err(Unusable);
        }
    };
    Ok(of(identifier))
}

/// The name in the certificate of who is connected.
fn peer(name: StringMatcher) -> Identifier {
    Identifier::Authenticated(Authenticated { principal_name: Some(name) })
}

/// The namespace in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`. In Istio's form
/// the words around it are looked for anywhere; where `sa` could be taken for
/// the end of a namespace, or for the namespace after one that is called `ns`,
/// it is looked for in its place only.
fn namespace(value: &str) -> String {
    let parts: Vec<&str> = value.split('*').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let has_star = parts.len() > 1;
    let is_ambiguous = value != "*"
        && ("sa".starts_with(first) && "sa".ends_with(last)
            || has_star && !last.is_empty() && "sa".ends_with(last)
            || parts.len() > 2 && last.is_empty());
    let parts: Vec<String> = parts.into_iter().map(escape).collect();
    if is_ambiguous {
        format!("{SCHEME}[^/]*/ns/{}/.*", parts.join("[^/]*"))
    } else {
        format!(".*/ns/{}/.*", parts.join(".*"))
    }
}

fn trust_domain(value: &str) -> StringMatcher {
    match value.split_once('*') {
        Some(("", "")) => matcher::prefix(SCHEME),
        Some((start, end)) => matcher::regex(format!("{SCHEME}{}[^/]*{}/.*", escape(start), escape(end))),
        None => matcher::prefix(format!("{SCHEME}{value}/")),
    }
}

/// `ISSUER/SUBJECT`, of which either may have a `*`; the last `/` divides them,
/// since an issuer may be a URL.
fn request_principals(values: &[String], context: Context<'_>) -> Result<Principal, Unusable> {
    if context.is_tcp {
        return Err(Unusable);
    }
    let mut ids = Vec::with_capacity(values.len());
    for value in values {
        let (issuer, subject) = request_principal(value);
        let of_claim = |name: &str, wanted: StringMatcher| {
            let matcher = matcher::claim(&[name], matcher::string_value(wanted)).ok_or(Unusable)?;
            Ok(of(Identifier::Metadata(matcher)))
        };
        ids.push(all_of(vec![of_claim("iss", issuer)?, of_claim("sub", subject)?]));
    }
    Ok(if ids.len() == 1 { ids.remove(0) } else { one_of(ids) })
}

fn request_principal(value: &str) -> (StringMatcher, StringMatcher) {
    let divided = value.rsplit_once('/');
    if value == "*" {
        (matcher::anything(), matcher::anything())
    } else if let Some(end) = value.strip_prefix('*') {
        match divided {
            Some(("*", subject)) => (matcher::anything(), matcher::exact(subject)),
            Some((issuer, subject)) => {
                (matcher::suffix(issuer.strip_prefix('*').unwrap_or(issuer)), matcher::exact(subject))
            }
            None => (matcher::anything(), matcher::suffix(end)),
        }
    } else if let Some(start) = value.strip_suffix('*') {
        match divided {
            Some((issuer, "*")) => (matcher::exact(issuer), matcher::anything()),
            Some((issuer, subject)) => {
                (matcher::exact(issuer), matcher::prefix(subject.strip_suffix('*').unwrap_or(subject)))
            }
            None => (matcher::prefix(start), matcher::anything()),
        }
    } else {
        let (issuer, subject) = divided.unwrap_or((value, ""));
        (matcher::exact(issuer), matcher::exact(subject))
    }
}

fn claims(path: &[&str], values: &[String], context: Context<'_>) -> Result<Principal, Unusable> {
    if context.is_tcp {
        return Err(Unusable);
    }
    let matchers = values.iter().map(|value| matcher::string_value(matcher::value(value, "")));
    let matcher = matcher::claim_or_list(path, matcher::any_of(matchers.collect()));
    Ok(of(Identifier::Metadata(matcher.ok_or(Unusable)?)))
}

/// `[a][b]` as a path; anything else between the outer brackets is one name.
fn nested(brackets: &str) -> Result<Vec<&str>, Unusable> {
    let inner = brackets.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(Unusable)?;
    let parts: Vec<&str> = inner.split("][").collect();
    let is_plain = parts.iter().all(|part| !part.contains(['[', ']']));
    Ok(if is_plain { parts } else { vec![inner] })
}
