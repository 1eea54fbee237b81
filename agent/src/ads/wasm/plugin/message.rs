//! Wasm filters as messages.

use std::time::Duration;

use proto::envoy::config::core::v3::async_data_source::Specifier;
use proto::envoy::config::core::v3::{AsyncDataSource, DataSource, RemoteDataSource, data_source};
use proto::envoy::extensions::wasm::v3::plugin_config::Vm;
use proto::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig};

use super::{Code, PREFIX, Parts, Remote};

/// What is read; `None` when there is no code.
pub(super) fn parts(config: &PluginConfig) -> Option<Parts> {
    let Some(Vm::VmConfig(vm)) = &config.vm else { return None };
    let code = match vm.code.as_ref()?.specifier.as_ref()? {
        Specifier::Local(_) => Code::Local,
        Specifier::Remote(remote) => Code::Remote(self::remote(remote)),
    };
    let fails_open = match config.failure_policy() {
        FailurePolicy::Unspecified => config.fail_open,
        policy => policy == FailurePolicy::FailOpen,
    };
    let env = vm.environment_variables.as_ref().map(|env| env.key_values.clone()).unwrap_or_default();
    Some(Parts { code, env, fails_open })
}

fn remote(remote: &RemoteDataSource) -> Remote {
    let Some(uri) = &remote.http_uri else {
        return Remote { sha256: remote.sha256.clone(), ..Default::default() };
    };
    let timeout = uri.timeout.as_ref().map(|limit| {
        let seconds = u64::try_from(limit.seconds).unwrap_or_default();
        Duration::new(seconds, u32::try_from(limit.nanos).unwrap_or_default())
    });
    Remote { uri: Some(uri.uri.clone()), timeout, sha256: remote.sha256.clone() }
}

/// Puts a file in place of the code and removes what is for the agent only.
pub(super) fn set_file(config: &mut PluginConfig, file: String) {
    let Some(Vm::VmConfig(vm)) = &mut config.vm else { return };
    let source = DataSource { specifier: Some(data_source::Specifier::Filename(file)), ..Default::default() };
    vm.code = Some(AsyncDataSource { specifier: Some(Specifier::Local(source)) });
    if let Some(env) = &mut vm.environment_variables {
        env.key_values.retain(|name, _| !name.starts_with(PREFIX));
        if env.key_values.is_empty() && env.host_env_keys.is_empty() {
            vm.environment_variables = None;
        }
    }
}
