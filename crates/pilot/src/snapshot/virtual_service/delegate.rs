//! Rules that another VirtualService holds for this one.

use std::collections::BTreeMap;

use config::Store;
use mesh::MeshConfig;
use proto::istio::networking::v1alpha3::string_match::MatchType;
use proto::istio::networking::v1alpha3::{
    Delegate, HttpMatchRequest, HttpRoute, StringMatch, VirtualService,
};

use super::resolve::resolved;
use crate::snapshot::visibility::Visibility;

/// A VirtualService with names resolved, and in the place of each rule that
/// delegates the rules of its delegate.
pub(super) fn merged(
    store: &Store,
    mesh: &MeshConfig,
    namespace: &str,
    spec: &VirtualService,
    domain: &str,
) -> VirtualService {
    let mut spec = resolved(spec, namespace, domain);
    if spec.http.iter().all(|rule| rule.delegate.is_none()) {
        return spec;
    }
    let rules = std::mem::take(&mut spec.http);
    for rule in rules {
        match &rule.delegate {
            None => spec.http.push(rule),
            Some(delegate) => {
                if let Ok(child) = find(store, mesh, namespace, delegate) {
                    let child = resolved(child, namespace_of(delegate, namespace), domain);
                    spec.http.extend(child.http.into_iter().filter_map(|child| merge(&rule, child)));
                }
            }
        }
    }
    spec
}

/// Why a rule cannot delegate.
pub(super) enum Problem {
    /// There is no such VirtualService.
    Missing,
    /// It has hosts, so it holds by itself.
    HasHosts,
    /// It is not exported to the namespace.
    NotExported,
}

/// The VirtualService without hosts that a rule delegates to.
pub(super) fn find<'a>(
    store: &'a Store,
    mesh: &MeshConfig,
    namespace: &str,
    delegate: &Delegate,
) -> Result<&'a VirtualService, Problem> {
    let own = namespace_of(delegate, namespace);
    let (_, child) = store.get::<VirtualService>(own, &delegate.name).ok_or(Problem::Missing)?;
    if !child.hosts.is_empty() {
        return Err(Problem::HasHosts);
    }
    let visibility = Visibility::new(&child.export_to, &mesh.default_virtual_service_export_to, own);
    if visibility.includes(namespace) { Ok(child) } else { Err(Problem::NotExported) }
}

/// The namespace of a delegate of a VirtualService in `namespace`.
pub(super) fn namespace_of<'a>(delegate: &'a Delegate, namespace: &'a str) -> &'a str {
    if delegate.namespace.is_empty() { namespace } else { &delegate.namespace }
}

/// A rule of the delegate with what the root says; `None` when no request could
/// meet the matches of both.
pub(super) fn merge(root: &HttpRoute, mut child: HttpRoute) -> Option<HttpRoute> {
    child.r#match = matches(&root.r#match, child.r#match)?;
    child.name = joined(&root.name, &child.name);
    child.rewrite = child.rewrite.or_else(|| root.rewrite.clone());
    child.direct_response = child.direct_response.or_else(|| root.direct_response.clone());
    child.timeout = child.timeout.or(root.timeout);
    child.retries = child.retries.or_else(|| root.retries.clone());
    child.fault = child.fault.or_else(|| root.fault.clone());
    child.mirror = child.mirror.or_else(|| root.mirror.clone());
    child.mirror_percent = child.mirror_percent.or(root.mirror_percent);
    child.mirror_percentage = child.mirror_percentage.or(root.mirror_percentage);
    child.cors_policy = child.cors_policy.or_else(|| root.cors_policy.clone());
    child.headers = child.headers.or_else(|| root.headers.clone());
    if child.mirrors.is_empty() {
        child.mirrors.clone_from(&root.mirrors);
    }
    Some(child)
}

