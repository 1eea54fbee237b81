//! The texts of a workload's files.

use std::collections::BTreeMap;

use anyhow::Context as _;
use mesh::{MeshConfig, ProxyConfig, proxy_config};
use names::label::{APP_NAME, APP_VERSION, CANONICAL_NAME, CANONICAL_REVISION};
use proto::istio::networking::v1alpha3::{WorkloadEntry, WorkloadGroup};
use serde_json::{Value, json};

use crate::render::yaml;

/// Ports that are never captured: SSH, so that the host can be reached when something is
/// wrong, and those of Envoy and the agent.
const EXCLUDED: &str = "22,15090,15021";
/// Where the agent answers, unless told otherwise.
const STATUS_PORT: i32 = 15020;
/// Port of istiod.
const ISTIOD: u16 = 15012;
/// The annotation with settings of a proxy.
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// A group of workloads.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) namespace: String,
    annotations: BTreeMap<String, String>,
    spec: WorkloadGroup,
}

impl Group {
    /// Reads the object.
    ///
    /// # Errors
    /// When it is no WorkloadGroup.
    pub(super) fn read(object: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        anyhow::ensure!(kind == "WorkloadGroup", "it is a {kind:?}: expected a WorkloadGroup");
        anyhow::ensure!(!name.is_empty(), "the WorkloadGroup has no metadata.name");
        let annotations = object.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
        let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
        Ok(Self {
            name: name.to_owned(),
            namespace: text("/metadata/namespace").to_owned(),
            annotations: serde_json::from_value(annotations).context("metadata.annotations")?,
            spec: serde_json::from_value(spec).context("spec")?,
        })
    }

    pub(super) fn service_account(&self) -> &str {
        let named = self.spec.template.as_ref().map(|template| template.service_account.as_str());
        named.filter(|name| !name.is_empty()).unwrap_or("default")
    }

    /// Its workloads.
    fn template(&self) -> WorkloadEntry {
        self.spec.template.clone().unwrap_or_default()
    }

    /// Labels of its workloads; those of the template count more.
    fn labels(&self) -> BTreeMap<String, String> {
        let group = self.spec.metadata.iter().flat_map(|metadata| &metadata.labels);
        let template = self.spec.template.iter().flat_map(|template| &template.labels);
        group.chain(template).map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Settings of its workloads' proxies, the last of which counts most.
    fn settings(&self) -> impl Iterator<Item = &str> {
        let inner = self.spec.metadata.iter().flat_map(|metadata| metadata.annotations.get(PROXY_CONFIG));
        self.annotations.get(PROXY_CONFIG).into_iter().chain(inner).map(String::as_str)
    }
}

/// What is known besides the group.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// Text of the mesh configuration.
    pub(super) mesh: &'a str,
    /// Namespace of the control plane.
    pub(super) namespace: &'a str,
    /// Its revision.
    pub(super) revision: &'a str,
    pub(super) cluster: &'a str,
    pub(super) captures_dns: bool,
    pub(super) registers: bool,
    pub(super) internal: &'a str,
    pub(super) external: &'a str,
}

/// Host of a control plane.
pub(super) fn host(namespace: &str, revision: &str) -> String {
    match revision {
        "" | "default" => format!("istiod.{namespace}.svc"),
        revision => format!("istiod-{revision}.{namespace}.svc"),
    }
}

