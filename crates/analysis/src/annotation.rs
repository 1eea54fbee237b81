//! The annotations of Istio: where they belong and what they may say.

use std::net::IpAddr;

/// An annotation that exists.
#[derive(Debug)]
pub(crate) struct Known {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether its feature may change or go.
    pub(crate) is_alpha: bool,
    /// Whether it is on its way out.
    pub(crate) is_deprecated: bool,
    /// Kinds that it belongs to; `Any` for all.
    pub(crate) resources: &'static [&'static str],
}

const fn known(
    name: &'static str,
    is_alpha: bool,
    is_deprecated: bool,
    resources: &'static [&'static str],
) -> Known {
    Known { name, is_alpha, is_deprecated, resources }
}

/// All, by name.
const KNOWN: &[Known] = &[
    known("alpha.istio.io/canonical-serviceaccounts", true, true, &["Service"]),
    known("alpha.istio.io/kubernetes-serviceaccounts", true, true, &["Service"]),
    known("ambient.istio.io/bypass-inbound-capture", true, false, &["Pod"]),
    known("ambient.istio.io/dns-capture", true, false, &["Pod"]),
    known("ambient.istio.io/redirection", false, false, &["Pod"]),
    known("ambient.istio.io/waypoint-inbound-binding", true, false, &["GatewayClass", "Gateway"]),
    known("galley.istio.io/analyze-suppress", true, false, &["Any"]),
    known("gateway.istio.io/controller-version", true, false, &["Any"]),
    known("gateway.istio.io/name-override", true, false, &["Gateway"]),
    known("gateway.istio.io/service-account", true, false, &["Gateway"]),
    known("inject.istio.io/templates", true, false, &["Pod"]),
    known("istio.io/autoRegistrationGroup", true, false, &["WorkloadEntry"]),
    known("istio.io/connectedAt", true, false, &["WorkloadEntry"]),
    known("istio.io/disconnectedAt", true, false, &["WorkloadEntry"]),
    known("istio.io/dry-run", true, false, &["AuthorizationPolicy"]),
    known("istio.io/reroute-virtual-interfaces", true, false, &["Pod"]),
    known("istio.io/rev", true, false, &["Pod"]),
    known("istio.io/use-waypoint-canary-weight", true, false, &["Service", "ServiceEntry", "Namespace"]),
    known("istio.io/workloadController", true, false, &["WorkloadEntry"]),
    known("kubernetes.io/ingress.class", false, false, &["Ingress"]),
    known("networking.istio.io/exportTo", true, false, &["Service"]),
    known("networking.istio.io/service-type", true, false, &["Gateway"]),
    known("networking.istio.io/traffic-distribution", true, false, &["Namespace", "Service", "ServiceEntry"]),
    known("prometheus.istio.io/merge-metrics", true, false, &["Pod"]),
    known("proxy.istio.io/config", false, false, &["Pod"]),
    known("proxy.istio.io/overrides", true, false, &["Pod"]),
    known("readiness.status.sidecar.istio.io/applicationPorts", true, false, &["Pod"]),
    known("readiness.status.sidecar.istio.io/failureThreshold", true, false, &["Pod"]),
    known("readiness.status.sidecar.istio.io/initialDelaySeconds", true, false, &["Pod"]),
    known("readiness.status.sidecar.istio.io/periodSeconds", true, false, &["Pod"]),
    known("sidecar.istio.io/agentLogLevel", true, false, &["Pod"]),
    known("sidecar.istio.io/bootstrapOverride", true, false, &["Pod"]),
    known("sidecar.istio.io/componentLogLevel", true, false, &["Pod"]),
    known("sidecar.istio.io/discoveryAddress", true, true, &["Pod"]),
    known("sidecar.istio.io/extraStatTags", true, true, &["Pod"]),
    known("sidecar.istio.io/inject", false, true, &["Pod"]),
    known("sidecar.istio.io/interceptionMode", true, false, &["Pod"]),
    known("sidecar.istio.io/logLevel", true, false, &["Pod"]),
    known("sidecar.istio.io/nativeSidecar", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyCPU", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyCPULimit", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyImage", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyImageType", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyMemory", true, false, &["Pod"]),
    known("sidecar.istio.io/proxyMemoryLimit", true, false, &["Pod"]),
    known("sidecar.istio.io/rewriteAppHTTPProbers", true, false, &["Pod"]),
    known("sidecar.istio.io/statsCompression", true, true, &["Pod"]),
    known("sidecar.istio.io/statsEvictionInterval", true, false, &["Pod"]),
    known("sidecar.istio.io/statsFlushInterval", true, false, &["Pod"]),
    known("sidecar.istio.io/statsHistogramBins", true, false, &["Pod"]),
    known("sidecar.istio.io/statsHistogramBuckets", true, false, &["Pod"]),
    known("sidecar.istio.io/statsInclusionPrefixes", true, true, &["Pod"]),
    known("sidecar.istio.io/statsInclusionRegexps", true, true, &["Pod"]),
    known("sidecar.istio.io/statsInclusionSuffixes", true, true, &["Pod"]),
    known("sidecar.istio.io/status", true, false, &["Pod"]),
    known("sidecar.istio.io/userVolume", true, false, &["Pod"]),
    known("sidecar.istio.io/userVolumeMount", true, false, &["Pod"]),
    known("status.sidecar.istio.io/port", true, false, &["Pod"]),
    known("topology.istio.io/controlPlaneClusters", true, false, &["Namespace"]),
    known("traffic.istio.io/nodeSelector", false, false, &["Service"]),
    known("traffic.sidecar.istio.io/excludeInboundPorts", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/excludeInterfaces", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/excludeOutboundIPRanges", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/excludeOutboundPorts", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/includeInboundPorts", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/includeOutboundIPRanges", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/includeOutboundPorts", true, false, &["Pod"]),
    known("traffic.sidecar.istio.io/kubevirtInterfaces", true, true, &["Pod"]),
];

/// Whether an annotation is of Istio, or one that it reads.
pub(crate) fn is_istio(name: &str) -> bool {
    name == "kubernetes.io/ingress.class" || name.split('/').next().is_some_and(|of| of.ends_with("istio.io"))
}

/// What is known of an annotation.
pub(crate) fn find(name: &str) -> Option<&'static Known> {
    let at = KNOWN.binary_search_by(|known| known.name.cmp(name)).ok()?;
    KNOWN.get(at)
}