fn joined(root: &str, child: &str) -> String {
    match (root.is_empty(), child.is_empty()) {
        (false, false) => format!("{root}-{child}"),
        (true, _) => child.to_owned(),
        (_, true) => root.to_owned(),
    }
}

/// The matches of both; each of the child's must fit into one of the root's.
fn matches(root: &[HttpMatchRequest], child: Vec<HttpMatchRequest>) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(child);
    }
    if child.is_empty() {
        return Some(root.to_vec());
    }
    let mut both = Vec::new();
    for inner in &child {
        let before = both.len();
        both.extend(root.iter().filter(|outer| fits(outer, inner)).map(|outer| one(outer, inner)));
        if both.len() == before {
            return None;
        }
    }
    Some(both)
}

fn one(root: &HttpMatchRequest, child: &HttpMatchRequest) -> HttpMatchRequest {
    fn union<V: Clone>(root: &BTreeMap<String, V>, child: &BTreeMap<String, V>) -> BTreeMap<String, V> {
        let mut both = root.clone();
        both.extend(child.iter().map(|(key, value)| (key.clone(), value.clone())));
        both
    }
    let text = |root: &String, child: &String| if child.is_empty() { root.clone() } else { child.clone() };
    HttpMatchRequest {
        name: joined(&root.name, &child.name),
        uri: child.uri.clone().or_else(|| root.uri.clone()),
        scheme: child.scheme.clone().or_else(|| root.scheme.clone()),
        method: child.method.clone().or_else(|| root.method.clone()),
        authority: child.authority.clone().or_else(|| root.authority.clone()),
        headers: union(&root.headers, &child.headers),
        without_headers: union(&root.without_headers, &child.without_headers),
        query_params: union(&root.query_params, &child.query_params),
        source_labels: union(&root.source_labels, &child.source_labels),
        port: if child.port == 0 { root.port } else { child.port },
        source_namespace: text(&root.source_namespace, &child.source_namespace),
        gateways: if child.gateways.is_empty() { root.gateways.clone() } else { child.gateways.clone() },
        stat_prefix: text(&root.stat_prefix, &child.stat_prefix),
        ..child.clone()
    }
}

/// Whether a match of the child is a part of one of the root.
fn fits(root: &HttpMatchRequest, child: &HttpMatchRequest) -> bool {
    let same = |root: &BTreeMap<String, StringMatch>, child: &BTreeMap<String, StringMatch>| {
        child.iter().all(|(key, value)| within(root.get(key), Some(value)))
    };
    within(root.uri.as_ref(), child.uri.as_ref())
        && within(root.scheme.as_ref(), child.scheme.as_ref())
        && within(root.method.as_ref(), child.method.as_ref())
        && within(root.authority.as_ref(), child.authority.as_ref())
        && same(&root.headers, &child.headers)
        && same(&root.without_headers, &child.without_headers)
        && same(&root.query_params, &child.query_params)
        && root.ignore_uri_case == child.ignore_uri_case
        && (root.port == 0 || child.port == 0 || root.port == child.port)
        && (root.source_namespace.is_empty() || root.source_namespace == child.source_namespace)
        && child
            .source_labels
            .iter()
            .all(|(key, value)| root.source_labels.get(key).is_none_or(|known| known == value))
        && (root.gateways.is_empty() || child.gateways.iter().all(|name| root.gateways.contains(name)))
}

/// Whether every text of the child is one of the root. What a pattern means is
/// not looked into: beside one, the other side may say nothing.
fn within(root: Option<&StringMatch>, child: Option<&StringMatch>) -> bool {
    let (Some(root), Some(child)) = (root, child) else { return true };
    match (root.match_type.as_ref(), child.match_type.as_ref()) {
        (Some(MatchType::Exact(root)), Some(MatchType::Exact(child))) => root == child,
        (Some(MatchType::Prefix(root)), Some(MatchType::Exact(child) | MatchType::Prefix(child))) => {
            !root.is_empty() && child.starts_with(root.as_str())
        }
        _ => false,
    }
}
