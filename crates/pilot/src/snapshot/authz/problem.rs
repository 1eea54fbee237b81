//! Warnings for CUSTOM policies whose provider cannot be asked, or not about
//! everything that they select.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::kube::TargetPort;
use config::{Key, Kind, Problem, Severity, Store};
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::Provider;

use super::{Action, Policy};
use crate::protocol::Protocol;
use crate::snapshot::{Port, Registry, Service, Snapshot};

/// Ports that a message lists.
const SHOWN: usize = 5;

/// What is wrong with policies in view of the mesh's providers and of services.
pub(in crate::snapshot) fn problems(store: &Store, snapshot: &Snapshot) -> Vec<Problem> {
    let asking =
        snapshot.authz.policies().filter(|policy| policy.action == Action::Custom && !policy.is_dry_run);
    let problem = |policy: &Arc<Policy>| {
        let key = Key {
            kind: Kind::AuthorizationPolicy,
            namespace: policy.namespace.as_str().into(),
            name: policy.name.as_str().into(),
        };
        Some(Problem {
            severity: Severity::Warning,
            position: store.object(&key)?.position.clone(),
            object: Some(key),
            field: "spec.provider.name".into(),
            message: unasked(snapshot, policy)?,
        })
    };
    asking.filter_map(problem).collect()
}

/// What the provider of a policy is not asked about.
fn unasked(snapshot: &Snapshot, policy: &Policy) -> Option<String> {
    let name = policy.provider();
    if !matches!(provider(snapshot, name), Some(Provider::EnvoyExtAuthzHttp(_))) {
        return undecided(snapshot, name);
    }
    let ports = ports(snapshot, policy);
    if ports.is_empty() {
        return None;
    }
    let shown: Vec<&str> = ports.iter().take(SHOWN).map(String::as_str).collect();
    let more = match ports.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "the provider {name:?} speaks HTTP and is asked about requests alone: other connections are let through \
         unasked at {}{more}; name these ports' protocol if it is HTTP, or use an envoyExtAuthzGrpc provider",
        shown.join(", ")
    ))
}

fn provider<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Provider> {
    let found = snapshot.mesh.extension_providers.iter().find(|provider| provider.name == name);
    found?.provider.as_ref()
}

/// Why the provider of that name decides on nothing; `None` when it does.
pub(in crate::snapshot) fn undecided(snapshot: &Snapshot, name: &str) -> Option<String> {
    match provider(snapshot, name) {
        Some(Provider::EnvoyExtAuthzHttp(_) | Provider::EnvoyExtAuthzGrpc(_)) => None,
        Some(_) => Some(format!("the provider {name:?} does not decide: what the policy selects is denied")),
        None => Some(format!(
            "{name:?} is not among extensionProviders of the mesh configuration: what the policy selects is denied"
        )),
    }
}

/// Ports of workloads of the policy that take connections which are no requests.
fn ports(snapshot: &Snapshot, policy: &Policy) -> BTreeSet<String> {
    let services = if policy.namespace == snapshot.mesh.root_namespace {
        snapshot.services.as_slice()
    } else {
        snapshot.directory.of_namespace(&policy.namespace)
    };
    let mut found = BTreeSet::new();
    for service in services.iter().filter(|service| selects(policy, service)) {
        let ports = service.ports.iter().filter(|port| is_about(policy, port));
        found.extend(ports.map(|port| format!("{}:{}", service.host, port.number)));
    }
    found
}

/// Whether a policy is for workloads of a service: by its endpoints, and as
/// long as it has none by the labels that it wants of them.
fn selects(policy: &Policy, service: &Service) -> bool {
    let wanted = policy.spec.selector.iter().flat_map(|selector| &selector.match_labels);
    let mut workloads = service.endpoints.iter().filter(|endpoint| endpoint.has_sidecar).peekable();
    if workloads.peek().is_some() {
        let wanted = wanted.collect::<Vec<_>>();
        return workloads
            .any(|workload| wanted.iter().all(|(label, value)| workload.labels.get(*label) == Some(*value)));
    }
    service.registry == Registry::Kubernetes
        && !service.selector.is_empty()
        && service.endpoints.is_empty()
        && wanted.into_iter().all(|(label, value)| service.selector.get(label).is_none_or(|own| own == value))
}

/// Whether a rule of the policy is about connections to a port that are no requests.
fn is_about(policy: &Policy, port: &Port) -> bool {
    if port.protocol.is_http() || port.protocol == Protocol::Udp {
        return false;
    }
    let target = match &port.target {
        TargetPort::Number(number) => Some(number.to_string()),
        TargetPort::Name(_) => None,
    };
    policy.spec.rules.iter().any(|rule| {
        rule.to.is_empty()
            || rule.to.iter().filter_map(|to| to.operation.as_ref()).any(|operation| {
                operation.ports.is_empty()
                    || target.as_ref().is_none_or(|target| operation.ports.contains(target))
            })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh::MeshConfig;

    use super::*;
    use crate::Settings;

    const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {app: db}, ports: [{name: tcp, port: 9000}, {name: x, port: 9001}]}
---
";
    const PROVIDERS: &str = "
extensionProviders:
- {name: by-http, envoyExtAuthzHttp: {service: web.shop.svc.cluster.local, port: 80}}
- {name: by-grpc, envoyExtAuthzGrpc: {service: web.shop.svc.cluster.local, port: 80}}
";

    fn problems_of(spec: &str) -> Vec<String> {
        let policy = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: ask, namespace: shop}}\nspec: {spec}\n"
        );
        let store = crate::testing::store(&format!("{SERVICES}{policy}"));
        let mesh = MeshConfig::from_yaml(PROVIDERS).unwrap();
        let snapshot = Snapshot::build(&store, &Settings::new(Arc::new(mesh), "Kubernetes"));
        snapshot.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_provider_of_requests_is_told_not_to_see_other_connections() {
        let found = problems_of("{action: CUSTOM, provider: {name: by-http}, rules: [{}]}");
        assert_eq!(found.len(), 1);
        for part in ["shop/ask", "by-http", "db.shop.svc.cluster.local:9000", ":9001"] {
            assert!(found[0].contains(part), "{part} in {found:?}");
        }
        assert!(!found[0].contains("web.shop.svc.cluster.local:80"));
        let other_port = "rules: [{to: [{operation: {ports: ['80']}}]}]";
        for silent in [
            "{action: CUSTOM, provider: {name: by-grpc}, rules: [{}]}",
            "{action: DENY, rules: [{}]}",
            "{selector: {matchLabels: {app: web}}, action: CUSTOM, provider: {name: by-http}, rules: [{}]}",
            &format!("{{action: CUSTOM, provider: {{name: by-http}}, {other_port}}}"),
        ] {
            assert!(problems_of(silent).is_empty(), "{silent}");
        }
    }

    #[test]
    fn a_provider_that_nobody_knows_is_told_to_deny() {
        let found = problems_of("{action: CUSTOM, provider: {name: other}, rules: [{}]}");
        assert!(found[0].contains("denied"), "{found:?}");
    }
}