/// Whether an annotation may have a value.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    match name {
        "sidecar.istio.io/interceptionMode" => {
            let is_known = ["REDIRECT", "TPROXY", "NONE"].contains(&value);
            told(is_known, || format!("interceptionMode invalid, use REDIRECT,TPROXY,NONE: {value}"))
        }
        "status.sidecar.istio.io/port" => port(value),
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => {
            told(value.parse::<u32>().is_ok(), || format!("{value:?} is not a whole number"))
        }
        "traffic.sidecar.istio.io/includeOutboundIPRanges" if value == "*" => Ok(()),
        "traffic.sidecar.istio.io/includeOutboundIPRanges" => ranges("includeIPRanges", value),
        "traffic.sidecar.istio.io/excludeOutboundIPRanges" => ranges("excludeIPRanges", value),
        "traffic.sidecar.istio.io/includeInboundPorts" if value == "*" => Ok(()),
        "traffic.sidecar.istio.io/includeInboundPorts" => ports("includeInboundPorts", value),
        "traffic.sidecar.istio.io/excludeInboundPorts" => ports("excludeInboundPorts", value),
        "traffic.sidecar.istio.io/excludeOutboundPorts" => ports("excludeOutboundPorts", value),
        "traffic.sidecar.istio.io/excludeInterfaces"
        | "traffic.sidecar.istio.io/kubevirtInterfaces"
        | "istio.io/reroute-virtual-interfaces" => interfaces(value),
        "prometheus.istio.io/merge-metrics" => {
            let words = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
            told(words.contains(&value), || format!("{value:?} is not true or false"))
        }
        "proxy.istio.io/config" => {
            let over = mesh::yaml::parse(value).map_err(|error| error.to_string())?;
            let text = serde_json::json!({ "defaultConfig": over }).to_string();
            mesh::MeshConfig::from_yaml(&text).map(drop).map_err(|error| error.to_string())
        }
        "sidecar.istio.io/proxyCPU"
        | "sidecar.istio.io/proxyMemory"
        | "sidecar.istio.io/proxyCPULimit"
        | "sidecar.istio.io/proxyMemoryLimit" => told(is_quantity(value), || {
            format!("{value:?} is not a quantity: expected one such as 100m or 128Mi")
        }),
        _ => Ok(()),
    }
}

