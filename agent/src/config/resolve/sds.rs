//! Secrets that are served to Envoy, and the agent's sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use names::path;
use proto::istio::mesh::v1alpha1::private_key_provider::Provider;

use super::super::ProxyConfig;
use super::super::env::{self, Reader};
use super::super::sds::{KeyProvider, ProviderKind, Sds};
use super::{Inputs, below};
use crate::unix::Access;

/// Where files are served when another server has the workload's secrets.
const FILES_SOCKET: &str = "./var/run/secrets/credential-uds/files-socket";
/// Where a server of certificates for gateways is looked for.
const CREDENTIALS_SOCKET: &str = "./var/run/secrets/credential-uds/socket";
/// The lists of revoked certificates.
const REVOKED: &str = "./var/run/secrets/istio/crl/ca-crl.pem";
/// Envoy accepts no shorter delay.
const MIN_POLL_DELAY: Duration = Duration::from_millis(1);

pub(super) fn sds(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Sds {
    let name = reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE);
    if Path::new(name).file_name().is_none_or(|file| file != name) {
        reader.invalid(
            env::WORKLOAD_IDENTITY_SOCKET_FILE,
            name,
            format!("the name of a file in {}, not a path", path::SDS_SOCKET_DIR),
        );
    }
    let looks_for_revoked = reader.flag(env::PILOT_ENABLE_CA_CRL);
    Sds {
        workload: below(inputs.root, path::SDS_SOCKET_DIR).join(name),
        is_renamed: name != env::WORKLOAD_IDENTITY_SOCKET_FILE.default,
        files: below(inputs.root, FILES_SOCKET),
        credentials: below(inputs.root, CREDENTIALS_SOCKET),
        access: access(reader),
        debounce: reader.duration(env::FILE_DEBOUNCE_DURATION),
        revoked: looks_for_revoked.then(|| below(inputs.root, REVOKED)),
        key_provider: key_provider(proxy, reader),
    }
}

fn access(reader: &mut Reader<'_>) -> Access {
    // Without Envoy, only applications have a use for the sockets.
    let usual = if reader.flag(env::DISABLE_ENVOY) { Access::Anyone } else { Access::Proxy };
    match reader.set(env::ISTIO_AGENT_SOCKET_MODE) {
        None => usual,
        Some("0660" | "660") => Access::Proxy,
        Some("0666" | "666") => Access::Anyone,
        Some(text) => {
            reader.invalid(env::ISTIO_AGENT_SOCKET_MODE, text, "0660 or 0666");
            usual
        }
    }
}

/// `privateKeyProvider`, if the Envoy that is run has it.
fn key_provider(proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Option<KeyProvider> {
    let provider = proxy.private_key_provider.as_ref()?.provider.as_ref()?;
    let (kind, delay, fallback) = match provider {
        Provider::Cryptomb(method) => (ProviderKind::CryptoMb, method.poll_delay, method.fallback),
        Provider::Qat(method) => (ProviderKind::Qat, method.poll_delay, method.fallback),
    };
    let name = kind.name();
    let poll_delay = delay.and_then(|delay| delay.to_std()).unwrap_or_default();
    if poll_delay < MIN_POLL_DELAY {
        reader.error(format!(
            "privateKeyProvider.{name}.pollDelay of the ProxyConfig is {poll_delay:?}: expected at least {MIN_POLL_DELAY:?}"
        ));
    }
    let fallback = fallback.is_some_and(|fallback| fallback.value);
    let program = PathBuf::from(&proxy.binary_path);
    // A program that cannot be read cannot be started either, which is told then.
    if reader.flag(env::DISABLE_ENVOY) || kind.is_in(&program).unwrap_or(true) {
        return Some(KeyProvider { kind, poll_delay, fallback });
    }
    let lacks =
        format!("privateKeyProvider.{name} of the ProxyConfig: {} has no such extension", program.display());
    if fallback {
        reader.warning(format!("{lacks}; Envoy works with private keys by itself"));
    } else {
        reader.error(format!(
            "{lacks}; name in binaryPath an Envoy built with its contrib extensions, or set fallback: true"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::resolve::tests::{LINE, root, with};
    use crate::config::sds::{KeyProvider, ProviderKind};
    use crate::unix::Access;

    #[test]
    fn sockets_are_for_the_proxy_unless_told_otherwise() {
        let dir = root();
        let access =
            |env: &[(&str, &str)]| with(dir.path(), LINE, env, &[]).map(|(config, _)| config.sds.access);
        assert_eq!(access(&[]), Ok(Access::Proxy));
        assert_eq!(access(&[("ISTIO_AGENT_SOCKET_MODE", "0666")]), Ok(Access::Anyone));
        assert_eq!(access(&[("DISABLE_ENVOY", "true")]), Ok(Access::Anyone));
        let both = [("DISABLE_ENVOY", "true"), ("ISTIO_AGENT_SOCKET_MODE", "0660")];
        assert_eq!(access(&both), Ok(Access::Proxy));
        let errors = access(&[("ISTIO_AGENT_SOCKET_MODE", "0777")]).unwrap_err();
        assert_eq!(errors, ["ISTIO_AGENT_SOCKET_MODE=\"0777\": expected 0660 or 0666"]);
    }

    #[test]
    fn the_name_of_the_socket_is_no_path() {
        let dir = root();
        for name in ["a/b", "../socket", "..", "/socket", "socket/"] {
            let env = [("WORKLOAD_IDENTITY_SOCKET_FILE", name)];
            let errors = with(dir.path(), LINE, &env, &[]).unwrap_err();
            assert_eq!(errors.len(), 1, "{name}: {errors:?}");
            assert!(errors[0].contains("expected the name of a file"), "{errors:?}");
        }
        let env = [("WORKLOAD_IDENTITY_SOCKET_FILE", "spire.sock")];
        let (config, _) = with(dir.path(), LINE, &env, &[]).unwrap();
        assert!(config.sds.is_renamed && config.sds.workload.ends_with("workload-spiffe-uds/spire.sock"));
        assert_eq!(config.sds.workload, config.paths.sds_socket);
    }

    #[test]
    fn a_key_provider_is_used_when_envoy_has_it() {
        let dir = root();
        let program = dir.path().join("envoy");
        let given = |settings: &str| {
            let proxy = format!("{{binaryPath: {}, privateKeyProvider: {settings}}}", program.display());
            let env = [("PROXY_CONFIG", proxy.as_str())];
            with(dir.path(), LINE, &env, &[]).map(|(config, warnings)| (config.sds.key_provider, warnings))
        };
        fs::write(&program, "stock").unwrap();
        let errors = given("{qat: {pollDelay: 2ms}}").unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("has no such extension"), "{errors:?}");
        let (provider, warnings) = given("{qat: {pollDelay: 2ms, fallback: true}}").unwrap();
        assert!(provider.is_none() && warnings.len() == 1, "{warnings:?}");
        fs::write(&program, "envoy.extensions.private_key_providers.qat.v3alpha.Q").unwrap();
        let (provider, warnings) = given("{qat: {pollDelay: 2ms, fallback: true}}").unwrap();
        let poll_delay = std::time::Duration::from_millis(2);
        assert_eq!(provider, Some(KeyProvider { kind: ProviderKind::Qat, poll_delay, fallback: true }));
        assert!(warnings.is_empty(), "{warnings:?}");
        let errors = given("{qat: {}}").unwrap_err();
        assert!(
            errors[0].contains("pollDelay of the ProxyConfig is 0ns: expected at least 1ms"),
            "{errors:?}"
        );
    }
}
