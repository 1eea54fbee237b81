//! The objects that make a tag, from those of the revision that it stands for.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Service;
use names::label::{INJECT, INJECTION, REVISION};
use serde_json::{Value, json};

use super::{DEFAULT, TAG};

/// How names of injecting webhooks end.
pub(super) const INJECTOR: &str = "sidecar-injector.istio.io";
/// Where the API server asks whether objects are right.
const VALIDATE: &str = "/validate";
/// Objects that name no revision are validated by this webhook's configuration.
pub(super) const VALIDATOR: &str = "istiod-default-validator";
/// Namespaces that are never injected.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Namespace of a control plane whose objects need not name it.
const USUAL: &str = "istio-system";
/// What `kubectl apply` keeps of another object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Begin of labels by which an operator knows what is its own.
const OPERATOR: &str = "operator.istio.io";

/// What is wanted.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) tag: &'a str,
    pub(super) revision: &'a str,
    /// Name of the configuration; the usual one if it is empty.
    pub(super) name: &'a str,
    /// Whether namespaces without a label are injected.
    pub(super) is_auto: bool,
    /// Namespace of the control plane.
    pub(super) namespace: &'a str,
}

/// What there is of the revision.
#[derive(Debug)]
pub(super) struct Canonical<'a> {
    pub(super) injector: &'a MutatingWebhookConfiguration,
    pub(super) service: Option<&'a Service>,
    /// The validator of objects without a revision, if it is there.
    pub(super) validator: Option<&'a ValidatingWebhookConfiguration>,
}

