//! What would be wrong with one object in view of others, before it is there.

use std::collections::{BTreeMap, BTreeSet};

use config::kube::WorkloadEntry;
use config::{Object, Problem, Severity, Spec, Store};
use names::Hostname;
use proto::istio::networking::v1alpha3::{DestinationRule, Gateway};
use proto::istio::security::v1beta1::AuthorizationPolicy;
use proto::istio::security::v1beta1::authorization_policy::{Action, ActionDetail};
use proto::istio::r#type::v1beta1::WorkloadSelector;

use super::{Registry, Snapshot, authz, secret, telemetry, virtual_service};

impl Snapshot {
    /// Warnings for names in an object that lead nowhere among the objects of
    /// the store that this is a snapshot of. The object need not be one of them.
    #[must_use]
    pub fn dangling(&self, store: &Store, object: &Object) -> Vec<Problem> {
        match &object.spec {
            Spec::VirtualService(spec) => virtual_service::dangling_in(store, self, object, spec),
            Spec::Telemetry(spec) => {
                let mut all = telemetry::dangling_in(self, object, spec);
                all.extend(self.selector(store, object, spec.selector.as_ref()));
                all
            }
            Spec::DestinationRule(spec) => self.rule(object, spec),
            Spec::Gateway(spec) => self.gateway(object, spec),
            Spec::AuthorizationPolicy(spec) => {
                let mut all = self.policy(object, spec);
                all.extend(self.selector(store, object, spec.selector.as_ref()));
                all
            }
            Spec::PeerAuthentication(spec) => self.selector(store, object, spec.selector.as_ref()),
            Spec::RequestAuthentication(spec) => self.selector(store, object, spec.selector.as_ref()),
            Spec::Sidecar(spec) => {
                let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
                self.labels(store, object, "spec.workloadSelector.labels", labels)
            }
            Spec::EnvoyFilter(spec) => {
                let labels = spec.workload_selector.as_ref().map(|selector| &selector.labels);
                self.labels(store, object, "spec.workloadSelector.labels", labels)
            }
            _ => Vec::new(),
        }
    }

    fn selector(&self, store: &Store, object: &Object, selector: Option<&WorkloadSelector>) -> Vec<Problem> {
        let labels = selector.map(|selector| &selector.match_labels);
        self.labels(store, object, "spec.selector.matchLabels", labels)
    }

