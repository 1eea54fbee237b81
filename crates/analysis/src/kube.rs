//! Objects of Kubernetes, cut down to what messages are about.

use config::kube::Secret as Credentials;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use crate::Labels;

/// What a pod should run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its containers.
    pub containers: Vec<Container>,
    /// Containers that start first.
    pub init_containers: Vec<Container>,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// The node that it runs on.
    pub node_name: Box<str>,
    /// Settings for all its containers.
    pub security_context: SecurityContext,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: Box<str>,
    /// Image.
    pub image: Box<str>,
    /// Variables.
    pub env: Vec<Variable>,
    /// Settings of security.
    pub security_context: SecurityContext,
}

/// A variable of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Variable {
    /// Name.
    pub name: Box<str>,
    /// Value; empty when it comes from elsewhere.
    pub value: Box<str>,
}

/// As whom something runs.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecurityContext {
    /// Id of the user.
    pub run_as_user: Option<i64>,
}

/// What makes pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    /// What each pod is.
    pub template: Template,
}

/// What each pod of a deployment is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its labels and annotations.
    pub metadata: TemplateMeta,
    /// What it runs.
    pub spec: PodSpec,
}

/// Labels and annotations of a deployment's pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMeta {
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
}

/// What a service is reached by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods.
    pub selector: Labels,
    /// Its address; `None` for a headless service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Box<str>,
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub service_type: Box<str>,
}

/// A port of a service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name.
    pub name: Box<str>,
    /// Number that clients use.
    pub port: i32,
    /// Port of the pods, by number or name; empty when it is not said.
    #[serde(deserialize_with = "number_or_name")]
    pub target_port: Box<str>,
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// Application protocol.
    pub app_protocol: Option<Box<str>>,
}

impl ServicePort {
    /// The protocol that carries it.
    #[must_use]
    pub fn transport(&self) -> &str {
        if self.protocol.is_empty() { "TCP" } else { &self.protocol }
    }
}

fn number_or_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(Box::default()),
        Value::String(text) => Ok(text.into()),
        Value::Number(number) => Ok(number.to_string().into()),
        _ => Err(D::Error::custom("expected a number or a name")),
    }
}

/// Names and values of a Secret.
pub type Secret = Credentials;

/// Webhooks that the API server asks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Webhooks {
    /// The webhooks.
    pub webhooks: Vec<Webhook>,
}

/// A webhook.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    /// Name.
    pub name: Box<str>,
    /// Where it is.
    pub client_config: ClientConfig,
    /// Namespaces that it is for; all without one.
    pub namespace_selector: Option<LabelSelector>,
    /// Objects that it is for; all without one.
    pub object_selector: Option<LabelSelector>,
}

/// Where a webhook is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClientConfig {
    /// Its address.
    pub url: Option<Box<str>>,
    /// Its service.
    pub service: Option<ServiceReference>,
}

/// A service by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceReference {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

/// Objects by their labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that they must have.
    pub match_labels: Labels,
    /// Further conditions.
    pub match_expressions: Vec<Expression>,
}

/// A condition on a label.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expression {
    /// The label.
    pub key: Box<str>,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Box<str>,
    /// Values.
    pub values: Vec<Box<str>>,
}

impl LabelSelector {
    /// Whether it selects an object whose labels `get` knows; one that is no
    /// selector selects nothing.
    pub fn selects<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let has_labels = self.match_labels.iter().all(|(name, value)| get(name) == Some(value));
        has_labels
            && self.match_expressions.iter().all(|expression| {
                let value = get(&expression.key);
                let is_in = |value: &str| expression.values.iter().any(|known| **known == *value);
                match &*expression.operator {
                    "In" => !expression.values.is_empty() && value.is_some_and(is_in),
                    "NotIn" => !expression.values.is_empty() && !value.is_some_and(is_in),
                    "Exists" => expression.values.is_empty() && value.is_some(),
                    "DoesNotExist" => expression.values.is_empty() && value.is_none(),
                    _ => false,
                }
            })
    }

    /// All values that it names for a label.
    pub fn values_of<'a>(&'a self, label: &'a str) -> impl Iterator<Item = &'a str> {
        let expressions = self.match_expressions.iter().filter(move |one| &*one.key == label);
        let named = expressions.flat_map(|one| one.values.iter().map(|value| &**value));
        self.match_labels.get(label).into_iter().chain(named)
    }
}

/// What a custom resource is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// API group.
    pub group: Box<str>,
    /// Its names.
    pub names: DefinitionNames,
}

/// Names of a custom resource.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DefinitionNames {
    /// The word in `kind:`.
    pub kind: Box<str>,
}

/// A gateway of the Gateway API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Where it listens.
    pub listeners: Vec<Listener>,
}

/// Where a gateway listens.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Host that it is for; empty for all.
    pub hostname: Box<str>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_follow_the_rules_of_kubernetes() {
        let selects = |selector: Value, labels: &[(&str, &'static str)]| {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            selector.selects(|name| labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
        };
        let one = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        assert!(selects(json!({}), &[]) && selects(json!({"matchLabels": {"a": "1"}}), &[("a", "1")]));
        assert!(selects(one("In", &["1"]), &[("a", "1")]) && !selects(one("In", &["1"]), &[]));
        assert!(selects(one("NotIn", &["1"]), &[]) && !selects(one("NotIn", &["1"]), &[("a", "1")]));
        assert!(selects(one("Exists", &[]), &[("a", "1")]) && selects(one("DoesNotExist", &[]), &[]));
        assert!(!selects(one("Like", &["1"]), &[("a", "1")]) && !selects(one("In", &[]), &[("a", "1")]));
    }
}
