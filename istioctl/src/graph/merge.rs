//! One graph out of what many sidecars tell.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::measure::{Count, Counts, End, Reporter};
use super::{Edge, Graph, Kind, Mtls, Node};

/// A pod with a sidecar, and what that tells.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Namespace of its workload.
    pub namespace: String,
    /// The workload.
    pub workload: String,
    /// Version, as it is labeled.
    pub version: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it wants mutual TLS.
    pub mtls: Mtls,
    /// Its traffic.
    pub counts: Counts,
}

const OUTSIDE: &str = "outside";

/// The same traffic, as each reporter tells it.
#[derive(Default)]
struct Told {
    by: BTreeMap<Reporter, Count>,
}

impl Told {
    fn edge(&self, from: String, to: String, protocol: String, target: Mtls) -> Edge {
        let of = |get: fn(&Count) -> f64| self.by.values().map(get).fold(0.0, f64::max);
        // The server's sidecar knows how it was called; the client's does not tell.
        let known = self.by.values().find(|count| count.secured + count.plain > 0.0);
        let secured = match (known, target) {
            (Some(count), _) => Some(count.secured / (count.secured + count.plain)),
            // What arrives there at all is secured.
            (None, Mtls::Strict) => Some(1.0),
            (None, _) => None,
        };
        Edge {
            from,
            to,
            protocol,
            total: of(|count| count.total),
            errors: of(|count| count.errors),
            bytes: of(|count| count.bytes),
            secured,
        }
    }
}

fn workload(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

/// The mesh of some pods.
#[must_use]
pub fn graph(pods: &[Pod]) -> Graph {
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    let mut by_address = BTreeMap::new();
    for pod in pods {
        let id = workload(&pod.namespace, &pod.workload);
        by_address.extend(pod.addresses.iter().map(|address| (*address, id.clone())));
        let node = nodes.entry(id.clone()).or_insert_with(|| Node {
            id,
            name: pod.workload.clone(),
            namespace: pod.namespace.clone(),
            version: pod.version.clone(),
            mtls: pod.mtls,
            ..Node::default()
        });
        node.pods += 1;
        if node.version.is_empty() {
            node.version.clone_from(&pod.version);
        } else if !pod.version.is_empty() && !node.version.split(", ").any(|known| known == pod.version) {
            node.version = format!("{}, {}", node.version, pod.version);
        }
        // Pods that differ: what the weakest of them does is what holds.
        node.mtls = node.mtls.max(pod.mtls);
    }
    let mut all: BTreeMap<(String, String, String), Told> = BTreeMap::new();
    for (flow, count) in pods.iter().flat_map(|pod| &pod.counts).filter(|(_, count)| count.total > 0.0) {
        let mut place = |end: &End| {
            let node = node(end, &by_address);
            let id = node.id.clone();
            nodes.entry(id.clone()).or_insert(node);
            id
        };
        let (from, to) = (place(&flow.from), place(&flow.to));
        if let Some(node) = nodes.get_mut(&to).filter(|node| node.kind == Kind::Workload) {
            for service in &count.services {
                if let Err(at) = node.services.binary_search(service) {
                    node.services.insert(at, service.clone());
                }
            }
        }
        let told = all.entry((from, to, flow.protocol.clone())).or_default();
        let sum = told.by.entry(flow.reporter).or_default();
        sum.total += count.total;
        sum.errors += count.errors;
        sum.bytes += count.bytes;
        sum.secured += count.secured;
        sum.plain += count.plain;
    }
    let edges = all.into_iter().map(|((from, to, protocol), told)| {
        let target = nodes.get(&to).map_or(Mtls::Unknown, |node| node.mtls);
        told.edge(from, to, protocol, target)
    });
    let edges = edges.collect();
    let mut graph = Graph { nodes: nodes.into_values().collect(), edges, ..Graph::default() };
    graph.normalize();
    graph
}

/// The node of an end that is no pod.
fn node(end: &End, by_address: &BTreeMap<IpAddr, String>) -> Node {
    let host = |host: &str| Node {
        id: format!("host/{host}"),
        kind: Kind::Service,
        name: host.to_owned(),
        ..Node::default()
    };
    match end {
        End::Workload(namespace, name) => Node {
            id: workload(namespace, name),
            name: name.clone(),
            namespace: namespace.clone(),
            ..Node::default()
        },
        End::Host(name) => host(name),
        End::Address(address, name) => match by_address.get(address) {
            Some(id) => Node { id: id.clone(), ..Node::default() },
            None => host(name),
        },
        End::Outside => Node {
            id: OUTSIDE.into(),
            kind: Kind::Outside,
            name: "outside the mesh".into(),
            ..Node::default()
        },
    }
}