    /// Whether there are workloads with the labels of a selector.
    fn labels(
        &self,
        store: &Store,
        object: &Object,
        field: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Vec<Problem> {
        let Some(labels) = labels.filter(|labels| !labels.is_empty() && !self.pods.is_empty()) else {
            return Vec::new();
        };
        let namespace = &object.meta.namespace;
        // What is in the root namespace is for all of them.
        let is_for_all = *namespace == self.mesh.root_namespace;
        let fits = |of: &str, all: &BTreeMap<String, String>| {
            (is_for_all || of == namespace) && config::matches(labels, all)
        };
        let mut entries = store.all::<WorkloadEntry>();
        if self.has_pod(fits) || entries.any(|(object, entry)| fits(&object.meta.namespace, &entry.labels)) {
            return Vec::new();
        }
        let place = if is_for_all { String::new() } else { format!(" of namespace {namespace}") };
        let message = format!("no workload{place} has these labels: the object has no effect");
        vec![warning(object, field.to_owned(), message)]
    }

    /// Secrets of a Gateway that are not where its proxies are.
    fn credentials(&self, object: &Object, spec: &Gateway) -> Vec<Problem> {
        let pods = self.pods.values().filter(|pod| config::matches(&spec.selector, &pod.meta.labels));
        let namespaces: BTreeSet<&str> = pods.map(|pod| pod.meta.namespace.as_str()).collect();
        let mut problems = Vec::new();
        for (index, server) in spec.servers.iter().enumerate() {
            let Some(tls) = &server.tls else { continue };
            let one = (!tls.credential_name.is_empty())
                .then(|| ("credentialName".to_owned(), tls.credential_name.as_str()));
            let more = tls.credential_names.iter().enumerate();
            let more = more.map(|(number, name)| (format!("credentialNames[{number}]"), name.as_str()));
            for (field, name) in one.into_iter().chain(more) {
                // Other forms name their namespace, or are of another server.
                let name = name.strip_prefix("kubernetes://").unwrap_or(name);
                if name.is_empty() || name.contains(['/', ':']) {
                    continue;
                }
                let is_missing = |space: &&&str| {
                    matches!(self.secrets.find(space, name, || false), Err(secret::Error::Missing { .. }))
                };
                if let Some(space) = namespaces.iter().find(is_missing) {
                    let message = format!(
                        "there is no Secret {space}/{name}, where the Gateway's pods are: the server has no certificate"
                    );
                    problems.push(warning(object, format!("spec.servers[{index}].tls.{field}"), message));
                }
            }
        }
        problems
    }

    fn rule(&self, object: &Object, spec: &DestinationRule) -> Vec<Problem> {
        if spec.host.starts_with('*') {
            return Vec::new();
        }
        let host = Hostname::resolve(&spec.host, &object.meta.namespace, &self.domain);
        let Some(service) = self.service(&host) else {
            let message = format!("there is no service {host}: the rule has no effect");
            return vec![warning(object, "spec.host".into(), message)];
        };
        if service.registry != Registry::Kubernetes || service.selector.is_empty() {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for (index, subset) in spec.subsets.iter().enumerate().filter(|(_, subset)| !subset.labels.is_empty())
        {
            let is_selected = |namespace: &str, labels: &BTreeMap<String, String>| {
                namespace == service.namespace
                    && config::matches(&service.selector, labels)
                    && config::matches(&subset.labels, labels)
            };
            // Endpoints have the labels of their place, too.
            let mut endpoints = service.endpoints.iter();
            if !self.pods.is_empty()
                && !self.has_pod(is_selected)
                && !endpoints.any(|endpoint| config::matches(&subset.labels, &endpoint.labels))
            {
                let labels: Vec<String> =
                    subset.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let message = format!(
                    "no pod of {host} has the labels {}: requests to the subset {:?} fail",
                    labels.join(","),
                    subset.name
                );
                problems.push(warning(object, format!("spec.subsets[{index}].labels"), message));
            }
        }
        problems
    }

    fn gateway(&self, object: &Object, spec: &Gateway) -> Vec<Problem> {
        let is_idle = !spec.selector.is_empty()
            && !self.pods.is_empty()
            && !self.has_pod(|_, labels| config::matches(&spec.selector, labels));
        let message = "no pod has these labels: nobody serves the Gateway";
        if is_idle {
            return vec![warning(object, "spec.selector".into(), message.into())];
        }
        self.credentials(object, spec)
    }

    fn policy(&self, object: &Object, spec: &AuthorizationPolicy) -> Vec<Problem> {
        let Some(ActionDetail::Provider(provider)) = &spec.action_detail else { return Vec::new() };
        if spec.action() != Action::Custom {
            return Vec::new();
        }
        let undecided = authz::undecided(self, &provider.name);
        Vec::from_iter(undecided.map(|message| warning(object, "spec.provider.name".into(), message)))
    }

    fn has_pod(&self, fits: impl Fn(&str, &BTreeMap<String, String>) -> bool) -> bool {
        self.pods.values().any(|pod| fits(&pod.meta.namespace, &pod.meta.labels))
    }
}

fn warning(object: &Object, field: String, message: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        object: Some(object.key.clone()),
        position: object.position.clone(),
        field,
        message,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use config::yaml;

    use crate::{Settings, Snapshot};

    const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: ns}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: ns, labels: {app: reviews, version: v1}}
spec: {nodeName: node}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Node
metadata: {name: node, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: ns, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: a, namespace: ns}}]
";

    fn told(kind: &str, spec: &str) -> Vec<(String, String)> {
        let store = crate::testing::store(MESH);
        let snapshot = Snapshot::build(&store, &Settings::new(Arc::default(), "Kubernetes"));
        let text = format!("apiVersion: {kind}\nmetadata: {{name: a, namespace: ns}}\nspec: {spec}\n");
        let contents = yaml::read("asked", &text);
        let object = contents.objects.first().unwrap_or_else(|| panic!("{:?}", contents.problems));
        let problems = snapshot.dangling(&store, object).into_iter();
        problems.map(|problem| (problem.field, problem.message)).collect()
    }

    #[test]
    fn names_that_lead_nowhere_are_told_before_the_object_is_there() {
        let rule = "networking.istio.io/v1\nkind: DestinationRule";
        let service = "networking.istio.io/v1\nkind: VirtualService";
        let gateway = "networking.istio.io/v1\nkind: Gateway";
        let policy = "security.istio.io/v1\nkind: AuthorizationPolicy";
        let route = "hosts: [reviews], http: [{route: [{destination";
        let server = "servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}]";
        for (kind, spec, field, message) in [
            (rule, "{host: ratings}".to_owned(), "spec.host", "no service ratings.ns.svc"),
            (
                rule,
                "{host: reviews, subsets: [{name: v2, labels: {version: v2}}]}".to_owned(),
                "spec.subsets[0].labels",
                "version=v2",
            ),
            (
                service,
                format!("{{{route}: {{host: ratings}}}}]}}]}}"),
                "spec.http[0].route[0].destination",
                "no service ratings",
            ),
            (
                service,
                format!("{{{route}: {{host: reviews, subset: v9}}}}]}}]}}"),
                "spec.http[0].route[0].destination",
                "subset \"v9\"",
            ),
            (
                service,
                format!("{{gateways: [gw], {route}: {{host: reviews}}}}]}}]}}"),
                "spec.gateways[0]",
                "no Gateway ns/gw",
            ),
            (gateway, format!("{{selector: {{istio: in}}, {server}}}"), "spec.selector", "no pod"),
            (
                gateway,
                "{selector: {app: reviews}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, \
                 hosts: [a.com], tls: {mode: SIMPLE, credentialName: shop}}]}"
                    .to_owned(),
                "spec.servers[0].tls.credentialName",
                "no Secret ns/shop",
            ),
            (
                policy,
                "{selector: {matchLabels: {app: none}}, rules: [{}]}".to_owned(),
                "spec.selector.matchLabels",
                "no workload of namespace ns",
            ),
            (
                "networking.istio.io/v1\nkind: Sidecar",
                "{workloadSelector: {labels: {app: none}}, egress: [{hosts: ['./*']}]}".to_owned(),
                "spec.workloadSelector.labels",
                "no workload of namespace ns",
            ),
            (
                policy,
                "{action: CUSTOM, provider: {name: p}, rules: [{}]}".to_owned(),
                "spec.provider.name",
                "extensionProviders",
            ),
        ] {
            let all = told(kind, &spec);
            assert!(all.len() == 1 && all[0].0 == field && all[0].1.contains(message), "{spec}: {all:?}");
        }
        for (kind, spec) in [
            (rule, "{host: reviews, subsets: [{name: v1, labels: {version: v1}}]}".to_owned()),
            (
                rule,
                "{host: reviews, subsets: [{name: z, labels: {topology.kubernetes.io/zone: z}}]}".to_owned(),
            ),
            (rule, "{host: '*.example.com'}".to_owned()),
            (service, format!("{{{route}: {{host: reviews}}}}]}}]}}")),
            (gateway, format!("{{selector: {{app: reviews}}, {server}}}")),
            (policy, "{selector: {matchLabels: {app: reviews}}, rules: [{}]}".to_owned()),
            ("security.istio.io/v1\nkind: PeerAuthentication", "{mtls: {mode: STRICT}}".to_owned()),
        ] {
            assert_eq!(told(kind, &spec), [], "{spec}");
        }
    }
}
