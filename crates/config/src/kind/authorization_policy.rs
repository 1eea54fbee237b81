//! Rules of `AuthorizationPolicy`.

mod value;
mod when;

use proto::istio::security::v1beta1::authorization_policy::{Action, ActionDetail};
use proto::istio::security::v1beta1::{AuthorizationPolicy, Operation, Rule, Source};

use crate::validate::Checker;

/// Attributes of `when` that say who is connected or who sent the request.
const IDENTITIES: [&str; 4] =
    ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];

pub(super) fn check(policy: &AuthorizationPolicy, checker: &mut Checker) {
    checker.selection(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs);
    let action = policy.action();
    let provider =
        policy.action_detail.as_ref().map(|ActionDetail::Provider(provider)| provider.name.as_str());
    if action == Action::Custom {
        if provider.is_none_or(str::is_empty) {
            checker.error(
                "provider.name",
                "is missing: CUSTOM asks a provider of the mesh's extensionProviders",
            );
        }
    } else if provider.is_some() {
        let message = format!("is for the action CUSTOM only, not for {}", action.as_str_name());
        checker.error("provider", message);
    }
    if policy.rules.is_empty() && matches!(action, Action::Deny | Action::Custom) {
        let message = format!(
            "is missing: without a rule {} never does anything; an empty rule {{}} is for every request",
            action.as_str_name()
        );
        checker.error("rules", message);
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let at = format!("rules[{index}]");
        self::rule(&at, rule, checker);
        match action {
            Action::Custom => without_identities(&at, rule, checker),
            Action::Deny => also_for_connections(&at, rule, checker),
            Action::Allow | Action::Audit => {}
        }
    }
}

fn rule(at: &str, rule: &Rule, checker: &mut Checker) {
    for (index, from) in rule.from.iter().enumerate() {
        let at = format!("{at}.from[{index}].source");
        match &from.source {
            Some(source) if *source != Source::default() => self::source(&at, source, checker),
            _ => checker.error(at, "says nothing: name who may be the source, or leave out from"),
        }
    }
    for (index, to) in rule.to.iter().enumerate() {
        let at = format!("{at}.to[{index}].operation");
        match &to.operation {
            Some(operation) if *operation != Operation::default() => self::operation(&at, operation, checker),
            _ => checker.error(at, "says nothing: name an operation, or leave out to"),
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        when::check(&format!("{at}.when[{index}]"), condition, checker);
    }
}

fn source(at: &str, source: &Source, checker: &mut Checker) {
    let has_accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let has_parts = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces]
        .iter()
        .any(|values| !values.is_empty());
    if has_accounts && has_parts {
        let message = "excludes principals and namespaces: a service account has its namespace in it";
        checker.error(format!("{at}.serviceAccounts"), message);
    }
    for (name, values, check) in [
        ("principals", &source.principals, value::pattern as value::Check),
        ("notPrincipals", &source.not_principals, value::pattern),
        ("requestPrincipals", &source.request_principals, value::pattern),
        ("notRequestPrincipals", &source.not_request_principals, value::pattern),
        ("namespaces", &source.namespaces, value::text),
        ("notNamespaces", &source.not_namespaces, value::text),
        ("serviceAccounts", &source.service_accounts, value::service_account),
        ("notServiceAccounts", &source.not_service_accounts, value::service_account),
        ("trustDomains", &source.trust_domains, value::trust_domain),
        ("notTrustDomains", &source.not_trust_domains, value::trust_domain),
        ("ipBlocks", &source.ip_blocks, value::network),
        ("notIpBlocks", &source.not_ip_blocks, value::network),
        ("remoteIpBlocks", &source.remote_ip_blocks, value::network),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks, value::network),
    ] {
        value::each(&format!("{at}.{name}"), values, check, checker);
    }
    for (name, values) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        value::at_most_16(&format!("{at}.{name}"), values, checker);
    }
}

fn operation(at: &str, operation: &Operation, checker: &mut Checker) {
    for (name, values, check) in [
        ("hosts", &operation.hosts, value::pattern as value::Check),
        ("notHosts", &operation.not_hosts, value::pattern),
        ("methods", &operation.methods, value::pattern),
        ("notMethods", &operation.not_methods, value::pattern),
        ("paths", &operation.paths, value::path),
        ("notPaths", &operation.not_paths, value::path),
        ("ports", &operation.ports, value::port),
        ("notPorts", &operation.not_ports, value::port),
    ] {
        value::each(&format!("{at}.{name}"), values, check, checker);
    }
}

/// The server is asked before it is known who asks.
fn without_identities(at: &str, rule: &Rule, checker: &mut Checker) {
    for (index, from) in rule.from.iter().enumerate() {
        let Some(source) = &from.source else { continue };
        for (name, values) in [
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ] {
            if !values.is_empty() {
                let at = format!("{at}.from[{index}].source.{name}");
                checker
                    .error(at, "is not possible with the action CUSTOM: the provider decides on identities");
            }
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        let key = condition.key.as_str();
        if IDENTITIES.contains(&key) || key.starts_with("request.auth.") {
            let message =
                format!("{key:?} is not possible with the action CUSTOM: the provider decides on identities");
            checker.error(format!("{at}.when[{index}].key"), message);
        }
    }
}

/// A rule to deny of which only attributes of HTTP are left out for connections
/// denies all of them.
fn also_for_connections(at: &str, rule: &Rule, checker: &mut Checker) {
    let of_connections = |source: &Source| {
        let values = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
            &source.service_accounts,
            &source.not_service_accounts,
            &source.trust_domains,
            &source.not_trust_domains,
            &source.ip_blocks,
            &source.not_ip_blocks,
            &source.remote_ip_blocks,
            &source.not_remote_ip_blocks,
        ];
        values.iter().any(|values| !values.is_empty())
    };
    let mut operations = rule.to.iter().filter_map(|to| to.operation.as_ref()).peekable();
    let mut sources = rule.from.iter().filter_map(|from| from.source.as_ref()).peekable();
    let has_to = operations.peek().is_some();
    let has_from = sources.peek().is_some();
    let has_port = operations.any(|operation| !operation.ports.is_empty() || !operation.not_ports.is_empty());
    if has_from && !has_to && !sources.any(of_connections) || has_to && !has_port {
        let message =
            "has attributes of HTTP only, and so denies every connection to TCP ports: name the ports in to";
        checker.warn(at, message);
    }
}

#[cfg(test)]
mod tests;
