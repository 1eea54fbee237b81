//! Wasm modules.

use std::path::PathBuf;
use std::time::Duration;

use super::super::env::{self, Reader, Variable};
use super::{Inputs, below};
use crate::ads::wasm::{Network, Settings};

/// Where modules are kept.
const DIR: &str = "/var/lib/istio/data";

pub(super) fn wasm(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> Settings {
    let insecure = reader.text(env::WASM_INSECURE_REGISTRIES);
    let mut positive = |variable: Variable| {
        let value = reader.duration(variable);
        if value.is_zero() {
            let text = reader.text(variable);
            reader.invalid(variable, text, "more than 0s");
        }
        value.max(Duration::from_nanos(1))
    };
    let expiry = positive(env::WASM_MODULE_EXPIRY);
    let purge_interval = positive(env::WASM_PURGE_INTERVAL);
    let request_timeout = positive(env::WASM_HTTP_REQUEST_TIMEOUT);
    Settings {
        enabled: reader.flag(env::ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION),
        dir: below(inputs.root, if inputs.root == std::path::Path::new(".") { DIR } else { &DIR[1..] }),
        insecure: items(insecure).map(str::to_owned).collect(),
        expiry,
        purge_interval,
        request_timeout,
        attempts: reader.parse_with(env::WASM_HTTP_REQUEST_MAX_RETRIES, "a whole number from 1", |text| {
            text.parse().ok().filter(|attempts| *attempts > 0)
        }),
        max_bytes: reader.parse_with(env::ISTIO_WASM_MAX_BINARY_SIZE_BYTES, "a number of bytes", |text| {
            text.parse().ok().filter(|bytes| *bytes > 0)
        }),
        blocked: reader.parse_with(
            env::BLOCKED_CIDRS_IN_WASM_FETCH,
            "networks such as 10.0.0.0/8, with commas between them",
            |text| items(text).map(|item| item.parse::<Network>().ok()).collect(),
        ),
        roots: reader.set(env::SSL_CERT_FILE).map(PathBuf::from),
        docker_configs: docker_configs(reader),
    }
}

/// Parts between commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Where docker and podman keep credentials.
fn docker_configs(reader: &Reader<'_>) -> Vec<PathBuf> {
    let file = |variable, rest: &str| Some(PathBuf::from(reader.set(variable)?).join(rest));
    [
        file(env::DOCKER_CONFIG, "config.json"),
        file(env::HOME, ".docker/config.json"),
        reader.set(env::REGISTRY_AUTH_FILE).map(PathBuf::from),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{LINE, root, with};

    #[test]
    fn modules_are_fetched_as_in_istio_unless_told_otherwise() {
        let dir = root();
        let (config, warnings) = with(dir.path(), LINE, &[], &[]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let wasm = config.wasm;
        assert!(wasm.enabled);
        assert_eq!(wasm.dir, dir.path().join("var/lib/istio/data"));
        assert_eq!(wasm.expiry, Duration::from_secs(86400));
        assert_eq!(wasm.purge_interval, Duration::from_secs(3600));
        assert_eq!(wasm.request_timeout, Duration::from_secs(15));
        assert_eq!((wasm.attempts, wasm.max_bytes), (5, 256 << 20));
        assert!(wasm.insecure.is_empty() && wasm.blocked.is_empty());
        let env = [
            ("WASM_INSECURE_REGISTRIES", "localhost:5000, registry:5000"),
            ("WASM_MODULE_EXPIRY", "1h"),
            ("BLOCKED_CIDRS_IN_WASM_FETCH", "10.0.0.0/8, fd00::/8"),
            ("ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION", "false"),
            ("DOCKER_CONFIG", "/docker"),
        ];
        let (config, _) = with(dir.path(), LINE, &env, &[]).unwrap();
        let wasm = config.wasm;
        assert!(!wasm.enabled);
        assert_eq!(wasm.insecure, ["localhost:5000", "registry:5000"]);
        assert_eq!(wasm.expiry, Duration::from_secs(3600));
        assert_eq!(wasm.blocked.len(), 2);
        assert_eq!(wasm.docker_configs, [PathBuf::from("/docker/config.json")]);
    }

    #[test]
    fn values_without_sense_are_refused() {
        let dir = root();
        let env = [
            ("WASM_PURGE_INTERVAL", "0s"),
            ("WASM_HTTP_REQUEST_MAX_RETRIES", "0"),
            ("BLOCKED_CIDRS_IN_WASM_FETCH", "10.0.0.0"),
        ];
        let errors = with(dir.path(), LINE, &env, &[]).unwrap_err();
        assert_eq!(
            errors,
            [
                "WASM_PURGE_INTERVAL=\"0s\": expected more than 0s",
                "WASM_HTTP_REQUEST_MAX_RETRIES=\"0\": expected a whole number from 1",
                "BLOCKED_CIDRS_IN_WASM_FETCH=\"10.0.0.0\": expected networks such as 10.0.0.0/8, with commas between them",
            ]
        );
    }
}
