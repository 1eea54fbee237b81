//! Rules of `WasmPlugin`, and those of Wasm in `TrafficExtension`.

use std::collections::BTreeSet;

use proto::istio::extensions::v1alpha1::{EnvValueSource, VmConfig, WasmPlugin};
use proto::istio::r#type::v1beta1::PortSelector;

use crate::validate::Checker;

/// What both kinds say of a module.
pub(super) struct Module<'a> {
    pub(super) url: &'a str,
    pub(super) sha256: &'a str,
    pub(super) image_pull_secret: &'a str,
    pub(super) plugin_name: &'a str,
    pub(super) verification_key: &'a str,
    pub(super) vm_config: Option<&'a VmConfig>,
}

pub(super) fn check(plugin: &WasmPlugin, checker: &mut Checker) {
    checker.selection(plugin.selector.as_ref(), plugin.target_ref.as_ref(), &plugin.target_refs);
    let checked = Module {
        url: &plugin.url,
        sha256: &plugin.sha256,
        image_pull_secret: &plugin.image_pull_secret,
        plugin_name: &plugin.plugin_name,
        verification_key: &plugin.verification_key,
        vm_config: plugin.vm_config.as_ref(),
    };
    module("", &checked, checker);
    ports(plugin.r#match.iter().map(|selector| selector.ports.as_slice()), checker);
}

pub(super) fn module(at: &str, module: &Module<'_>, checker: &mut Checker) {
    url(&format!("{at}url"), module.url, checker);
    let is_sum = module.sha256.len() == 64
        && module.sha256.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    if !module.sha256.is_empty() && !is_sum {
        let message =
            format!("{:?} is not a checksum: expected 64 hexadecimal digits in lower case", module.sha256);
        checker.error(format!("{at}sha256"), message);
    }
    for (name, text, limit) in
        [("imagePullSecret", module.image_pull_secret, 253), ("pluginName", module.plugin_name, 256)]
    {
        if text.len() > limit {
            let message = format!("has {} characters: at most {limit} are allowed", text.len());
            checker.error(format!("{at}{name}"), message);
        }
    }
    if !module.verification_key.is_empty() {
        checker.warn(format!("{at}verificationKey"), "has no effect: give sha256 to be sure of a module");
    }
    let mut names = BTreeSet::new();
    for (index, variable) in module.vm_config.iter().flat_map(|config| &config.env).enumerate() {
        let at = format!("{at}vmConfig.env[{index}]");
        if variable.name.is_empty() {
            checker.error(format!("{at}.name"), "is missing: a variable needs a name");
        } else if variable.name.len() > 256 {
            checker.error(format!("{at}.name"), "is longer than 256 characters");
        } else if !names.insert(&variable.name) {
            checker.error(format!("{at}.name"), format!("{:?} stands twice", variable.name));
        }
        if variable.value_from() == EnvValueSource::Host && !variable.value.is_empty() {
            checker.error(
                format!("{at}.value"),
                "must not be set with valueFrom HOST: Envoy's own value is used",
            );
        }
    }
}

fn url(field: &str, url: &str, checker: &mut Checker) {
    if url.is_empty() {
        return checker.error(field, "is missing: say where the module is");
    }
    let expected =
        "expected a URL such as oci://registry/image:tag, https://host/file.wasm or file:///file.wasm";
    let has_space = url.chars().any(|c| c.is_whitespace() || c.is_control());
    let (scheme, rest) = scheme(url).unwrap_or(("", url));
    if !["", "file", "http", "https", "oci"].contains(&scheme.to_ascii_lowercase().as_str()) {
        let hint = if rest.starts_with(|c: char| c.is_ascii_digit()) {
            format!("if it is a host with a port, write oci://{url}")
        } else {
            expected.to_owned()
        };
        return checker.error(field, format!("{url:?} has the unknown scheme {scheme:?}: {hint}"));
    }
    let after_host = match rest.strip_prefix("//") {
        Some(rest) => rest,
        // Without a scheme it begins with a host.
        None if scheme.is_empty() && !rest.starts_with('/') => rest,
        None => "",
    };
    let host = after_host.split(['/', '?']).next().unwrap_or_default();
    if has_space
        || ["", "//"].contains(&rest)
        || rest.starts_with(':')
        || !is_host(host)
        || !has_good_escapes(rest)
    {
        checker.error(field, format!("{url:?} is not the place of a module: {expected}"));
    }
}

/// What stands before the first colon and can be a scheme, and what follows.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    is_scheme.then_some((scheme, rest))
}

/// Whether it can be `USER@HOST:PORT`, of which only the host must be there.
fn is_host(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    let is_user = |c: u8| c.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%".contains(&c);
    let is_host =
        |c: u8| c.is_ascii_alphanumeric() || !c.is_ascii() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&c);
    let port = if host.ends_with(']') { None } else { host.rsplit_once(':').map(|(_, port)| port) };
    user.bytes().all(is_user)
        && host.bytes().all(is_host)
        && port.is_none_or(|port| port.bytes().all(|c| c.is_ascii_digit()))
}

/// Whether every `%` stands before two hexadecimal digits.
fn has_good_escapes(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    path.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

pub(super) fn ports<'a>(selectors: impl Iterator<Item = &'a [PortSelector]>, checker: &mut Checker) {
    for (index, ports) in selectors.enumerate() {
        for (port_index, port) in ports.iter().enumerate() {
            checker.port(&format!("match[{index}].ports[{port_index}].number"), port.number);
        }
    }
}
