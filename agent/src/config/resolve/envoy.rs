//! How Envoy is run.

use std::path::PathBuf;

use super::super::args::Proxy;
use super::super::env::{self, Reader};
use super::super::{Envoy, Paths, ProxyConfig, node};
use super::{Inputs, PORT};
use crate::envoy::bootstrap;

pub(super) fn envoy(
    inputs: &Inputs<'_>,
    proxy: &ProxyConfig,
    node: &node::Node,
    paths: &Paths,
    reader: &mut Reader<'_>,
) -> Option<Envoy> {
    let disabled = reader.flag(env::DISABLE_ENVOY);
    let options = bootstrap::Options {
        proxy,
        node,
        paths,
        log_as_json: inputs.log_as_json,
        annotations: inputs.annotations,
        delta: reader.flag(env::ISTIO_DELTA_XDS),
        status_port: reader.parse(env::ENVOY_STATUS_PORT, PORT),
        prometheus_port: reader.parse(env::ENVOY_PROMETHEUS_PORT, PORT),
        strip_fragment: reader.flag(env::HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED),
        count_connections: reader.flag(env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS),
    };
    let custom = (!proxy.custom_config_file.is_empty()).then_some(proxy.custom_config_file.as_str());
    let file = custom.map_or_else(|| paths.bootstrap.clone(), PathBuf::from);
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
    if let Some(path) = reader.set(env::ISTIO_BOOTSTRAP_OVERRIDE) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                args.extend(["--config-yaml".into(), text.replace("$(HOST_IP)", reader.text(env::HOST_IP))]);
            }
            Err(error) => {
                reader.invalid(env::ISTIO_BOOTSTRAP_OVERRIDE, path, format!("a readable file: {error}"))
            }
        }
    }
    if let Some(threads) = proxy.concurrency.as_ref().map(|limit| limit.value).filter(|value| *value > 0) {
        args.extend(["--concurrency".into(), threads.to_string()]);
    }
    (!disabled).then(|| Envoy {
        binary: PathBuf::from(&proxy.binary_path),
        args,
        bootstrap: custom.is_none().then(|| bootstrap::build(&options)),
    })
}

fn fixed_args(proxy: &ProxyConfig, node: &node::Node, args: &Proxy) -> Vec<String> {
    let drain = proxy.drain_duration.and_then(|span| span.to_std()).unwrap_or_default().as_secs();
    let family = if node.id.ip.is_ipv4() { "v4" } else { "v6" };
    let (level, components) = log_levels(&args.proxy_log_level, &args.proxy_component_log_level);
    let mut all: Vec<String> = [
        "--drain-time-s",
        &drain.to_string(),
        "--drain-strategy",
        "immediate",
        "--local-address-ip-version",
        family,
        "--file-flush-interval-msec",
        "1000",
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        "-l",
        &level,
    ]
    .map(str::to_owned)
    .into();
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
    use super::log_levels;

    #[test]
    fn envoys_log_levels_are_split() {
        assert_eq!(
            log_levels("info,misc:error,upstream:debug", ""),
            ("info".into(), "misc:error,upstream:debug".into())
        );
        assert_eq!(log_levels("misc:error", "a:b"), ("warning".into(), "misc:error,a:b".into()));
    }
}
