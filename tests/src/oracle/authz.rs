//! The set `authz`: policies in, the filters of one workload out.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use config::{Severity, Store, yaml};
use mesh::MeshConfig;
use names::TypeUrl;
use pilot::{Proxy, Settings, Snapshot};
use proto::envoy::config::core::v3::Node;
use proto::reflect;
use serde::Deserialize;
use serde_json::{Value, json};
use xds::session::Wanted;

use super::{Summary, difference};

/// The workload of all cases: one port for requests, one for connections.
const WORKLOAD: &str = "
apiVersion: v1
kind: Service
metadata: {name: httpbin, namespace: foo}
spec:
  clusterIP: 10.0.0.1
  selector: {app: httpbin}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 90, targetPort: 9090}
---
apiVersion: v1
kind: Service
metadata: {name: my-custom-ext-authz, namespace: foo}
spec:
  clusterIP: 10.0.0.2
  selector: {app: my-custom-ext-authz}
  ports:
  - {name: http, port: 9000}
";
const ADDRESS: &str = "10.1.0.1";

/// Configurations of the mesh by the names that cases have for them. What is
/// wrong with the last one is told when it is read, but for these mistakes.
const MESHES: [(&str, &str); 4] = [
    (
        "meshConfigGRPCNoNamespace",
        "
extensionProviders:
- name: default
  envoyExtAuthzGrpc:
    service: my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    failOpen: true
    statusOnError: '403'
",
    ),
    (
        "meshConfigGRPC",
        "
extensionProviders:
- name: default
  envoyExtAuthzGrpc:
    service: foo/my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    timeout: 2ms
    failOpen: true
    statusOnError: '403'
    includeRequestBodyInCheck: {maxRequestBytes: 4096, allowPartialMessage: true}
",
    ),
    (
        "meshConfigHTTP",
        "
extensionProviders:
- name: default
  envoyExtAuthzHttp:
    service: foo/my-custom-ext-authz.foo.svc.cluster.local
    port: 9000
    timeout: 10s
    failOpen: true
    statusOnError: '403'
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-custom-id, x-prefix-*, '*-suffix']
    includeHeadersInCheck: [should-not-include-when-IncludeRequestHeadersInCheck-is-set]
    includeAdditionalHeadersInCheck: {x-header-1: value-1, x-header-2: value-2}
    includeRequestBodyInCheck: {maxRequestBytes: 2048, allowPartialMessage: true, packAsBytes: true}
    headersToUpstreamOnAllow: [Authorization, x-prefix-*, '*-suffix']
    headersToDownstreamOnDeny: [Set-cookie, x-prefix-*, '*-suffix']
    headersToDownstreamOnAllow: [Set-cookie, x-prefix-*, '*-suffix']
",
    ),
    (
        "meshConfigInvalid",
        "
extensionProviders:
- name: default
  envoyExtAuthzHttp:
    service: foo/my-custom-ext-authz
    port: 9000
    pathPrefix: check
    statusOnError: '999'
",
    ),
];

/// What a case is about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    protocol: String,
    expect: Vec<String>,
    mesh_config: Option<String>,
    custom_builder: bool,
    trust_domain: Option<String>,
    #[serde(default)]
    trust_domain_aliases: Option<Vec<String>>,
}

/// Compares all cases of a directory.
///
/// # Errors
/// When the directory or a case cannot be read.
pub fn run(dir: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let mut cases: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("recorded cases in {}", dir.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    cases.sort();
    let mut summary = Summary { set: "authz", ..Summary::default() };
    for case in cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &name)) {
            continue;
        }
        match compare(&case) {
            Ok(None) => summary.equal += 1,
            Ok(Some(what)) => {
                summary.different += 1;
                if verbose {
                    eprintln!("{name}: {what}");
                }
            }
            Err(error) => {
                summary.different += 1;
                if verbose {
                    eprintln!("{name}: {error:#}");
                }
            }
        }
    }
    Ok(summary)
}

