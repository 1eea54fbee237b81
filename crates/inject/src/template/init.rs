//! The init container that redirects traffic, or checks that the CNI plugin did.

use names::annotation;
use serde_json::{Value, json};

use super::Context;
use super::common::{Variables, resources};
use super::container::{agent_log, optional, pull_policy};
use crate::pod;

/// Ports of Envoy itself, which are never captured.
const NEVER: &str = "15090,15021";

/// Inbound ports that are not captured: the user's, and the agent's.
pub(super) fn excluded_inbound(context: &Context<'_>) -> String {
    let list = context.setting(annotation::EXCLUDE_INBOUND_PORTS, "global.proxy.excludeInboundPorts");
    let port = context.status_port();
    let port = port.trim();
    if port.is_empty() || port == "0" || list.split(',').any(|known| known == port) {
        return list;
    }
    let known = list.split(',').map(str::trim).filter(|known| !known.is_empty());
    known.chain([port]).collect::<Vec<_>>().join(",")
}

/// A list that is told only when somebody gives one.
pub(super) fn given(context: &Context<'_>, key: &str, path: &str) -> Option<String> {
    let value = context.setting(key, path);
    (context.annotation(key).is_some() || !value.is_empty()).then_some(value)
}

/// The init container of a mode that captures traffic.
pub(super) fn build(context: &Context<'_>, mode: &str) -> Value {
    let is_tproxy = mode == "TPROXY";
    let uses_cni = context.uses_cni();
    let (uid, gid) = if is_tproxy { (1337, 1337) } else { (context.uid, context.gid) };
    let privileged = context.is_on("global.proxy.privileged");
    let mut security = json!({
        "allowPrivilegeEscalation": privileged,
        "privileged": privileged,
        "capabilities": {"drop": ["ALL"]},
    });
    let more = if uses_cni {
        json!({"readOnlyRootFilesystem": true, "runAsGroup": gid, "runAsUser": uid, "runAsNonRoot": true})
    } else {
        security["capabilities"]["add"] = json!(["NET_ADMIN", "NET_RAW"]);
        json!({"readOnlyRootFilesystem": false, "runAsGroup": 0, "runAsUser": 0, "runAsNonRoot": false})
    };
    for (field, value) in more.as_object().into_iter().flatten() {
        security[field] = value.clone();
    }
    let profile = context.settings.values.given("global.proxy.seccompProfile").cloned();
    optional(&mut security, "seccompProfile", profile);
    let mut container = json!({
        "name": if uses_cni { pod::VALIDATION } else { pod::INIT },
        "image": context.init_image(),
        "args": args(context, mode, uid),
        "securityContext": security,
    });
    optional(&mut container, "imagePullPolicy", pull_policy(context));
    optional(&mut container, "resources", resources(context));
    if !context.proxy.proxy_metadata.is_empty() {
        let mut variables = Variables::default();
        variables.metadata(context);
        container["env"] = variables.build();
    }
    container
}

fn args(context: &Context<'_>, mode: &str, uid: i64) -> Vec<String> {
    let port = |port: i32, default: u16| if port == 0 { default.to_string() } else { port.to_string() };
    let mesh = context.mesh;
    let excluded = excluded_inbound(context);
    let excluded = if excluded.is_empty() { NEVER.to_owned() } else { format!("{NEVER},{excluded}") };
    let mut args = vec!["istio-iptables".to_owned()];
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("-p", port(mesh.proxy_listen_port, names::port::OUTBOUND));
    flag("-z", port(mesh.proxy_inbound_listen_port, names::port::INBOUND));
    flag("-u", uid.to_string());
    flag("-m", mode.to_owned());
    flag("-i", context.setting(annotation::INCLUDE_OUTBOUND_IP_RANGES, "global.proxy.includeIPRanges"));
    flag("-x", context.setting(annotation::EXCLUDE_OUTBOUND_IP_RANGES, "global.proxy.excludeIPRanges"));
    flag("-b", context.setting(annotation::INCLUDE_INBOUND_PORTS, "global.proxy.includeInboundPorts"));
    flag("-d", excluded);
    for (name, key, path) in [
        ("-q", annotation::INCLUDE_OUTBOUND_PORTS, "global.proxy.includeOutboundPorts"),
        ("-o", annotation::EXCLUDE_OUTBOUND_PORTS, "global.proxy.excludeOutboundPorts"),
    ] {
        if let Some(value) = given(context, key, path) {
            flag(name, value);
        }
    }
    let virtual_interfaces = context
        .annotation(annotation::REROUTE_VIRTUAL_INTERFACES)
        .or_else(|| context.annotation(annotation::KUBEVIRT_INTERFACES));
    if let Some(value) = virtual_interfaces {
        flag("-k", value.to_owned());
    }
    if let Some(value) = context.annotation(annotation::EXCLUDE_INTERFACES) {
        flag("-c", value.to_owned());
    }
    args.push(agent_log(context));
    if context.is_on("global.logAsJson") {
        args.push("--log_as_json".to_owned());
    }
    if context.uses_cni() {
        args.extend(["--run-validation".to_owned(), "--skip-rule-apply".to_owned()]);
    } else if context.is_on("global.proxy_init.forceApplyIptables") {
        args.push("--force-apply".to_owned());
    }
    if context.is_on("global.nativeNftables") {
        args.push("--native-nftables".to_owned());
    }
    args
}
