//! One rule: its conditions, divided into what is asked for and who asks.

use proto::envoy::config::rbac::v3::{Permission, Policy, Principal};
use proto::istio::security::v1beta1::{Condition, Operation, Rule, Source};

use super::{permission, principal, trust_domain};

/// A value or an attribute that cannot be used here: attributes of HTTP for
/// connections, or something that Envoy would refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable;

/// What the translation of a value depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// Namespace of the policy.
    pub(super) namespace: &'a str,
    pub(super) trust_domains: &'a [String],
    /// For connections.
    pub(super) is_tcp: bool,
    /// Whether a rule with something unusable is left out, so that less is
    /// allowed; else the unusable part is, so that more is denied.
    pub(super) is_strict: bool,
}

impl Context<'_> {
    pub(super) fn usable<T>(self, result: Result<T, Unusable>) -> Result<Option<T>, Unusable> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Unusable) if self.is_strict => Err(Unusable),
            Err(Unusable) => Ok(None),
        }
    }
}

/// An attribute with the values that it must and must not have.
struct Wanted<'a, A> {
    attribute: A,
    values: &'a [String],
    not_values: &'a [String],
}

impl<'a, A> Wanted<'a, A> {
    fn new(attribute: A, values: &'a [String], not_values: &'a [String]) -> Self {
        Self { attribute, values, not_values }
    }
}

/// Envoy's form of a rule.
pub(super) fn translate(rule: &Rule, context: Context<'_>) -> Result<Policy, Unusable> {
    let mut asked = Vec::new();
    let mut who = Vec::new();
    for condition in &rule.when {
        match attribute(&condition.key).ok_or(Unusable)? {
            Attribute::Asked(attribute) => asked.push((attribute, condition)),
            Attribute::Who(attribute) => who.push((attribute, condition)),
        }
    }
    let permissions = if rule.to.is_empty() {
        vec![permission(&Operation::default(), &asked, context)?]
    } else {
        let none = Operation::default();
        let operations = rule.to.iter().map(|to| to.operation.as_ref().unwrap_or(&none));
        operations.map(|operation| permission(operation, &asked, context)).collect::<Result<_, _>>()?
    };
    let principals = if rule.from.is_empty() {
        vec![principal(&Source::default(), &who, context)?]
    } else {
        let none = Source::default();
        let sources = rule.from.iter().map(|from| from.source.as_ref().unwrap_or(&none));
        sources.map(|source| principal(source, &who, context)).collect::<Result<_, _>>()?
    };
    Ok(Policy { permissions, principals, ..Policy::default() })
}

enum Attribute<'a> {
    Asked(permission::Attribute<'a>),
    Who(principal::Attribute<'a>),
}

/// The attribute that a `key` of `when` names.
fn attribute(key: &str) -> Option<Attribute<'_>> {
    use permission::Attribute as Asked;
    use principal::Attribute as Who;
    let who = |attribute| Some(Attribute::Who(attribute));
    let asked = |attribute| Some(Attribute::Asked(attribute));
    match key {
        "destination.ip" => asked(Asked::Ip),
        "destination.port" => asked(Asked::Port),
        "connection.sni" => asked(Asked::Sni),
        "source.ip" => who(Who::Ip),
        "remote.ip" => who(Who::RemoteIp),
        "source.namespace" => who(Who::Namespace),
        "source.trustDomain" => who(Who::TrustDomain),
        "source.serviceAccount" => who(Who::ServiceAccount),
        "source.principal" => who(Who::Principal),
        "request.auth.principal" => who(Who::RequestPrincipal),
        "request.auth.audiences" => who(Who::Audiences),
        "request.auth.presenter" => who(Who::Presenter),
        _ => {
            if let Some(rest) = key.strip_prefix("experimental.") {
                if !rest.starts_with("envoy.filters.") {
                    return None;
                }
                let rest = rest.strip_suffix(']').unwrap_or(rest);
                let (filter, name) = rest.split_once('[').unwrap_or((rest, ""));
                asked(Asked::Metadata(filter, name))
            } else if let Some(brackets) = key.strip_prefix("request.headers") {
                who(Who::Header(brackets))
            } else if let Some(brackets) = key.strip_prefix("request.auth.claims") {
                who(Who::Claims(brackets))
            } else {
                None
            }
        }
    }
}

fn permission(
    operation: &Operation,
    conditions: &[(permission::Attribute<'_>, &Condition)],
    context: Context<'_>,
) -> Result<Permission, Unusable> {
    use permission::Attribute;
    let own = [
        Wanted::new(Attribute::Host, &operation.hosts, &operation.not_hosts),
        Wanted::new(Attribute::Method, &operation.methods, &operation.not_methods),
        Wanted::new(Attribute::Path, &operation.paths, &operation.not_paths),
        Wanted::new(Attribute::Port, &operation.ports, &operation.not_ports),
    ];
    let when = conditions
        .iter()
        .map(|(attribute, condition)| Wanted::new(*attribute, &condition.values, &condition.not_values));
    let mut rules = Vec::new();
    for Wanted { attribute, values, not_values } in own.into_iter().chain(when) {
        rules.extend(permission::values(attribute, values, context)?);
        rules.extend(permission::values(attribute, not_values, context)?.map(permission::not));
    }
    if rules.is_empty() {
        rules.push(permission::any());
    }
    Ok(permission::all_of(rules))
}

fn principal(
    source: &Source,
    conditions: &[(principal::Attribute<'_>, &Condition)],
    context: Context<'_>,
) -> Result<Principal, Unusable> {
    use principal::Attribute;
    let own = [
        Wanted::new(Attribute::Principal, &source.principals, &source.not_principals),
        Wanted::new(Attribute::RequestPrincipal, &source.request_principals, &source.not_request_principals),
        Wanted::new(Attribute::ServiceAccount, &source.service_accounts, &source.not_service_accounts),
        Wanted::new(Attribute::TrustDomain, &source.trust_domains, &source.not_trust_domains),
        Wanted::new(Attribute::Namespace, &source.namespaces, &source.not_namespaces),
        Wanted::new(Attribute::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        Wanted::new(Attribute::Ip, &source.ip_blocks, &source.not_ip_blocks),
    ];
    let when = conditions
        .iter()
        .map(|(attribute, condition)| Wanted::new(*attribute, &condition.values, &condition.not_values));
    let mut ids = Vec::new();
    for Wanted { attribute, values, not_values } in own.into_iter().chain(when) {
        let expand = |values: &[String]| match attribute {
            Attribute::Principal => trust_domain::expand_principals(values, context.trust_domains),
            Attribute::TrustDomain => trust_domain::expand_domains(values, context.trust_domains),
            _ => values.to_vec(),
        };
        ids.extend(principal::values(attribute, &expand(values), context)?);
        ids.extend(principal::values(attribute, &expand(not_values), context)?.map(principal::not));
    }
    if ids.is_empty() {
        ids.push(principal::any());
    }
    Ok(principal::all_of(ids))
}