fn told(is_right: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(why()) }
}

fn port(text: &str) -> Result<(), String> {
    let is_port = text.trim().parse::<u16>().is_ok();
    told(is_port, || format!("failed parsing port '{text}': expected a number from 0 to 65535"))
}

fn ports(what: &str, list: &str) -> Result<(), String> {
    if list.trim().is_empty() {
        return Ok(());
    }
    list.split(',').try_for_each(port).map_err(|why| format!("{what} invalid: {why}"))
}

fn ranges(what: &str, list: &str) -> Result<(), String> {
    let is_range = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let most = if address.parse::<IpAddr>().ok()?.is_ipv4() { 32 } else { 128 };
        let is_number = bits.bytes().all(|c| c.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        (is_number && bits.parse::<u8>().ok()? <= most).then_some(())
    };
    if list.is_empty() {
        return Ok(());
    }
    match list.split(',').find(|text| is_range(text).is_none()) {
        Some(text) => {
            Err(format!("{what} invalid: failed parsing cidr '{text}': expected one such as 10.0.0.0/8"))
        }
        None => Ok(()),
    }
}

fn interfaces(list: &str) -> Result<(), String> {
    if list.is_empty() {
        return Ok(());
    }
    for name in list.split(',').map(str::trim) {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        if name.is_empty() {
            return Err("empty interface name".into());
        } else if name.len() > 15 {
            return Err(format!("interface name {name:?} too long (max 15 chars)"));
        } else if !is_name {
            return Err(format!("interface name {name:?} contains invalid characters"));
        }
    }
    Ok(())
}

/// Whether it is an amount as Kubernetes writes it: `100m`, `1.5`, `128Mi`, `1e3`.
fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let is_number = number.bytes().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|power| {
        let power = power.strip_prefix(['+', '-']).unwrap_or(power);
        !power.is_empty() && power.bytes().all(|c| c.is_ascii_digit())
    });
    let known = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    is_number && (known.contains(&suffix) || is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(KNOWN.is_sorted_by_key(|known| known.name));
        assert!(find("sidecar.istio.io/inject").is_some_and(|known| known.is_deprecated));
        assert!(find("sidecar.istio.io/injec").is_none());
        assert!(is_istio("x.istio.io/y") && is_istio("kubernetes.io/ingress.class") && !is_istio("a/b"));
    }

    #[test]
    fn values_are_checked() {
        for (name, value, is_right) in [
            ("sidecar.istio.io/interceptionMode", "TPROXY", true),
            ("sidecar.istio.io/interceptionMode", "tproxy", false),
            ("status.sidecar.istio.io/port", " 15020", true),
            ("status.sidecar.istio.io/port", "70000", false),
            ("readiness.status.sidecar.istio.io/periodSeconds", "-1", false),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*", true),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8,::/0", true),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/33", false),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*", false),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "80, 443", true),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "80,,", false),
            ("traffic.sidecar.istio.io/kubevirtInterfaces", "eth0,net1", true),
            ("traffic.sidecar.istio.io/excludeInterfaces", "0eth", false),
            ("prometheus.istio.io/merge-metrics", "yes", false),
            ("proxy.istio.io/config", "concurrency: 2", true),
            ("proxy.istio.io/config", "drainDuration: soon", false),
            ("proxy.istio.io/config", "a: [", false),
            ("sidecar.istio.io/proxyCPU", "100m", true),
            ("sidecar.istio.io/proxyMemory", "128Mi", true),
            ("sidecar.istio.io/proxyMemoryLimit", "1e3", true),
            ("sidecar.istio.io/proxyCPULimit", "1.2.3", false),
            ("sidecar.istio.io/proxyCPULimit", "much", false),
            ("sidecar.istio.io/other", "much", true),
        ] {
            assert_eq!(check(name, value).is_ok(), is_right, "{name}: {value}");
        }
    }
}
