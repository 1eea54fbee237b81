//! Rules of an AuthorizationPolicy in the form of Envoy's RBAC filter.
//!
//! They depend on the policy and the trust domains only, so each policy is
//! translated once, however many proxies have it.

mod matcher;
mod permission;
mod principal;
mod rule;
mod trust_domain;

use proto::envoy::config::listener::v3::Filter;
use proto::envoy::config::rbac::v3::permission::Rule as PermissionRule;
use proto::envoy::config::rbac::v3::principal::Identifier;
use proto::envoy::config::rbac::v3::{Permission, Policy as EnvoyPolicy, Principal};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::snapshot::authz::{Action, Policy};

pub(crate) use matcher::JWT_PAYLOAD;

/// The rules of one policy, each with its position in it.
#[derive(Debug)]
pub(crate) struct Rules {
    /// For requests.
    pub(crate) http: Vec<(usize, EnvoyPolicy)>,
    /// For connections, which have no attributes of HTTP.
    pub(crate) tcp: Vec<(usize, EnvoyPolicy)>,
}

impl Rules {
    /// Translates a policy.
    pub(crate) fn new(policy: &Policy) -> Self {
        Self { http: translate(policy, false), tcp: translate(policy, true) }
    }
}

/// The filters of a set of policies, encoded once for all proxies that have
/// the same.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// For requests, CUSTOM.
    pub(crate) custom_http: Vec<HttpFilter>,
    /// For requests, the other actions.
    pub(crate) http: Vec<HttpFilter>,
    /// For connections, CUSTOM.
    pub(crate) custom_tcp: Vec<Filter>,
    /// For connections, the other actions.
    pub(crate) tcp: Vec<Filter>,
}

fn translate(policy: &Policy, is_tcp: bool) -> Vec<(usize, EnvoyPolicy)> {
    if policy.spec.rules.is_empty() {
        return vec![(0, never())];
    }
    let context = rule::Context {
        namespace: &policy.namespace,
        trust_domains: &policy.trust_domains,
        is_tcp,
        is_strict: policy.action == Action::Allow,
    };
    let rules = policy.spec.rules.iter().enumerate();
    rules.filter_map(|(index, rule)| Some((index, rule::translate(rule, context).ok()?))).collect()
}

/// Matches nothing.
fn never() -> EnvoyPolicy {
    let (permission, principal) = (permission::any(), principal::any());
    EnvoyPolicy {
        permissions: vec![Permission { rule: Some(PermissionRule::NotRule(Box::new(permission))) }],
        principals: vec![Principal { identifier: Some(Identifier::NotId(Box::new(principal))) }],
        ..EnvoyPolicy::default()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