impl Around<'_> {
    fn is_revision(&self) -> bool {
        !matches!(self.revision, "" | "default")
    }

    /// Settings of the proxy, with all that istiod is told of the workload.
    ///
    /// # Errors
    /// When the mesh configuration or an annotation cannot be used.
    pub(super) fn proxy(&self, group: &Group) -> anyhow::Result<ProxyConfig> {
        let what = "the mesh configuration of the cluster";
        let mesh = MeshConfig::from_yaml(self.mesh).context(what)?;
        // Only what is said: the rest are defaults of the agent.
        let whole = mesh::yaml::parse(self.mesh).context(what)?;
        let own = whole.get("defaultConfig").or_else(|| whole.get("default_config"));
        let own = own.map(Value::to_string).unwrap_or_default();
        let mut config = proxy_config::apply(&ProxyConfig::default(), &own).context(what)?.0;
        if self.is_revision() && config.discovery_address.is_empty() {
            config.discovery_address = format!("{}:{ISTIOD}", host(self.namespace, self.revision));
        }
        for layer in group.settings() {
            config = proxy_config::apply(&config, layer)
                .with_context(|| format!("annotation {PROXY_CONFIG} of the WorkloadGroup"))?
                .0;
        }
        config.readiness_probe = group.spec.probe.clone();
        let mut labels = group.labels();
        let of = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).cloned();
        let service = of(&[CANONICAL_NAME, APP_NAME, "app"]).unwrap_or_else(|| group.name.clone());
        let revision = of(&[CANONICAL_REVISION, APP_VERSION, "version"]).unwrap_or_else(|| "latest".into());
        labels.insert(CANONICAL_NAME.into(), service.clone());
        labels.insert(CANONICAL_REVISION.into(), revision.clone());
        let template = group.template();
        let mut told = BTreeMap::from([
            ("CANONICAL_SERVICE", service),
            ("CANONICAL_REVISION", revision),
            ("POD_NAMESPACE", group.namespace.clone()),
            ("SERVICE_ACCOUNT", group.service_account().to_owned()),
            ("TRUST_DOMAIN", mesh.trust_domain().to_owned()),
            ("ISTIO_META_CLUSTER_ID", self.cluster.to_owned()),
            ("ISTIO_META_MESH_ID", config.mesh_id.clone()),
            ("ISTIO_META_NETWORK", template.network.clone()),
            ("ISTIO_META_WORKLOAD_NAME", group.name.clone()),
            ("ISTIO_METAJSON_LABELS", serde_json::to_string(&labels)?),
        ]);
        let ports: BTreeMap<&String, &u32> = template.ports.iter().collect();
        if !ports.is_empty() {
            // In the order that agents of Istio write.
            let one = |(name, port): (&&String, &&u32)| {
                format!(
                    "{{\"name\":{},\"containerPort\":{port},\"protocol\":\"\"}}",
                    Value::from(name.as_str())
                )
            };
            let all: Vec<String> = ports.iter().map(one).collect();
            told.insert("ISTIO_META_POD_PORTS", format!("[{}]", all.join(",")));
        }
        if self.captures_dns {
            told.insert("ISTIO_META_DNS_CAPTURE", "true".into());
        }
        if self.registers {
            told.insert("ISTIO_META_AUTO_REGISTER_GROUP", group.name.clone());
        }
        config.proxy_metadata.extend(told.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(config)
    }

    /// Variables of the agent and of the capture of traffic, a line each.
    ///
    /// # Errors
    /// When a name is none that a shell takes: it would run what stands there.
    pub(super) fn variables(&self, group: &Group, proxy: &ProxyConfig) -> anyhow::Result<String> {
        let template = group.template();
        let ports: BTreeMap<&String, &u32> = template.ports.iter().collect();
        let ports: Vec<String> = ports.values().map(ToString::to_string).collect();
        let mut excluded = EXCLUDED.to_owned();
        match proxy.status_port {
            15090 | 15021 => {}
            0 => excluded += &format!(",{STATUS_PORT}"),
            port => excluded += &format!(",{port}"),
        }
        let mut all: BTreeMap<String, String> =
            proxy.proxy_metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut add = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
        add("ISTIO_INBOUND_PORTS", if ports.is_empty() { "*".into() } else { ports.join(",") });
        add("ISTIO_NAMESPACE", group.namespace.clone());
        add("ISTIO_SERVICE", format!("{}.{}", group.name, group.namespace));
        add("ISTIO_SERVICE_CIDR", "*".into());
        add("ISTIO_LOCAL_EXCLUDE_PORTS", excluded);
        add("SERVICE_ACCOUNT", group.service_account().to_owned());
        if self.is_revision() {
            add("CA_ADDR", format!("{}:{ISTIOD}", host(self.namespace, self.revision)));
        }
        if !self.internal.is_empty() {
            add("ISTIO_SVC_IP", self.internal.to_owned());
        } else if !self.external.is_empty() {
            add("ISTIO_SVC_IP", self.external.to_owned());
            add("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true".into());
        }
        if let Some(wrong) = all.keys().find(|name| !is_variable(name)) {
            anyhow::bail!(
                "proxyMetadata {wrong:?} is no name of a variable: write letters, digits and _, and no digit first"
            );
        }
        Ok(all.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect())
    }
}

/// The mesh configuration of the host.
///
/// # Errors
/// When it is no JSON.
pub(super) fn mesh(proxy: &ProxyConfig) -> anyhow::Result<String> {
    let text = serde_json::to_string(&json!({"defaultConfig": serde_json::to_value(proxy)?}))?;
    Ok(yaml::render(&serde_json::from_str(&text)?))
}

