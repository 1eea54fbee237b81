//! How Envoy is run.

use std::path::PathBuf;

use names::NodeType;
use serde_json::Value;

use super::super::args::Proxy;
use super::super::env::{self, Reader};
use super::super::node::{Family, Node};
use super::super::{CONFIG_YAML, Envoy, Paths, ProxyConfig};
use super::{Inputs, PORT, below};
use crate::envoy::bootstrap::services::{self, Services};
use crate::envoy::bootstrap::{self, stats};

/// Time after which Envoy writes its logs out, in milliseconds, unless told
/// otherwise.
const FLUSH_MILLISECONDS: u128 = 1000;

pub(super) fn envoy(
    inputs: &Inputs<'_>,
    proxy: &ProxyConfig,
    node: &Node,
    paths: &Paths,
    services: &Services,
    reader: &mut Reader<'_>,
) -> Option<Envoy> {
    let disabled = reader.flag(env::DISABLE_ENVOY);
    let count_connections = reader.flag(env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS);
    let (stats, warnings) = stats::Settings::read(proxy, inputs.annotations, count_connections);
    warnings.into_iter().for_each(|warning| reader.warning(warning));
    check(node, reader);
    let options = bootstrap::Options {
        proxy,
        node,
        paths,
        services,
        stats: &stats,
        log_as_json: inputs.log_as_json,
        delta: reader.flag(env::ISTIO_DELTA_XDS),
        ports: ports(reader),
        proxy_protocol: reader.flag(env::ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL),
        metrics_localhost_only: reader.flag(env::METRICS_LOCALHOST_ACCESS_ONLY),
        strip_fragment: reader.flag(env::HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED),
        self_discovery: reader.flag(env::ISTIO_META_ENABLE_SELF_DISCOVERY),
        outlier_log: &inputs.args.outlier_log_path,
    };
    let custom =
        (!proxy.custom_config_file.is_empty()).then(|| below(inputs.root, &proxy.custom_config_file));
    let file = custom.clone().unwrap_or_else(|| paths.bootstrap.clone());
    let mut args = vec!["-c".to_owned(), file.to_string_lossy().into_owned()];
    args.extend(fixed_args(proxy, node, inputs.args));
    let switches = [
        (env::ENVOY_SKIP_DEPRECATED_LOGS, "--skip-deprecated-logs"),
        (env::ISTIO_ENVOY_ENABLE_CORE_DUMP, "--enable-core-dump"),
    ];
    for (variable, switch) in switches {
        if reader.flag(variable) {
            args.push(switch.into());
        }
    }
    if let Some(over) = over(reader) {
        args.extend([CONFIG_YAML.into(), over]);
    }
    if let Some(threads) = proxy.concurrency.as_ref().map(|limit| limit.value).filter(|value| *value > 0) {
        args.extend(["--concurrency".into(), threads.to_string()]);
    }
    (!disabled).then(|| Envoy {
        binary: PathBuf::from(&proxy.binary_path),
        args,
        env: Vec::new(),
        bootstrap: custom.is_none().then(|| bootstrap::build(&options)),
    })
}

