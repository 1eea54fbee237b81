//! From everything that was given to one [`Config`], or to all that is wrong.

mod ads;
mod certificates;
mod dns;
mod envoy;
mod node;
mod sds;
mod status;
mod telemetry;
mod wasm;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use mesh::proxy_config::{self, Layers};
use names::{NodeType, SpiffeId, annotation, path};
use proto::istio::mesh::v1alpha1::proxy_config::ClusterName;

use super::args::Proxy;
use super::env::{self, Reader};
use super::{Certificates, Config, Late, Paths, ProxyConfig, platform, unsupported};
use crate::grpc_bootstrap;
use certificates::{ISTIOD_NAME, host};

/// Service cluster of a proxy that is not told any.
const DEFAULT_CLUSTER: &str = "istio-proxy";

/// Everything that is given to the agent.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Flags.
    pub args: &'a Proxy,
    /// Environment.
    pub env: &'a BTreeMap<String, String>,
    /// Labels of the pod.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: &'a BTreeMap<String, String>,
    /// Text of the mesh configuration file, if it is there.
    pub mesh_config: Option<&'a str>,
    /// Addresses of the pod's interfaces.
    pub addresses: &'a [IpAddr],
    /// Directories in which our module for Envoy is looked for.
    pub module_dirs: &'a [PathBuf],
    /// Directory that relative paths begin at.
    pub root: &'a Path,
    /// Logs are JSON.
    pub log_as_json: bool,
}

/// Resolves the configuration; returns warnings as well.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn resolve(inputs: &Inputs<'_>) -> Result<(Config, Vec<String>), Vec<String>> {
    let (mut proxy, mut warnings) = proxy_config(inputs)?;
    let metadata = proxy.proxy_metadata.clone();
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    let mut reader = Reader::new(inputs.env, &metadata);
    set_concurrency(&mut proxy, inputs.args, &mut reader);
    let paths = paths(inputs, &proxy, &reader);
    let identity = identity(&mut reader);
    let xds = certificates::xds(inputs, &proxy, &mut reader);
    let ads = ads::ads(&mut reader);
    let certificates = certificates::certificates(inputs, &proxy, &mut reader);
    let sds = sds::sds(inputs, &proxy, &mut reader);
    let node = node::node(inputs, &proxy, &mut reader);
    let (drain, status, exit_file) = status::lifecycle(&proxy, node.as_ref(), &mut reader);
    let role = node.as_ref().map_or(NodeType::Sidecar, |node| node.node_type());
    let dns = dns::dns(inputs, role, nix::unistd::getuid().is_root(), &mut reader);
    let wasm = wasm::wasm(inputs, &mut reader);
    unsupported::refuse(inputs, &proxy, &mut reader);
    let services = envoy::services(&proxy, &mut reader);
    let envoy =
        node.as_ref().and_then(|node| envoy::envoy(inputs, &proxy, node, &paths, &services, &mut reader));
    // It counts what a bootstrap of the user does not tell istiod of.
    let bootstrap = envoy.as_ref().and_then(|envoy| envoy.bootstrap.as_ref()).and(node.as_ref());
    let module = bootstrap.and_then(|node| telemetry::module(inputs, node, &mut reader));
    let grpc = grpc(inputs, &certificates, &reader);
    let statsd = services.statsd.filter(|address| address.ip().is_none());
    let late = Late { platform: platform::plan(&mut reader), statsd, module };
    warnings.extend(reader.take_warnings());
    let errors = reader.into_errors();
    match (identity, node) {
        (Some(identity), Some(node)) if errors.is_empty() => {
            let config = Config {
                paths,
                proxy,
                identity,
                certificates,
                sds,
                xds,
                ads,
                node,
                envoy,
                grpc,
                late,
                drain,
                status,
                exit_file,
                dns,
                wasm,
            };
            Ok((config, warnings))
        }
        _ => Err(errors),
    }
}

fn proxy_config(inputs: &Inputs<'_>) -> Result<(ProxyConfig, Vec<String>), Vec<String>> {
    let layers = Layers {
        mesh: inputs.mesh_config.map(|text| (inputs.args.mesh_config.as_str(), text)),
        env: inputs.env.get(env::PROXY_CONFIG.name).map(String::as_str),
        annotations: Some(inputs.annotations),
    };
    let (mut proxy, unknown) = proxy_config::resolve(&layers)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let is_named = match &proxy.cluster_name {
        Some(ClusterName::ServiceCluster(name)) => !name.is_empty() && name != DEFAULT_CLUSTER,
        Some(ClusterName::TracingServiceName(_)) => true,
        None => false,
    };
    if !is_named {
        proxy.cluster_name = Some(ClusterName::ServiceCluster(inputs.args.service_cluster.clone()));
    }
    let warnings = unknown.iter().map(|name| format!("unknown setting ignored: {name}")).collect();
    Ok((proxy, warnings))
}

fn set_concurrency(proxy: &mut ProxyConfig, args: &Proxy, reader: &mut Reader<'_>) {
    let limit: u32 = reader.parse(env::ISTIO_CPU_LIMIT, "a whole number of CPUs");
    let chosen = match (args.concurrency, &proxy.concurrency) {
        (0, Some(_)) => return,
        (0, None) => limit,
        (flag, _) => flag,
    };
    if chosen > 0 {
        let value = i32::try_from(chosen).unwrap_or(i32::MAX);
        proxy.concurrency = Some(pbjson_types::Int32Value { value });
    }
}

fn paths(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &Reader<'_>) -> Paths {
    let at = |path: &str| below(inputs.root, path);
    let config = at(&proxy.config_path);
    Paths {
        sds_socket: at(path::SDS_SOCKET_DIR).join(reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE)),
        ads_socket: config.join(path::ADS_SOCKET_NAME),
        bootstrap: config.join(path::BOOTSTRAP_NAME),
        token: at(path::TOKEN),
    }
}

fn grpc(
    inputs: &Inputs<'_>,
    certificates: &Certificates,
    reader: &Reader<'_>,
) -> Option<grpc_bootstrap::Settings> {
    let variable = env::GRPC_XDS_BOOTSTRAP;
    let told = reader.given(variable);
    let path = told.unwrap_or(variable.default);
    (!path.is_empty()).then(|| grpc_bootstrap::Settings {
        path: below(inputs.root, path),
        is_told: told.is_some(),
        certificates: certificates.output.as_ref().map(|output| output.dir.clone()),
    })
}

/// Relative paths stay as they are in the working directory itself, because
/// Envoy gets to see them.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    if root == Path::new(".") { PathBuf::from(path) } else { root.join(path) }
}

fn identity(reader: &mut Reader<'_>) -> Option<SpiffeId> {
    let mut part = |variable: env::Variable| {
        let text = reader.text(variable);
        let parsed = format!("spiffe://{text}/ns/{text}/sa/{text}").parse::<SpiffeId>();
        if parsed.is_err() {
            reader.invalid(variable, text, "a name without '/', ',' and white space");
        }
        parsed.ok()
    };
    let domain = part(env::TRUST_DOMAIN);
    let namespace = part(env::POD_NAMESPACE);
    let account = part(env::SERVICE_ACCOUNT);
    Some(SpiffeId {
        trust_domain: domain?.trust_domain,
        namespace: namespace?.namespace,
        service_account: account?.service_account,
    })
}

const PORT: &str = "a port from 0 to 65535";

/// Interfaces whose addresses are not the pod's.
#[must_use]
pub fn excluded_interfaces(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let list = annotations.get(annotation::EXCLUDE_INTERFACES).map_or("", String::as_str);
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
pub(super) mod tests;
