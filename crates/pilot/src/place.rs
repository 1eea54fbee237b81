//! Where a proxy is, as load balancing sees it.

use std::collections::BTreeMap;

use names::label;

use crate::proxy::Proxy;
use crate::snapshot::endpoint::Locality;
use crate::snapshot::{Snapshot, network};

/// The locality of a proxy: what its labels say, else its pod's or its pod's
/// node's, else what the proxy says of itself.
pub(crate) fn locality(snapshot: &Snapshot, proxy: &Proxy) -> Locality {
    let pod = snapshot.pod_of(proxy);
    let labels = pod.map_or(&proxy.labels, |pod| &pod.meta.labels);
    let get = |key: &str| labels.get(key).cloned();
    let of_pod = pod.map(|pod| &pod.locality).filter(|place| **place != Locality::default());
    if let Some(place) = of_pod {
        // Parts that the node does not say may stand on the pod.
        let or =
            |own: &str, key: &str| if own.is_empty() { get(key).unwrap_or_default() } else { own.to_owned() };
        return Locality {
            region: or(&place.region, label::REGION),
            zone: or(&place.zone, label::ZONE),
            sub_zone: or(&place.sub_zone, label::SUB_ZONE),
        };
    }
    let parts = [get(label::REGION), get(label::ZONE), get(label::SUB_ZONE)];
    if parts.iter().any(Option::is_some) {
        let [region, zone, sub_zone] = parts.map(Option::unwrap_or_default);
        return Locality { region, zone, sub_zone };
    }
    let text = get(label::TOPOLOGY_LOCALITY).or_else(|| get(label::LOCALITY));
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        return Locality::of_label(&text);
    }
    Locality {
        region: proxy.locality.region.clone(),
        zone: proxy.locality.zone.clone(),
        sub_zone: proxy.locality.sub_zone.clone(),
    }
}

/// The labels of a proxy's workload with those of its place.
pub(crate) fn labels(snapshot: &Snapshot, proxy: &Proxy, locality: &Locality) -> BTreeMap<String, String> {
    let pod = snapshot.pod_of(proxy);
    let labels = pod.map_or(&proxy.labels, |pod| &pod.meta.labels);
    let of_pod = pod.and_then(|_| snapshot.networks.of(proxy.ips.first().copied(), labels));
    let network = of_pod.unwrap_or(&proxy.network);
    network::augmented(labels, locality, &proxy.cluster_id, &proxy.node_name, network)
}
