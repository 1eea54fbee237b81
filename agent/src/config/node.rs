//! What Envoy, and through it istiod, is told about the proxy.

pub mod metadata;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use names::{NodeId, NodeType, label};
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::mesh::v1alpha1::proxy_config::{ClusterName, TracingServiceName};
use serde_json::{Map, Value, json};

/// Service cluster that stands for "not told".
const UNNAMED: &str = "istio-proxy";
/// Labels that name the application, the first that is there counts.
const APP_LABELS: [&str; 3] = ["app", "app.kubernetes.io/name", label::CANONICAL_NAME];
/// Labels that name the canonical service, the first that is there counts.
const SERVICE_LABELS: [&str; 3] = [label::CANONICAL_NAME, "app.kubernetes.io/name", "app"];
/// Labels that tell the locality, the first that is there counts.
const LOCALITY_LABELS: [&str; 2] = ["topology.istio.io/locality", label::LOCALITY];

/// The node of the bootstrap.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its service cluster.
    pub cluster: String,
    /// Region, zone and sub-zone, as far as known.
    pub locality: Vec<String>,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// All addresses, the most important first.
    pub ips: Vec<IpAddr>,
    /// Address families of Envoy's own listeners.
    pub family: Family,
}

impl Node {
    /// Kind of proxy.
    #[must_use]
    pub fn node_type(&self) -> NodeType {
        self.id.node_type
    }

    /// The node as JSON of Envoy's API.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "cluster": self.cluster,
            "locality": locality_json(&self.locality),
            "metadata": self.metadata,
        })
    }
}

/// Region, zone and sub-zone as JSON of Envoy's API, without what is empty.
#[must_use]
pub fn locality_json(parts: &[String]) -> Map<String, Value> {
    let named = ["region", "zone", "sub_zone"].into_iter().zip(parts);
    named
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), json!(value)))
        .collect()
}

/// Address families of what Envoy listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    V4AndV6,
    /// Both, IPv6 first.
    V6AndV4,
}

impl Family {
    /// Of a pod with these addresses. A pod with both is one of IPv4 unless
    /// `dual` says that both count; then the first address leads.
    #[must_use]
    pub fn of(ips: &[IpAddr], dual: bool) -> Self {
        let first_is_v4 = ips.first().is_none_or(IpAddr::is_ipv4);
        if ips.iter().all(IpAddr::is_ipv4) {
            Self::V4
        } else if ips.iter().all(IpAddr::is_ipv6) {
            Self::V6
        } else if !dual {
            Self::V4
        } else if first_is_v4 {
            Self::V4AndV6
        } else {
            Self::V6AndV4
        }
    }