/// Servers that Envoy reports to.
pub(super) fn services(proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Services {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let services = services::read(proxy, reader.text(env::HOST_IP), &mut errors, &mut warnings);
    errors.into_iter().for_each(|error| reader.error(error));
    warnings.into_iter().for_each(|warning| reader.warning(warning));
    services
}

fn ports(reader: &mut Reader<'_>) -> bootstrap::Ports {
    let mut port = |variable| reader.parse(variable, PORT);
    bootstrap::Ports {
        status: port(env::ENVOY_STATUS_PORT),
        prometheus: port(env::ENVOY_PROMETHEUS_PORT),
        secure_metrics: port(env::ENVOY_SECURE_METRICS_PORT),
        secure_merged_metrics: port(env::ENVOY_SECURE_MERGED_METRICS_PORT),
    }
}

/// Metadata that goes into the bootstrap and cannot be read.
fn check(node: &Node, reader: &mut Reader<'_>) {
    let text = |name: &str| node.metadata.get(name).and_then(Value::as_str);
    if let Some(limit) = text(bootstrap::CONNECTION_LIMIT_METADATA)
        && limit.parse::<u32>().is_err()
    {
        let name = bootstrap::CONNECTION_LIMIT_METADATA;
        reader.error(format!("{}{name}={limit:?}: expected a number of connections", env::META));
    }
    if let Some(load) = text("LOAD_STATS_CONFIG_JSON")
        && !serde_json::from_str(load).is_ok_and(|value: Value| value.is_object())
    {
        reader.error(format!("{}LOAD_STATS_CONFIG_JSON={load:?}: expected a JSON object", env::META));
    }
    let is_on = |name: &str| text(name) == Some("true");
    if is_on("ENABLE_HBONE") && node.node_type() == NodeType::Sidecar {
        reader.warning(
            "ISTIO_META_ENABLE_HBONE=\"true\" is told to istiod; stock Envoy does not discover the metadata of peers".into(),
        );
    }
}

/// What Envoy merges over the bootstrap, as JSON.
fn over(reader: &mut Reader<'_>) -> Option<String> {
    let variable = env::ISTIO_BOOTSTRAP_OVERRIDE;
    let path = reader.set(variable)?;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            reader.invalid(variable, path, format!("a readable file: {error}"));
            return None;
        }
    };
    match mesh::yaml::parse(&with_host(&text, reader.text(env::HOST_IP))) {
        Ok(json) => Some(json.to_string()),
        Err(error) => {
            reader.invalid(variable, path, format!("a part of Envoy's bootstrap, as YAML or JSON: {error}"));
            None
        }
    }
}

/// Puts the address of the node in; IPv6 addresses get brackets.
fn with_host(text: &str, host_ip: &str) -> String {
    const HOST_IP: &str = "$(HOST_IP)";
    if !host_ip.contains(':') {
        return text.replace(HOST_IP, host_ip);
    }
    let bracketed = format!("[{host_ip}]");
    text.replace(&format!("[{HOST_IP}]"), &bracketed).replace(HOST_IP, &bracketed)
}

fn fixed_args(proxy: &ProxyConfig, node: &Node, args: &Proxy) -> Vec<String> {
    let drain = proxy.drain_duration.and_then(|span| span.to_std()).unwrap_or_default().as_secs();
    let flush = proxy.file_flush_interval.and_then(|span| span.to_std());
    let flush = flush.map_or(FLUSH_MILLISECONDS, |span| span.as_millis());
    let family = if node.family == Family::V6 { "v6" } else { "v4" };
    let (level, components) = log_levels(&args.proxy_log_level, &args.proxy_component_log_level);
    let mut all: Vec<String> = [
        "--drain-time-s",
        &drain.to_string(),
        "--drain-strategy",
        "immediate",
        "--local-address-ip-version",
        family,
        "--file-flush-interval-msec",
        &flush.to_string(),
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
    ]
    .map(str::to_owned)
    .into();
    if proxy.file_flush_min_size_kb > 0 {
        all.extend(["--file-flush-min-size-kb".into(), proxy.file_flush_min_size_kb.to_string()]);
    }
    all.extend(["-l".into(), level]);
    if !components.is_empty() {
        all.extend(["--component-log-level".into(), components]);
    }
    all
}

/// Splits `info,misc:error` into the level and the levels of components.
fn log_levels(given: &str, components: &str) -> (String, String) {
    let (parts, plain): (Vec<&str>, Vec<&str>) = given.split(',').partition(|part| part.contains(':'));
    let level = plain.into_iter().rfind(|part| !part.is_empty()).unwrap_or("warning");
    let components: Vec<&str> =
        parts.into_iter().chain([components]).filter(|part| !part.is_empty()).collect();
    (level.to_owned(), components.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_log_levels_are_split() {
        assert_eq!(
            log_levels("info,misc:error,upstream:debug", ""),
            ("info".into(), "misc:error,upstream:debug".into())
        );
        assert_eq!(log_levels("misc:error", "a:b"), ("warning".into(), "misc:error,a:b".into()));
    }

    #[test]
    fn the_address_of_the_node_is_put_in() {
        assert_eq!(with_host("a: $(HOST_IP):1", "10.0.0.1"), "a: 10.0.0.1:1");
        assert_eq!(
            with_host("a: $(HOST_IP):1, b: '[$(HOST_IP)]:2'", "fd00::1"),
            "a: [fd00::1]:1, b: '[fd00::1]:2'"
        );
    }
}
