//! Which tokens of end users are accepted (RequestAuthentication).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use config::{Kind, Object, SpecKind as _, Store};
use names::Hostname;
use proto::istio::security::v1beta1::{JwtRule, RequestAuthentication};

use super::attach::Workload;
use crate::settings::KeyFetch;

/// Where OpenID Connect's discovery document of an issuer is.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Time for fetching keys when a rule gives none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A policy.
#[derive(Debug)]
pub struct Policy {
    /// Number that no other policy of the index has.
    pub(crate) id: usize,
    namespace: String,
    /// What it says.
    pub spec: RequestAuthentication,
}

impl Policy {
    fn is_for(&self, workload: Workload<'_>) -> bool {
        let RequestAuthentication { selector, target_ref, target_refs, .. } = &self.spec;
        workload.is_of_policy(&self.namespace, selector.as_ref(), target_refs, target_ref.as_slice())
    }
}

/// All policies.
#[derive(Debug, Default)]
pub struct Index {
    root_namespace: String,
    namespaces: BTreeMap<String, Vec<Arc<Policy>>>,
    /// Namespaces of policies by the hosts that their rules have keys from.
    servers: BTreeMap<Hostname, BTreeSet<String>>,
}

impl Index {
    /// Indexes the policies of a store.
    #[must_use]
    pub fn build(store: &Store, root_namespace: &str) -> Self {
        let mut index = Self { root_namespace: root_namespace.into(), ..Self::default() };
        for (id, (object, spec)) in store.by_age::<RequestAuthentication>().into_iter().enumerate() {
            let namespace = object.meta.namespace.clone();
            let policy = Policy { id, namespace: namespace.clone(), spec: spec.clone() };
            let uris = policy.spec.jwt_rules.iter().map(|rule| rule.jwks_uri.as_str());
            for (host, _) in uris.filter_map(host_and_port) {
                index.servers.entry(Hostname::new(host)).or_default().insert(namespace.clone());
            }
            index.namespaces.entry(namespace).or_default().push(Arc::new(policy));
        }
        index
    }

    /// Policies for a workload: those of its namespace, then those of the root
    /// namespace, the oldest first.
    #[must_use]
    pub fn select(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<&Arc<Policy>> {
        let workload = Workload { namespace, labels };
        let root = (namespace != self.root_namespace).then_some(self.root_namespace.as_str());
        std::iter::once(namespace)
            .chain(root)
            .filter_map(|namespace| self.namespaces.get(namespace))
            .flatten()
            .filter(|policy| policy.is_for(workload))
            .collect()
    }

    /// Namespaces with policies whose rules have keys from that host.
    pub(crate) fn users_of(&self, host: &Hostname) -> impl Iterator<Item = &String> {
        self.servers.get(host).into_iter().flatten()
    }
}

/// The URI that the keys of a rule's issuer come from: of the keys, or of the
/// issuer's discovery document. `None` when the rule has the keys in it, or
/// when its issuer is no URI.
#[must_use]
pub fn key_uri(rule: &JwtRule) -> Option<String> {
    if !rule.jwks.is_empty() {
        None
    } else if !rule.jwks_uri.is_empty() {
        Some(rule.jwks_uri.clone())
    } else {
        let issuer = rule.issuer.strip_suffix('/').unwrap_or(&rule.issuer);
        let is_uri = issuer.starts_with("https://") || issuer.starts_with("http://");
        is_uri.then(|| format!("{issuer}{DISCOVERY}"))
    }
}

/// Policies with rules that take their keys from one of these URIs.
#[must_use]
pub fn users<'a>(store: &'a Store, uris: &BTreeSet<&str>) -> Vec<&'a Arc<Object>> {
    let takes = |object: &&Arc<Object>| {
        let rules = RequestAuthentication::of(&object.spec).into_iter().flat_map(|policy| &policy.jwt_rules);
        rules.filter_map(key_uri).any(|uri| uris.contains(uri.as_str()))
    };
    store.shared(Kind::RequestAuthentication).filter(takes).collect()
}

/// The host and the port of a URI, which may have none of its own.
pub(crate) fn host_and_port(uri: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = uri.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    (!host.is_empty()).then_some((host, port))
}

/// Every URI that the control plane has to fetch keys from, with the time that the most
/// patient rule gives it.
#[must_use]
pub fn key_uris(store: &Store, fetch: KeyFetch) -> BTreeMap<String, Duration> {
    let mut uris = BTreeMap::new();
    for (_, policy) in store.all::<RequestAuthentication>() {
        for rule in &policy.jwt_rules {
            if fetch == KeyFetch::Envoy && !rule.jwks_uri.is_empty() {
                continue;
            }
            let Some(uri) = key_uri(rule) else { continue };
            let given = rule.timeout.and_then(proto::wkt::Duration::to_std);
            let timeout = given.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT);
            let known = uris.entry(uri).or_insert(timeout);
            *known = timeout.max(*known);
        }
    }
    uris
}

#[cfg(test)]
mod tests {
    use config::yaml;

    use super::*;

    fn store(policies: &[(&str, &str, &str)]) -> Store {
        let mut store = Store::default();
        for (namespace, name, spec) in policies {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
            );
            for object in yaml::read("a.yaml", &text).objects {
                store.apply(object.into());
            }
        }
        store
    }

    #[test]
    fn a_workload_has_those_of_its_namespace_and_the_root_namespace() {
        let store = store(&[
            ("istio-system", "root", "{jwtRules: [{issuer: root}]}"),
            ("a", "own", "{jwtRules: [{issuer: own}]}"),
            ("a", "other", "{selector: {matchLabels: {app: other}}, jwtRules: [{issuer: other}]}"),
            ("b", "foreign", "{jwtRules: [{issuer: foreign}]}"),
        ]);
        let index = Index::build(&store, "istio-system");
        let labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        let issuers: Vec<&str> = index
            .select("a", &labels)
            .iter()
            .flat_map(|policy| policy.spec.jwt_rules.iter().map(|rule| rule.issuer.as_str()))
            .collect();
        assert_eq!(issuers, ["own", "root"]);
    }

    #[test]
    fn keys_come_from_their_uri_or_are_looked_up_at_the_issuer() {
        let store = store(&[
            ("a", "x", "{jwtRules: [{issuer: i, jwksUri: 'https://a/keys', timeout: 2s}]}"),
            ("b", "x", "{jwtRules: [{issuer: j, jwksUri: 'https://a/keys'}]}"),
            (
                "c",
                "x",
                "{jwtRules: [{issuer: 'https://b/'}, {issuer: someone}, {issuer: k, jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"AQAB\"}]}'}]}",
            ),
        ]);
        let seconds = Duration::from_secs;
        let want = [
            ("https://a/keys".to_owned(), seconds(5)),
            ("https://b/.well-known/openid-configuration".to_owned(), seconds(5)),
        ];
        assert_eq!(key_uris(&store, KeyFetch::Istiod), BTreeMap::from(want.clone()));
        assert_eq!(key_uris(&store, KeyFetch::Envoy), BTreeMap::from([want[1].clone()]));
    }
}
