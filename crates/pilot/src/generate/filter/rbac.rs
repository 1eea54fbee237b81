//! Who may do what (AuthorizationPolicy: AUDIT, DENY, ALLOW).

use std::sync::Arc;

use proto::envoy::config::listener::v3::Filter;
use proto::envoy::config::rbac::v3::{Rbac, rbac};
use proto::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;

use super::{Direction, Place, ext_authz};
use crate::generate::http::filter;
use crate::generate::message::network_filter;
use crate::rbac::{Filters, Rules};
use crate::scope::Scope;
use crate::snapshot::authz::{Action, Policy};

const HTTP: &str = "envoy.filters.http.rbac";
const NETWORK: &str = "envoy.filters.network.rbac";
/// First part of the names of statistics on connections.
const TCP_STATS: &str = "tcp.";

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    filters(scope, place).map(|filters| filters.http.clone()).unwrap_or_default()
}

/// Filters of a server that is an application itself: gRPC's library knows DENY
/// and ALLOW. It can ask nobody, so what a CUSTOM policy selects is denied whole.
pub(in crate::generate) fn proxyless(scope: Scope<'_>) -> Vec<HttpFilter> {
    let policies = scope.snapshot.authz.select(&scope.proxy.namespace, scope.labels());
    let asks = policies.iter().any(|policy| policy.action == Action::Custom && !policy.is_dry_run);
    // Without a rule that allows anything.
    let nobody = Rbac { action: rbac::Action::Allow.into(), ..Rbac::default() };
    let nobody = asks.then(|| http_filter(&HttpRbac { rules: Some(nobody), ..HttpRbac::default() }));
    let decided = [Action::Deny, Action::Allow].into_iter().filter_map(|action| {
        let policies: Vec<&Policy> =
            with_action(&policies, action).into_iter().filter(|policy| !policy.is_dry_run).collect();
        (!policies.is_empty()).then(|| Decision::new(&policies, action, |rules| &rules.http).http())
    });
    nobody.into_iter().chain(decided).collect()
}

/// Filters for connections.
pub(in crate::generate) fn network(scope: Scope<'_>, place: Place<'_>) -> Vec<Filter> {
    filters(scope, place).map(|filters| filters.tcp.clone()).unwrap_or_default()
}

/// The filters of all policies for the proxy; `None` where there are none. A
/// server decides, not its clients.
pub(super) fn filters(scope: Scope<'_>, place: Place<'_>) -> Option<Arc<Filters>> {
    if place.direction == Direction::Outbound {
        return None;
    }
    let policies = scope.snapshot.authz.select(&scope.proxy.namespace, scope.labels());
    if policies.is_empty() {
        return None;
    }
    let ids = policies.iter().map(|policy| policy.id).collect();
    Some(scope.snapshot.authz_filters.get(ids, || {
        let custom: Vec<&Policy> = with_action(&policies, Action::Custom);
        let built = [Action::Audit, Action::Deny, Action::Allow].map(|action| {
            let policies = with_action(&policies, action);
            (!policies.is_empty()).then(|| {
                let http = Decision::new(&policies, action, |rules| &rules.http);
                (http.http(), Decision::new(&policies, action, |rules| &rules.tcp).network())
            })
        });
        let (http, tcp) = built.into_iter().flatten().unzip();
        Filters {
            custom_http: ext_authz::build_http(scope.snapshot, &custom),
            http,
            custom_tcp: ext_authz::build_network(scope.snapshot, &custom),
            tcp,
        }
    }))
}

fn with_action<'a>(policies: &[&'a Arc<Policy>], action: Action) -> Vec<&'a Policy> {
    policies.iter().filter(|policy| policy.action == action).map(|policy| &***policy).collect()
}

/// Rules of one policy, each with its position.
type PolicyRules = Vec<(usize, proto::envoy::config::rbac::v3::Policy)>;

/// What policies of one action decide, and what those would that are only tried.
struct Decision {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
}

impl Decision {
    fn new(policies: &[&Policy], action: Action, of: fn(&Rules) -> &PolicyRules) -> Self {
        let action = match action {
            Action::Allow => rbac::Action::Allow,
            Action::Deny | Action::Custom => rbac::Action::Deny,
            Action::Audit => rbac::Action::Log,
        };
        let (mut rules, mut shadow) = (None, None);
        for policy in policies {
            let target = if policy.is_dry_run { &mut shadow } else { &mut rules };
            let rbac = target.get_or_insert_with(|| Rbac { action: action.into(), ..Rbac::default() });
            for (index, rule) in of(policy.rules()) {
                rbac.policies.insert(name(policy, *index), rule.clone());
            }
        }
        Self { rules, shadow }
    }

    fn shadow_prefix(&self) -> String {
        let prefix = match self.shadow.as_ref().map_or(rbac::Action::Allow, Rbac::action) {
            rbac::Action::Allow => "istio_dry_run_allow_",
            rbac::Action::Deny => "istio_dry_run_deny_",
            rbac::Action::Log => "",
        };
        prefix.into()
    }

    fn http(self) -> HttpFilter {
        let shadow_rules_stat_prefix = self.shadow_prefix();
        http_filter(&HttpRbac {
            rules: self.rules,
            shadow_rules: self.shadow,
            shadow_rules_stat_prefix,
            ..HttpRbac::default()
        })
    }

    fn network(self) -> Filter {
        let shadow_rules_stat_prefix = self.shadow_prefix();
        network_rbac(NetworkRbac {
            rules: self.rules,
            shadow_rules: self.shadow,
            shadow_rules_stat_prefix,
            ..NetworkRbac::default()
        })
    }
}

/// Name of a rule in statistics and logs.
pub(super) fn name(policy: &Policy, index: usize) -> String {
    format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace, policy.name)
}

pub(super) fn http_filter(config: &HttpRbac) -> HttpFilter {
    filter(HTTP, config)
}

pub(super) fn network_rbac(config: NetworkRbac) -> Filter {
    network_filter(NETWORK, &NetworkRbac { stat_prefix: TCP_STATS.into(), ..config })
}