impl Plan<'_> {
    /// Name of the configuration of the injecting webhooks.
    pub(super) fn injector_name(&self) -> String {
        match (self.name, self.namespace) {
            ("", USUAL) => format!("istio-revision-tag-{}", self.tag),
            ("", namespace) => format!("istio-revision-tag-{}-{namespace}", self.tag),
            (name, _) => name.to_owned(),
        }
    }

    /// All objects of the tag.
    ///
    /// # Errors
    /// When the revision's configuration has no injecting webhook.
    pub(super) fn objects(&self, canonical: &Canonical<'_>) -> anyhow::Result<Vec<Value>> {
        let Canonical { injector, service, validator } = canonical;
        let webhooks = injector.webhooks.as_deref().unwrap_or_default();
        let first = webhooks.iter().find(|webhook| webhook.name.ends_with(INJECTOR)).with_context(|| {
            let name = injector.metadata.name.as_deref().unwrap_or_default();
            format!("could not find sidecar-injector webhook in canonical webhook {name:?}")
        })?;
        let client = serde_json::to_value(&first.client_config)?;
        let reinvocation = first.reinvocation_policy.as_deref().unwrap_or("Never");
        let labels = self.labels(injector.metadata.labels.as_ref(), "sidecar-injector");
        let annotations: BTreeMap<&String, &String> = injector
            .metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(name, _)| *name != LAST_APPLIED)
            .collect();
        let selectors = self.selectors();
        let webhooks = selectors.into_iter().map(|(prefix, namespaces, objects)| {
            json!({
                "name": format!("{prefix}{INJECTOR}"),
                "clientConfig": client,
                "rules": [{
                    "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                }],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "reinvocationPolicy": reinvocation,
                "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchExpressions": namespaces},
                "objectSelector": {"matchExpressions": objects},
            })
        });
        let webhooks: Vec<Value> = webhooks.collect();
        let mut objects = vec![json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.injector_name(), "labels": labels, "annotations": annotations},
            "webhooks": webhooks,
        })];
        if self.tag == DEFAULT {
            let labels = self.labels(injector.metadata.labels.as_ref(), "istiod");
            objects.push(self.validator(labels, &first.client_config, *validator)?);
        }
        objects.push(self.service(*service)?);
        for object in &mut objects {
            let metadata = object["metadata"].as_object_mut().context("metadata")?;
            metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
        }
        Ok(objects)
    }

    /// The labels of the revision's object, as those of the tag's.
    fn labels(&self, known: Option<&BTreeMap<String, String>>, app: &str) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<String, String> = known.cloned().unwrap_or_default();
        labels.retain(|name, _| !name.contains(OPERATOR));
        for (name, value) in [("app", app), (REVISION, self.revision), (TAG, self.tag)] {
            labels.insert(name.to_owned(), value.to_owned());
        }
        labels
    }

    /// Of each webhook the begin of its name, which namespaces it is for, and which pods.
    fn selectors(&self) -> Vec<(&'static str, Value, Value)> {
        let is_in = |label: &str, values: &[&str]| json!({"key": label, "operator": "In", "values": values});
        let is_not =
            |label: &str, values: &[&str]| json!({"key": label, "operator": "NotIn", "values": values});
        let has_no = |label: &str| json!({"key": label, "operator": "DoesNotExist"});
        let is_unlabeled = json!([has_no(REVISION), has_no(INJECTION)]);
        let mut all = vec![
            (
                "rev.namespace.",
                json!([is_in(REVISION, &[self.tag]), has_no(INJECTION)]),
                json!([is_not(INJECT, &["false"])]),
            ),
            (
                "rev.object.",
                is_unlabeled.clone(),
                json!([is_not(INJECT, &["false"]), is_in(REVISION, &[self.tag])]),
            ),
        ];
        if self.tag != DEFAULT {
            return all;
        }
        all.push((
            "namespace.",
            json!([is_in(INJECTION, &["enabled"])]),
            json!([is_not(INJECT, &["false"])]),
        ));
        all.push(("object.", is_unlabeled, json!([is_in(INJECT, &["true"]), has_no(REVISION)])));
        if self.is_auto {
            all.push((
                "auto.",
                json!([has_no(INJECTION), has_no(REVISION), is_not("kubernetes.io/metadata.name", &SYSTEM),]),
                json!([has_no(INJECT), has_no(REVISION)]),
            ));
        }
        all
    }

    /// What validates objects that name no revision.
    fn validator(
        &self,
        mut labels: BTreeMap<String, String>,
        client: &WebhookClientConfig,
        known: Option<&ValidatingWebhookConfiguration>,
    ) -> anyhow::Result<Value> {
        labels.insert("istio".into(), "istiod".into());
        let mut client = serde_json::to_value(client)?;
        if let Some(service) = client.get_mut("service") {
            service["path"] = VALIDATE.into();
        }
        if let Some(url) = client.get("url").and_then(Value::as_str) {
            client["url"] = of_path(url, VALIDATE)?.into();
        }
        // Somebody may have chosen that objects pass when nobody looks at them.
        let known = known.iter().flat_map(|one| one.webhooks.iter().flatten());
        let policy = known.filter_map(|webhook| webhook.failure_policy.as_deref()).next().unwrap_or("Fail");
        Ok(json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": VALIDATOR, "labels": labels},
            "webhooks": [{
                "name": "validation.istio.io",
                "clientConfig": client,
                "rules": [{
                    "operations": ["CREATE", "UPDATE"],
                    "apiGroups": [
                        "security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io",
                    ],
                    "apiVersions": ["*"],
                    "resources": ["*"],
                }],
                "failurePolicy": policy,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "objectSelector": {"matchExpressions": [{"key": REVISION, "operator": "DoesNotExist"}]},
            }],
        }))
    }

    /// The Service by whose name proxies may reach the control plane.
    fn service(&self, known: Option<&Service>) -> anyhow::Result<Value> {
        let mut labels = self.labels(known.and_then(|service| service.metadata.labels.as_ref()), "istiod");
        labels.insert("istio".into(), "pilot".into());
        let spec = known.and_then(|service| service.spec.as_ref());
        let port = |name: &str, port: u16, target: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
        let usual = || {
            json!([
                port("grpc-xds", 15010, 15010),
                port("https-dns", 15012, 15012),
                port("https-webhook", 443, 15017),
                port("http-monitoring", 15014, 15014),
            ])
        };
        let ports = match spec.and_then(|spec| spec.ports.as_ref()) {
            Some(ports) => serde_json::to_value(ports)?,
            None => usual(),
        };
        let selector = match spec.and_then(|spec| spec.selector.as_ref()) {
            Some(selector) => serde_json::to_value(selector)?,
            None => json!({"app": "istiod", REVISION: self.revision}),
        };
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": format!("istiod-revision-tag-{}", self.tag),
                "namespace": self.namespace,
                "labels": labels,
            },
            "spec": {"ports": ports, "selector": selector},
        }))
    }
}