fn is_variable(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// A text as a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        Group::read(&json!({
            "kind": "WorkloadGroup",
            "metadata": {
                "name": "foo", "namespace": "bar",
                "annotations": {PROXY_CONFIG: "proxyMetadata: {A: outer, B: outer}"},
            },
            "spec": {
                "metadata": {
                    "labels": {"app": "foo", "bar": "baz"},
                    "annotations": {PROXY_CONFIG: "{statusPort: 15021, proxyMetadata: {B: \"it's\"}}"},
                },
                "template": {"ports": {"http": 8080, "grpc": 3550}, "serviceAccount": "sa", "network": "n"},
                "probe": {"periodSeconds": 5, "httpGet": {"port": 8080}},
            },
        }))
        .unwrap()
    }

    fn around() -> Around<'static> {
        Around {
            mesh: "defaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012', proxyMetadata: {C: mesh}}",
            namespace: "istio-system",
            revision: "",
            cluster: "c1",
            captures_dns: true,
            registers: false,
            internal: "",
            external: "",
        }
    }

    #[test]
    fn the_proxy_is_told_what_the_group_says() {
        let proxy = around().proxy(&group()).unwrap();
        let text = mesh(&proxy).unwrap();
        for line in [
            "defaultConfig:",
            "  discoveryAddress: istiod.istio-system.svc:15012",
            "    A: outer",
            "    B: it's",
            "    C: mesh",
            "    CANONICAL_REVISION: latest",
            "    CANONICAL_SERVICE: foo",
            "    ISTIO_META_CLUSTER_ID: c1",
            "    ISTIO_META_DNS_CAPTURE: \"true\"",
            "    ISTIO_META_POD_PORTS: '[{\"name\":\"grpc\",\"containerPort\":3550,\"protocol\":\"\"},{\"name\":\"http\",\"containerPort\":8080,\"protocol\":\"\"}]'",
            "    ISTIO_METAJSON_LABELS: '{\"app\":\"foo\",\"bar\":\"baz\",\"service.istio.io/canonical-name\":\"foo\",\"service.istio.io/canonical-revision\":\"latest\"}'",
            "    TRUST_DOMAIN: cluster.local",
            "    periodSeconds: 5",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line:?}: {text}");
        }
        assert!(!text.contains("AUTO_REGISTER") && !text.contains("binaryPath"), "{text}");
        let again = MeshConfig::from_yaml(&text).unwrap();
        assert!(again.unknown_fields.is_empty(), "{:?}", again.unknown_fields);
    }

    #[test]
    fn variables_are_what_a_shell_reads() {
        let around =
            Around { external: "9.9.9.9", registers: true, revision: "canary", mesh: "", ..around() };
        let proxy = around.proxy(&group()).unwrap();
        assert_eq!(proxy.discovery_address, "istiod-canary.istio-system.svc:15012");
        let text = around.variables(&group(), &proxy).unwrap();
        for line in [
            "B='it'\"'\"'s'",
            "CA_ADDR='istiod-canary.istio-system.svc:15012'",
            "ISTIO_INBOUND_PORTS='3550,8080'",
            "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021'",
            "ISTIO_META_AUTO_REGISTER_GROUP='foo'",
            "ISTIO_SERVICE='foo.bar'",
            "ISTIO_SERVICE_CIDR='*'",
            "ISTIO_SVC_IP='9.9.9.9'",
            "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION='true'",
            "SERVICE_ACCOUNT='sa'",
        ] {
            assert!(text.lines().any(|known| known == line), "no {line:?}: {text}");
        }
    }

    #[test]
    fn a_name_that_a_shell_would_run_is_refused() {
        let mut proxy = around().proxy(&group()).unwrap();
        assert!(around().variables(&group(), &proxy).is_ok());
        for wrong in ["A;id>x;B", "A B", "1A", "", "A-B", "A=$(id)"] {
            proxy.proxy_metadata.insert(wrong.into(), "1".into());
            let error = around().variables(&group(), &proxy).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
            proxy.proxy_metadata.remove(wrong);
        }
    }

    #[test]
    fn another_object_is_refused() {
        for (object, what) in [
            (json!({"kind": "Pod"}), "expected a WorkloadGroup"),
            (json!({"kind": "WorkloadGroup"}), "metadata.name"),
            (json!({"kind": "WorkloadGroup", "metadata": {"name": "a"}, "spec": {"template": 1}}), "spec"),
        ] {
            assert!(format!("{:#}", Group::read(&object).unwrap_err()).contains(what), "{object}");
        }
    }
}
