//! Decisions by a server outside (AuthorizationPolicy: CUSTOM).
//!
//! An RBAC filter marks what the policies match, by a shadow rule that decides
//! nothing; the filter after it asks the server about what is marked.

mod provider;

use std::collections::BTreeMap;

use proto::envoy::config::listener::v3::Filter;
use proto::envoy::config::rbac::v3::{Rbac, rbac};
use proto::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz as HttpExtAuthz;
use proto::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use proto::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use proto::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use proto::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use proto::envoy::r#type::matcher::v3::{MetadataMatcher, StringMatcher, ValueMatcher};

use super::{Place, rbac as decisions};
use crate::generate::http::filter;
use crate::generate::message::network_filter;
use crate::rbac::Rules;
use crate::scope::Scope;
use crate::snapshot::Snapshot;
use crate::snapshot::authz::Policy;

/// First part of names of rules that mark requests.
const MARK: &str = "istio-ext-authz";
/// First part of the key under which the mark is.
const SHADOW_PREFIX: &str = "istio_ext_authz_";
/// Last part of names of rules that deny since nobody can be asked.
const BAD: &str = "-deny-due-to-bad-CUSTOM-action";

/// Filters for requests.
pub(in crate::generate) fn http(scope: Scope<'_>, place: Place<'_>) -> Vec<HttpFilter> {
    decisions::filters(scope, place).map(|filters| filters.custom_http.clone()).unwrap_or_default()
}

/// Filters for connections.
pub(in crate::generate) fn network(scope: Scope<'_>, place: Place<'_>) -> Vec<Filter> {
    decisions::filters(scope, place).map(|filters| filters.custom_tcp.clone()).unwrap_or_default()
}

/// Filters of CUSTOM policies for requests.
pub(super) fn build_http(snapshot: &Snapshot, policies: &[&Policy]) -> Vec<HttpFilter> {
    let marks = by_provider(policies, |rules| &rules.http);
    let is_ambiguous = is_ambiguous(snapshot, &marks);
    let mut filters = Vec::new();
    for (name, marks) in marks {
        let ask = if is_ambiguous { None } else { provider::http(snapshot, name) };
        let Some(ask) = ask else {
            let deny = HttpRbac { rules: Some(bad(marks)), ..HttpRbac::default() };
            filters.push(decisions::http_filter(&deny));
            continue;
        };
        filters.push(decisions::http_filter(&HttpRbac {
            shadow_rules: Some(marks),
            shadow_rules_stat_prefix: SHADOW_PREFIX.into(),
            ..HttpRbac::default()
        }));
        let marked = marked(name, "envoy.filters.http.rbac");
        let ask = HttpExtAuthz { filter_enabled_metadata: Some(marked), ..ask };
        filters.push(filter("envoy.filters.http.ext_authz", &ask));
    }
    filters
}

/// Filters of CUSTOM policies for connections; a server that speaks HTTP is
/// not asked about them.
pub(super) fn build_network(snapshot: &Snapshot, policies: &[&Policy]) -> Vec<Filter> {
    let marks = by_provider(policies, |rules| &rules.tcp);
    let is_ambiguous = is_ambiguous(snapshot, &marks);
    let mut filters = Vec::new();
    for (name, marks) in marks {
        let ask = if is_ambiguous { None } else { provider::network(snapshot, name) };
        match ask {
            None => filters.push(decisions::network_rbac(NetworkRbac {
                rules: Some(bad(marks)),
                ..NetworkRbac::default()
            })),
            Some(None) => {}
            Some(Some(ask)) => {
                filters.push(decisions::network_rbac(NetworkRbac {
                    shadow_rules: Some(marks),
                    shadow_rules_stat_prefix: SHADOW_PREFIX.into(),
                    ..NetworkRbac::default()
                }));
                let marked = marked(name, "envoy.filters.network.rbac");
                let ask = NetworkExtAuthz { filter_enabled_metadata: Some(marked), ..ask };
                filters.push(network_filter("envoy.filters.network.ext_authz", &ask));
            }
        }
    }
    filters
}

/// Several servers for one workload are a mistake unless they are switched on.
fn is_ambiguous(snapshot: &Snapshot, marks: &BTreeMap<&str, Rbac>) -> bool {
    marks.len() > 1 && !snapshot.settings.features.multiple_custom_providers
}

/// The rules that mark, by the server that is asked. Policies that are only
/// tried ask nobody, since that could not be told from the others.
fn by_provider<'a>(
    policies: &[&'a Policy],
    of: fn(&Rules) -> &Vec<(usize, proto::envoy::config::rbac::v3::Policy)>,
) -> BTreeMap<&'a str, Rbac> {
    let mut providers = BTreeMap::new();
    for policy in policies.iter().filter(|policy| !policy.is_dry_run) {
        let provider = policy.provider();
        let rbac = providers
            .entry(provider)
            .or_insert_with(|| Rbac { action: rbac::Action::Deny.into(), ..Rbac::default() });
        for (index, rule) in of(policy.rules()) {
            let separator = if provider.is_empty() { "" } else { "-" };
            let name = format!("{MARK}-{provider}{separator}{}", decisions::name(policy, *index));
            rbac.policies.insert(name, rule.clone());
        }
    }
    providers
}

/// Denies what would have been asked about.
fn bad(marks: Rbac) -> Rbac {
    let policies = marks.policies.into_iter().map(|(name, rule)| (format!("{name}{BAD}"), rule)).collect();
    Rbac { policies, ..marks }
}

/// What the rules of a server have marked.
fn marked(provider: &str, filter: &str) -> MetadataMatcher {
    let key = path_segment::Segment::Key(format!("{SHADOW_PREFIX}shadow_effective_policy_id"));
    let wanted = StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(format!("{MARK}-{provider}"))),
        ignore_case: false,
    };
    MetadataMatcher {
        filter: filter.into(),
        path: vec![PathSegment { segment: Some(key) }],
        value: Some(ValueMatcher { match_pattern: Some(ValuePattern::StringMatch(wanted)) }),
        ..MetadataMatcher::default()
    }
}
