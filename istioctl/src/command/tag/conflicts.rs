//! Whether the webhooks of a tag would inject what others inject already.

use std::time::SystemTime;

use analysis::analyzer::{self, Analyzer};
use analysis::{Kind, Level, Resource, Scope, World, messages};
use anyhow::Context as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Service;
use mesh::{MeshConfig, MeshNetworks};
use serde_json::Value;

use super::{DEFAULT, NEVER, TAG};
use crate::kubernetes::Kubernetes;
use names::label::REVISION;

/// Looks at injectors.
const ANALYZER: &str = "webhook.Analyzer";

/// What is wrong with the tag's webhooks beside those of the cluster; none, if all is well.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn of(
    cluster: &Kubernetes,
    objects: &[Value],
    namespace: &str,
) -> anyhow::Result<Option<String>> {
    let mut all = Vec::new();
    for one in cluster.list::<MutatingWebhookConfiguration>("").await? {
        all.push(serde_json::to_value(one)?);
    }
    let services = cluster.list_in::<Service>(None, "").await?;
    let services = services.into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    told(all, services, objects, namespace)
}

fn told(
    mut injectors: Vec<Value>,
    services: Vec<Value>,
    objects: &[Value],
    namespace: &str,
) -> anyhow::Result<Option<String>> {
    let own: Vec<&Value> =
        objects.iter().filter(|object| object["kind"] == "MutatingWebhookConfiguration").collect();
    injectors.retain(|one| !own.iter().any(|own| own["metadata"]["name"] == one["metadata"]["name"]));
    if own.iter().any(|own| own["metadata"]["labels"][TAG] == DEFAULT) {
        // That of the revision `default` is deactivated before the tag's is there.
        for one in injectors.iter_mut().filter(|one| {
            one["metadata"]["labels"][REVISION] == DEFAULT && one["metadata"]["labels"][TAG].is_null()
        }) {
            for webhook in one["webhooks"].as_array_mut().into_iter().flatten() {
                webhook["namespaceSelector"] = serde_json::json!({"matchLabels": {NEVER.0: NEVER.1}});
            }
        }
    }
    let injectors = injectors.into_iter().chain(own.iter().map(|own| (*own).clone()));
    let injectors = injectors.map(|one| (Kind::MutatingWebhookConfiguration, one));
    let all = injectors.chain(services.into_iter().map(|one| (Kind::Service, one)));
    let resources: Result<Vec<Resource>, _> =
        all.map(|(kind, object)| Resource::read(kind, object, "")).collect();
    let world = World::new(
        resources.context("webhooks of the cluster")?,
        MeshConfig::default(),
        MeshNetworks::default(),
        namespace,
        Scope::Everything,
        SystemTime::now(),
    );
    let analyzers: Vec<&'static Analyzer> = analyzer::named(&[ANALYZER]);
    let outcome = analyzer::run(&world, &analyzers);
    let found = messages(&outcome.findings, None, &[]);
    let names: Vec<String> = own
        .iter()
        .filter_map(|own| own["metadata"]["name"].as_str())
        .map(|name| format!("MutatingWebhookConfiguration {name}"))
        .collect();
    let lines: Vec<String> = found
        .iter()
        .filter(|message| message.level() == Level::Error)
        .filter(|message| message.origin.as_ref().is_some_and(|origin| names.contains(origin)))
        .map(|message| format!("{} [{}] {}", message.level(), message.code, message.text))
        .collect();
    Ok((!lines.is_empty()).then(|| lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn injector(name: &str, labels: &Value, revision: &str) -> Value {
        json!({
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name, "labels": labels},
            "webhooks": [{
                "name": "rev.namespace.sidecar-injector.istio.io",
                "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system"}},
                "namespaceSelector": {"matchExpressions": [{"key": REVISION, "operator": "In", "values": [revision]}]},
            }],
        })
    }

    fn service() -> Vec<Value> {
        vec![json!({"metadata": {"name": "istiod", "namespace": "istio-system"}, "spec": {}})]
    }

    #[test]
    fn two_injectors_of_the_same_pods_are_a_conflict() {
        let own = injector("tag", &json!({TAG: "prod", REVISION: "canary"}), "prod");
        let other = |revision| vec![injector("other", &json!({REVISION: revision}), revision)];
        let told =
            |others, own: &Value| told(others, service(), std::slice::from_ref(own), "istio-system").unwrap();
        let text = told(other("prod"), &own).unwrap();
        assert!(text.starts_with("Error [IST0139]") && text.contains("overlaps"), "{text}");
        assert_eq!(told(other("canary"), &own), None);
        // The configuration that is replaced does not count, nor the one that is deactivated.
        assert_eq!(told(vec![own.clone()], &own), None);
        let default = injector("tag", &json!({TAG: "default", REVISION: "canary"}), "default");
        assert_eq!(told(other("default"), &default), None);
    }
}