    /// This machine, and a second address of it when there are both families.
    #[must_use]
    pub fn localhost(self) -> (IpAddr, Option<IpAddr>) {
        self.pair(Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    }

    /// Every address, and those of the other family when there are both.
    #[must_use]
    pub fn wildcard(self) -> (IpAddr, Option<IpAddr>) {
        self.pair(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    }

    fn pair(self, v4: Ipv4Addr, v6: Ipv6Addr) -> (IpAddr, Option<IpAddr>) {
        match self {
            Self::V4 => (v4.into(), None),
            Self::V6 => (v6.into(), None),
            Self::V4AndV6 => (v4.into(), Some(v6.into())),
            Self::V6AndV4 => (v6.into(), Some(v4.into())),
        }
    }

    /// Envoy's word for the addresses that names are looked up for.
    #[must_use]
    pub fn dns_lookup(self) -> &'static str {
        match self {
            Self::V4 => "V4_ONLY",
            Self::V6 => "V6_ONLY",
            Self::V4AndV6 | Self::V6AndV4 => "ALL",
        }
    }
}

/// The locality label, with `/` between its parts, which labels cannot have.
#[must_use]
pub fn locality_label(labels: &BTreeMap<String, String>) -> Option<String> {
    let label = first(labels, &LOCALITY_LABELS).filter(|label| !label.is_empty())?;
    Some(if label.contains('/') { label.to_owned() } else { label.replace('.', "/") })
}

/// Region, zone and sub-zone of `region/zone/sub-zone`.
#[must_use]
pub fn locality(label: Option<&str>) -> Vec<String> {
    label.map(|label| label.splitn(3, '/').map(str::to_owned).collect()).unwrap_or_default()
}

/// Name that traces and statistics know the workload by.
#[must_use]
pub fn service_cluster(
    proxy: &ProxyConfig,
    labels: &BTreeMap<String, String>,
    workload: &str,
    namespace: &str,
) -> String {
    let canonical = || {
        let workload = if workload.is_empty() { UNNAMED } else { workload };
        first(labels, &SERVICE_LABELS).unwrap_or(workload)
    };
    let told = match &proxy.cluster_name {
        Some(ClusterName::ServiceCluster(name)) => name.as_str(),
        Some(ClusterName::TracingServiceName(rule)) => match TracingServiceName::try_from(*rule) {
            Ok(TracingServiceName::CanonicalNameOnly) => canonical(),
            Ok(TracingServiceName::CanonicalNameAndNamespace) if !namespace.is_empty() => {
                return format!("{}.{namespace}", canonical());
            }
            Ok(TracingServiceName::CanonicalNameAndNamespace) => canonical(),
            Ok(TracingServiceName::AppLabelAndNamespace) | Err(_) => UNNAMED,
        },
        None => UNNAMED,
    };
    if !told.is_empty() && told != UNNAMED {
        return told.to_owned();
    }
    let workload = if workload.is_empty() { UNNAMED } else { workload };
    let name = first(labels, &APP_LABELS).unwrap_or(workload);
    if namespace.is_empty() { name.to_owned() } else { format!("{name}.{namespace}") }
}

fn first<'a>(labels: &'a BTreeMap<String, String>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| labels.get(*name)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn a_locality_label_has_up_to_three_parts() {
        let of = |label: &str| locality(locality_label(&labels(&[(label::LOCALITY, label)])).as_deref());
        assert_eq!(of("r.z.s"), ["r", "z", "s"]);
        assert_eq!(of("r/z.1"), ["r", "z.1"]);
        assert!(of("").is_empty());
        assert!(locality(None).is_empty());
        let both = labels(&[(label::LOCALITY, "a"), ("topology.istio.io/locality", "b.c")]);
        assert_eq!(locality_label(&both).unwrap(), "b/c");
    }

    #[test]
    fn the_service_cluster_follows_the_configuration_and_the_labels() {
        let of = |name: Option<ClusterName>, pairs: &[(&str, &str)], workload: &str| {
            let proxy = ProxyConfig { cluster_name: name, ..ProxyConfig::default() };
            service_cluster(&proxy, &labels(pairs), workload, "ns")
        };
        let told = |name: &str| Some(ClusterName::ServiceCluster(name.into()));
        let rule = |rule: TracingServiceName| Some(ClusterName::TracingServiceName(rule.into()));
        let all = [("app", "a"), ("app.kubernetes.io/name", "k"), ("service.istio.io/canonical-name", "c")];
        assert_eq!(of(told("mine"), &all, "w"), "mine");
        assert_eq!(of(told(UNNAMED), &all, "w"), "a.ns");
        assert_eq!(of(told(""), &all[1..], "w"), "k.ns");
        assert_eq!(of(None, &[], "w"), "w.ns");
        assert_eq!(of(None, &[], ""), "istio-proxy.ns");
        assert_eq!(of(rule(TracingServiceName::CanonicalNameOnly), &all, "w"), "c");
        assert_eq!(of(rule(TracingServiceName::CanonicalNameOnly), &[], "w"), "w");
        assert_eq!(of(rule(TracingServiceName::CanonicalNameAndNamespace), &all[..1], "w"), "a.ns");
        assert_eq!(of(rule(TracingServiceName::AppLabelAndNamespace), &all, "w"), "a.ns");
    }

    #[test]
    fn both_families_count_only_when_asked() {
        let ips = |list: &str| list.split(' ').map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(Family::of(&ips("10.0.0.1"), true), Family::V4);
        assert_eq!(Family::of(&ips("fd00::1"), true), Family::V6);
        assert_eq!(Family::of(&ips("fd00::1 10.0.0.1"), false), Family::V4);
        assert_eq!(Family::of(&ips("10.0.0.1 fd00::1"), true), Family::V4AndV6);
        assert_eq!(Family::of(&ips("fd00::1 10.0.0.1"), true), Family::V6AndV4);
    }
}
