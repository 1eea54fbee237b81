//! Workloads that register themselves: what a WorkloadGroup and a proxy that is
//! of it make of each other, the WorkloadEntry of that proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::{annotation, label};
use proto::envoy::config::core::v3::Locality;
use proto::istio::networking::v1alpha3::{WorkloadEntry, WorkloadGroup};
use serde_json::{Value, json};

use crate::Proxy;

/// Key of the node's metadata for the WorkloadGroup that the workload is of.
const GROUP: &str = "AUTO_REGISTER_GROUP";
/// Key of the node's metadata for the WorkloadEntry of the workload, which its user wrote.
const ENTRY: &str = "WORKLOAD_ENTRY";
/// Longest name of an object.
const MAX_NAME: usize = 253;
/// API of entries and groups.
pub const API_VERSION: &str = "networking.istio.io/v1";

/// The WorkloadGroup that the proxy's workload says it is of.
#[must_use]
pub fn group(proxy: &Proxy) -> Option<&str> {
    Some(proxy.says(GROUP)).filter(|name| !name.is_empty())
}

/// The WorkloadEntry that the proxy's workload says it has, which was there before.
#[must_use]
pub fn entry(proxy: &Proxy) -> Option<&str> {
    Some(proxy.says(ENTRY)).filter(|name| !name.is_empty())
}

/// Name of the entry that is made for a proxy of a group: the group's, the
/// proxy's address and its network. Of a name that is too long, the end counts.
#[must_use]
pub fn name(group: &str, proxy: &Proxy) -> String {
    let address = address(proxy).replace(':', "-");
    let network = Some(proxy.network.as_str()).filter(|network| !network.is_empty());
    let parts: Vec<&str> = [Some(group), Some(address.as_str()), network].into_iter().flatten().collect();
    let name = parts.join("-");
    let mut start = name.len().saturating_sub(MAX_NAME);
    while !name.is_char_boundary(start) {
        start += 1;
    }
    name[start..].to_owned()
}

/// Where the workload is reached: the first address that its agent knows of.
fn address(proxy: &Proxy) -> String {
    let listed: Vec<&str> = proxy.says("INSTANCE_IPS").split(',').map(str::trim).collect();
    match listed.first() {
        Some(first) if listed.iter().all(|ip| ip.parse::<IpAddr>().is_ok()) => (*first).to_owned(),
        _ => proxy.id.ip.to_string(),
    }
}

/// An entry that is made for a proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the group that it is of.
    pub group: String,
    /// Annotations of the object.
    pub annotations: BTreeMap<String, String>,
    /// What it says; its labels are the object's, too.
    pub spec: WorkloadEntry,
}

impl Registered {
    /// The entry of a proxy that is of a group: what the group's template says, with
    /// what is the workload's own. What the workload says of itself wins over the
    /// group's metadata, and that over the template.
    #[must_use]
    pub fn new(group: &str, template: &WorkloadGroup, proxy: &Proxy) -> Self {
        let mut spec = template.template.clone().unwrap_or_default();
        spec.address = address(proxy);
        let metadata = template.metadata.clone().unwrap_or_default();
        spec.labels.extend(metadata.labels);
        spec.labels.extend(proxy.labels.clone());
        if !proxy.labels.is_empty() {
            // Its value may have a `/`, which labels cannot; the locality says it.
            spec.labels.remove(label::LOCALITY);
        }
        if !proxy.network.is_empty() {
            spec.network.clone_from(&proxy.network);
        }
        let place = place(&proxy.locality);
        if !place.is_empty() {
            spec.locality = place;
        }
        let mut annotations = BTreeMap::from([(annotation::AUTO_REGISTRATION_GROUP.into(), group.into())]);
        annotations.extend(metadata.annotations);
        if proxy.config.as_ref().is_some_and(|config| config.readiness_probe.is_some()) {
            annotations.insert(annotation::HEALTH_CHECKS.into(), "true".into());
        }
        if proxy.has_module() {
            let name = annotation::PEER_METADATA.to_owned();
            annotations.entry(name).or_insert_with(|| annotation::PEER_METADATA_SHORT.to_owned());
        }
        Self {
            namespace: proxy.namespace.clone(),
            name: name(group, proxy),
            group: group.to_owned(),
            annotations,
            spec,
        }
    }

    /// The object as an API server takes it, but for the group's uid.
    ///
    /// # Errors
    /// When what it says cannot be written as JSON.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        Ok(json!({
            "apiVersion": API_VERSION,
            "kind": "WorkloadEntry",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.spec.labels,
                "annotations": self.annotations,
                "ownerReferences": [{
                    "apiVersion": API_VERSION, "kind": "WorkloadGroup", "name": self.group, "controller": true,
                }],
            },
            "spec": serde_json::to_value(&self.spec)?,
        }))
    }
}

/// `REGION/ZONE/SUBZONE` as far as it is known, from the left.
fn place(locality: &Locality) -> String {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    let known: Vec<&str> = parts
        .iter()
        .enumerate()
        .take_while(|(index, part)| *index == 0 || !part.is_empty())
        .map(|(_, part)| part.as_str())
        .collect();
    let place = known.join("/");
    if place.chars().all(|letter| letter == '/') { String::new() } else { place }
}

#[cfg(test)]
mod tests;