/// A URL with another path.
fn of_path(url: &str, path: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("the webhook's URL {url}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        bail!("the webhook's URL {url} names no host");
    };
    Ok(format!("{scheme}://{authority}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injector() -> MutatingWebhookConfiguration {
        serde_json::from_value(json!({
            "metadata": {
                "name": "istio-sidecar-injector-canary",
                "labels": {"app": "sidecar-injector", "istio.io/rev": "canary", "operator.istio.io/component": "Pilot"},
                "annotations": {LAST_APPLIED: "{}", "kept": "yes"},
            },
            "webhooks": [{
                "name": "rev.namespace.sidecar-injector.istio.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded",
                "clientConfig": {
                    "caBundle": "QUJD",
                    "service": {"name": "istiod-canary", "namespace": "istio-system", "path": "/inject/net/n", "port": 443},
                },
            }],
        }))
        .unwrap()
    }

    fn plan(tag: &str) -> Plan<'_> {
        Plan { tag, revision: "canary", name: "", is_auto: false, namespace: "istio-system" }
    }

    fn objects(plan: &Plan<'_>) -> Vec<Value> {
        let injector = injector();
        plan.objects(&Canonical { injector: &injector, service: None, validator: None }).unwrap()
    }

    fn prefixes(object: &Value) -> Vec<String> {
        let names = object["webhooks"].as_array().unwrap().iter().map(|webhook| &webhook["name"]);
        names.map(|name| name.as_str().unwrap().trim_end_matches(INJECTOR).to_owned()).collect()
    }

    #[test]
    fn a_tag_asks_the_control_plane_of_its_revision() {
        let all = objects(&plan("prod"));
        assert_eq!(all.len(), 2);
        let injector = &all[0];
        assert_eq!(injector["metadata"]["name"], "istio-revision-tag-prod");
        assert_eq!(
            injector["metadata"]["labels"],
            json!({"app": "sidecar-injector", "istio.io/rev": "canary", "istio.io/tag": "prod"})
        );
        assert_eq!(injector["metadata"]["annotations"], json!({"kept": "yes"}));
        assert_eq!(prefixes(injector), ["rev.namespace.", "rev.object."]);
        let webhook = &injector["webhooks"][1];
        assert_eq!(webhook["clientConfig"]["service"]["path"], "/inject/net/n");
        assert_eq!(
            (&webhook["clientConfig"]["caBundle"], &webhook["reinvocationPolicy"]),
            (&json!("QUJD"), &json!("IfNeeded"))
        );
        assert_eq!(
            webhook["objectSelector"]["matchExpressions"][1],
            json!({"key": "istio.io/rev", "operator": "In", "values": ["prod"]})
        );
        assert_eq!(all[1]["spec"]["selector"], json!({"app": "istiod", "istio.io/rev": "canary"}));
    }

    #[test]
    fn the_tag_default_is_for_what_names_no_revision() {
        let all = objects(&Plan { is_auto: true, ..plan("default") });
        assert_eq!(prefixes(&all[0]), ["rev.namespace.", "rev.object.", "namespace.", "object.", "auto."]);
        let validator = &all[1];
        assert_eq!(validator["metadata"]["name"], VALIDATOR);
        assert_eq!(validator["webhooks"][0]["clientConfig"]["service"]["path"], "/validate");
        assert_eq!(validator["webhooks"][0]["failurePolicy"], "Fail");
        assert_eq!(validator["metadata"]["labels"]["istio.io/tag"], "default");
        let lenient: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {},
            "webhooks": [{
                "name": "a", "admissionReviewVersions": [], "sideEffects": "None", "clientConfig": {}, "failurePolicy": "Ignore",
            }],
        }))
        .unwrap();
        let injector = injector();
        let canonical = Canonical { injector: &injector, service: None, validator: Some(&lenient) };
        let all = plan("default").objects(&canonical).unwrap();
        assert_eq!(all[1]["webhooks"][0]["failurePolicy"], "Ignore");
    }

    #[test]
    fn a_control_plane_elsewhere_is_asked_at_its_url() {
        let mut injector = injector();
        let webhook = &mut injector.webhooks.as_mut().unwrap()[0];
        webhook.client_config.service = None;
        webhook.client_config.url = Some("https://istiod.example.org:15017/inject".into());
        let canonical = Canonical { injector: &injector, service: None, validator: None };
        let all = Plan { namespace: "mesh", ..plan("default") }.objects(&canonical).unwrap();
        assert_eq!(all[0]["metadata"]["name"], "istio-revision-tag-default-mesh");
        assert_eq!(all[1]["webhooks"][0]["clientConfig"]["url"], "https://istiod.example.org:15017/validate");
        injector.webhooks = None;
        let canonical = Canonical { injector: &injector, service: None, validator: None };
        let error = plan("prod").objects(&canonical).unwrap_err().to_string();
        assert!(error.contains("could not find sidecar-injector webhook"), "{error}");
    }
}
