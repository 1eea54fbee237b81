//! Rules of `TrafficExtension`.

use proto::istio::extensions::v1alpha1::TrafficExtension;
use proto::istio::extensions::v1alpha1::traffic_extension::FilterConfig;

use super::wasm_plugin::{Module, module, ports};
use crate::validate::Checker;

/// Longest script, in bytes.
const MAX_SCRIPT: usize = 65536;

pub(super) fn check(extension: &TrafficExtension, checker: &mut Checker) {
    checker.selection(extension.selector.as_ref(), None, &extension.target_refs);
    match &extension.filter_config {
        None => checker.error("", "has neither wasm nor lua: give one of them"),
        Some(FilterConfig::Lua(lua)) if lua.inline_code.is_empty() => {
            checker.error("lua.inlineCode", "is missing: give a script");
        }
        Some(FilterConfig::Lua(lua)) if lua.inline_code.len() > MAX_SCRIPT => {
            let message = format!("has {} bytes: at most {MAX_SCRIPT} are allowed", lua.inline_code.len());
            checker.error("lua.inlineCode", message);
        }
        Some(FilterConfig::Lua(_)) => {}
        Some(FilterConfig::Wasm(wasm)) => {
            let checked = Module {
                url: &wasm.url,
                sha256: &wasm.sha256,
                image_pull_secret: &wasm.image_pull_secret,
                plugin_name: &wasm.plugin_name,
                verification_key: &wasm.verification_key,
                vm_config: wasm.vm_config.as_ref(),
            };
            module("wasm.", &checked, checker);
        }
    }
    ports(extension.r#match.iter().map(|selector| selector.ports.as_slice()), checker);
}