/// What differs first, if anything.
fn compare(dir: &Path) -> anyhow::Result<Option<String>> {
    let case: Case = serde_json::from_str(&fs::read_to_string(dir.join("case.json"))?)?;
    let message = match case.protocol.as_str() {
        "http" => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        "tcp" => "envoy.config.listener.v3.Filter",
        other => bail!("no protocol {other:?}"),
    };
    let mut theirs = Vec::new();
    for file in &case.expect {
        let recorded: Value = serde_saphyr::from_str(&fs::read_to_string(dir.join(file))?)?;
        // Through the message and back: one spelling of every value.
        theirs.push(reflect::to_json(message, &reflect::from_json(message, recorded)?)?);
    }
    let ours = generate(dir, &case)?;
    let found = difference::first(&Value::Array(ours), &Value::Array(theirs), &|_| false);
    Ok(found.map(|found| format!("{}\n    ours:   {}\n    theirs: {}", found.path, found.ours, found.theirs)))
}

/// The filters of policies in the chain of the case's protocol.
fn generate(dir: &Path, case: &Case) -> anyhow::Result<Vec<Value>> {
    let mut store = Store::default();
    for (file, text) in [("workload", WORKLOAD), ("input.yaml", &fs::read_to_string(dir.join("input.yaml"))?)]
    {
        let contents = yaml::read(file, text);
        if let Some(problem) = contents.problems.iter().find(|problem| problem.severity == Severity::Error) {
            bail!("{problem}");
        }
        contents.objects.into_iter().for_each(|object| {
            store.apply(object.into());
        });
    }
    let settings = Settings::new(Arc::new(mesh(case)?), "Kubernetes");
    let snapshot = Snapshot::build(&store, &settings);
    let node = json!({
        "id": format!("sidecar~{ADDRESS}~test-node.foo~foo.svc.cluster.local"),
        "metadata": {"NAMESPACE": "foo", "LABELS": {"app": "httpbin", "version": "v1"}},
    });
    let node = reflect::from_json("envoy.config.core.v3.Node", node)?;
    let node: Node = prost::Message::decode(node.as_slice())?;
    let proxy = Proxy::from_node(&node)?;
    let listeners = pilot::generate(&snapshot, &proxy, &TypeUrl::Listener, &Wanted::All);
    let listener = listeners.iter().find(|listener| &*listener.name == "virtualInbound");
    let listener = listener.context("no inbound listener")?;
    let listener = reflect::to_json("envoy.config.listener.v3.Listener", &listener.body)?;
    let is_http = case.protocol == "http";
    let name = if is_http { "0.0.0.0_8080" } else { "0.0.0.0_9090" };
    let chains = listener["filterChains"].as_array().context("no chains")?;
    let chain = chains.iter().find(|chain| chain["name"] == name).context("no chain of the workload")?;
    let filters =
        if is_http { &chain["filters"][0]["typedConfig"]["httpFilters"] } else { &chain["filters"] };
    let filters = filters.as_array().context("no filters")?.iter();
    Ok(filters.filter(|filter| is_policy(filter, case.custom_builder)).cloned().collect())
}

/// Whether a filter comes from policies: those of CUSTOM, or of the other actions.
fn is_policy(filter: &Value, is_custom: bool) -> bool {
    let name = filter["name"].as_str().unwrap_or_default();
    let text = filter.to_string();
    let of_custom = text.contains("istio-ext-authz") || text.contains("istio_ext_authz");
    (name.ends_with(".rbac") || name.ends_with(".ext_authz")) && of_custom == is_custom
}

fn mesh(case: &Case) -> anyhow::Result<MeshConfig> {
    let mut text = String::new();
    if let Some(name) = &case.mesh_config {
        let known = MESHES.iter().find(|(known, _)| known == name);
        text += known.with_context(|| format!("no mesh configuration {name:?}"))?.1;
    }
    if let Some(domain) = &case.trust_domain {
        text += &format!("\ntrustDomain: {}\n", json!(domain));
    }
    if let Some(aliases) = &case.trust_domain_aliases {
        text += &format!("\ntrustDomainAliases: {}\n", json!(aliases));
    }
    Ok(MeshConfig::from_yaml(&text)?)
}
