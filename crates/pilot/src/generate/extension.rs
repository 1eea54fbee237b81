//! Extension configurations (ECDS): modules of Wasm, and what patches bring.

use std::collections::BTreeMap;

use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::async_data_source::Specifier;
use proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use proto::envoy::config::core::v3::{
    AsyncDataSource, DataSource, HttpUri, RemoteDataSource, TypedExtensionConfig, data_source,
};
use proto::envoy::extensions::filters::{http, network};
use proto::envoy::extensions::wasm::v3::plugin_config::Vm;
use proto::envoy::extensions::wasm::v3::{EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig};
use proto::istio::extensions::v1alpha1::{EnvValueSource, FailStrategy, PullPolicy, WasmConfig};
use xds::Resource;
use xds::session::Wanted;

use super::message::seconds;
use crate::patch;
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::snapshot::wasm::{Code, Extension};

/// Variables of the VM that the agent takes out: credentials of the registry,
/// when a module in its cache will do, and which version of the object it is.
const PULL_SECRET: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";
const PULL_POLICY: &str = "ISTIO_META_WASM_IMAGE_PULL_POLICY";
const RESOURCE_VERSION: &str = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION";
/// The agent's time for a download, in seconds.
const TIMEOUT: i64 = 30;

/// The extension configurations of those names.
///
/// `proven` are the namespaces of identities that the caller has proven: only
/// to proxies of the extension's own namespace go credentials of its registry.
#[must_use]
pub fn extensions(snapshot: &Snapshot, proxy: &Proxy, proven: &[String], wanted: &Wanted) -> Vec<Resource> {
    let Wanted::Names(names) = wanted else { return Vec::new() };
    let mut made: BTreeMap<String, TypedExtensionConfig> =
        patch::extensions(snapshot, proxy, |name| names.contains(name))
            .into_iter()
            .map(|config| (config.name.clone(), config))
            .collect();
    for name in names {
        if let Some(extension) = snapshot.extensions.named(&proxy.namespace, name)
            && let Some(config) = of(snapshot, extension, proven)
        {
            made.entry(name.to_string()).or_insert(config);
        }
    }
    made.iter().map(|(name, config)| Resource::encode(name.as_str(), config)).collect()
}

/// `None` for a script, which stands in the listener.
fn of(snapshot: &Snapshot, extension: &Extension, proven: &[String]) -> Option<TypedExtensionConfig> {
    let Code::Wasm(wasm) = &extension.code else { return None };
    let config = Some(plugin(snapshot, extension, wasm, proven));
    let filter = if extension.is_network() {
        Any::pack(&network::wasm::v3::Wasm { config })
    } else {
        Any::pack(&http::wasm::v3::Wasm { config })
    };
    Some(TypedExtensionConfig { name: extension.resource(), typed_config: Some(filter) })
}

fn plugin(snapshot: &Snapshot, extension: &Extension, wasm: &WasmConfig, proven: &[String]) -> PluginConfig {
    let mut variables = EnvironmentVariables::default();
    let own = &mut variables.key_values;
    if !wasm.image_pull_secret.is_empty() {
        own.insert(PULL_SECRET.into(), credentials(snapshot, extension, wasm, proven).unwrap_or_default());
    }
    if wasm.image_pull_policy() != PullPolicy::UnspecifiedPolicy {
        own.insert(PULL_POLICY.into(), wasm.image_pull_policy().as_str_name().into());
    }
    own.insert(RESOURCE_VERSION.into(), extension.version.clone());
    for variable in wasm.vm_config.iter().flat_map(|config| &config.env) {
        match variable.value_from() {
            EnvValueSource::Inline => {
                own.entry(variable.name.clone()).or_insert_with(|| variable.value.clone());
            }
            EnvValueSource::Host => variables.host_env_keys.push(variable.name.clone()),
        }
    }
    let policy = match wasm.fail_strategy() {
        FailStrategy::FailClose => FailurePolicy::FailClosed,
        FailStrategy::FailOpen => FailurePolicy::FailOpen,
        FailStrategy::FailReload => FailurePolicy::FailReload,
    };
    PluginConfig {
        name: format!("{}.{}", extension.namespace, extension.name),
        root_id: wasm.plugin_name.clone(),
        configuration: wasm.plugin_config.as_ref().and_then(settings),
        failure_policy: policy.into(),
        vm: Some(Vm::VmConfig(VmConfig {
            runtime: "envoy.wasm.runtime.v8".into(),
            code: Some(source(&wasm.url, &wasm.sha256)),
            environment_variables: Some(variables),
            ..VmConfig::default()
        })),
        ..PluginConfig::default()
    }
}

/// Settings of the module as a text of JSON; fields have an order in it.
fn settings(settings: &impl serde::Serialize) -> Option<Any> {
    let json = serde_json::to_value(settings).ok()?;
    if json.as_object().is_none_or(serde_json::Map::is_empty) {
        return None;
    }
    // How Envoy takes a text: prost reads and writes a `String` as that message.
    Some(Any {
        type_url: "type.googleapis.com/google.protobuf.StringValue".into(),
        value: json.to_string().encode_to_vec().into(),
    })
}

/// A file of the proxy's, or what the agent fetches for Envoy.
fn source(url: &str, sha256: &str) -> AsyncDataSource {
    let specifier = if let Some(path) = url.strip_prefix("file://") {
        Specifier::Local(DataSource {
            specifier: Some(data_source::Specifier::Filename(path.into())),
            ..DataSource::default()
        })
    } else {
        let uri = if url.contains("://") { url.to_owned() } else { format!("oci://{url}") };
        Specifier::Remote(RemoteDataSource {
            http_uri: Some(HttpUri {
                uri,
                timeout: seconds(TIMEOUT),
                // Envoy wants one; it is never called.
                http_upstream_type: Some(HttpUpstreamType::Cluster("_".into())),
            }),
            sha256: sha256.into(),
            ..RemoteDataSource::default()
        })
    };
    AsyncDataSource { specifier: Some(specifier) }
}

/// The registry's credentials, from a Secret of the extension's namespace.
fn credentials(
    snapshot: &Snapshot,
    extension: &Extension,
    wasm: &WasmConfig,
    proven: &[String],
) -> Option<String> {
    if !proven.contains(&extension.namespace) {
        return None;
    }
    let name = wasm.image_pull_secret.strip_prefix("kubernetes://").unwrap_or(&wasm.image_pull_secret);
    // Another namespace than the extension's is not asked, whatever is written.
    let name = name.rsplit('/').next().unwrap_or(name);
    snapshot.secrets.docker_config(&extension.namespace, name)
}
