//! The mesh as a graph: workloads, whether they want mutual TLS, and the traffic
//! between them. Everything here is a pure function: the same mesh gives the same
//! bytes.

pub mod html;
mod layout;
pub mod measure;
mod merge;
mod prometheus;
pub mod svg;
mod text;
mod way;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use merge::{Pod, graph};

/// The mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Graph {
    /// Workloads, and what they call that is none.
    pub nodes: Vec<Node>,
    /// Traffic, by its ends.
    pub edges: Vec<Edge>,
    /// For how many seconds traffic was counted; since proxies started without it.
    pub seconds: Option<f64>,
    /// What could not be learned.
    pub notes: Vec<String>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Pods of one Deployment or the like.
    #[default]
    Workload,
    /// A host whose workloads are not known.
    Service,
    /// Clients without a sidecar, whoever they are.
    Outside,
}

/// Whether a workload takes connections without mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mtls {
    /// Only with it.
    Strict,
    /// With it and without.
    Permissive,
    /// Without it.
    Disabled,
    /// It has no sidecar, or that did not say.
    #[default]
    Unknown,
}

impl Mtls {
    /// What people read.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Strict => "mutual TLS only",
            Self::Permissive => "mutual TLS or plaintext",
            Self::Disabled => "plaintext",
            Self::Unknown => "mutual TLS unknown",
        }
    }
}

/// A workload, or what stands for what is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// What edges name it by.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its namespace; empty if it has none.
    pub namespace: String,
    /// Version, as its pods are labeled.
    pub version: String,
    /// Hosts by which it is called.
    pub services: Vec<String>,
    /// How many pods of it have a sidecar.
    pub pods: usize,
    /// Whether it wants mutual TLS.
    pub mtls: Mtls,
}

/// Traffic of a protocol from one node to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edge {
    /// Whose.
    pub from: String,
    /// To whom.
    pub to: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// Requests, or connections of TCP.
    pub total: f64,
    /// How many of them failed: 5xx, or no answer at all.
    pub errors: f64,
    /// Bytes in both directions, of TCP.
    pub bytes: f64,
    /// Part of the traffic with mutual TLS, from 0 to 1; `None` if that is not known.
    pub secured: Option<f64>,
}

impl Edge {
    /// Part of the requests that failed, from 0 to 1.
    #[must_use]
    pub fn error_share(&self) -> f64 {
        if self.total > 0.0 { (self.errors / self.total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Whether all of it has mutual TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured.is_some_and(|part| part > 0.999)
    }

    /// What is counted.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.protocol == "tcp" { "connections" } else { "requests" }
    }
}

impl Graph {
    /// Puts it into its order, without edges whose ends are not there and numbers that are none.
    pub fn normalize(&mut self) {
        self.nodes.sort_by(|one, other| one.id.cmp(&other.id));
        self.nodes.dedup_by(|one, other| one.id == other.id);
        let known: BTreeMap<&str, ()> = self.nodes.iter().map(|node| (node.id.as_str(), ())).collect();
        self.edges
            .retain(|edge| known.contains_key(edge.from.as_str()) && known.contains_key(edge.to.as_str()));
        for edge in &mut self.edges {
            for value in [&mut edge.total, &mut edge.errors, &mut edge.bytes] {
                *value = if value.is_finite() { value.max(0.0) } else { 0.0 };
            }
        }
        self.edges.sort_by(|one, other| {
            (&one.from, &one.to, &one.protocol).cmp(&(&other.from, &other.to, &other.protocol))
        });
    }

    /// Index of each node.
    fn places(&self) -> BTreeMap<&str, usize> {
        self.nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect()
    }

    /// One line about all of it.
    #[must_use]
    pub fn summary(&self) -> String {
        let namespaces: std::collections::BTreeSet<&str> =
            self.nodes.iter().map(|node| node.namespace.as_str()).filter(|name| !name.is_empty()).collect();
        let workloads = self.nodes.iter().filter(|node| node.kind == Kind::Workload).count();
        let strict = self.nodes.iter().filter(|node| node.mtls == Mtls::Strict).count();
        let secured = self.edges.iter().filter(|edge| edge.is_secured()).count();
        let failing = self.edges.iter().filter(|edge| edge.errors > 0.0).count();
        let when = match self.seconds {
            Some(seconds) => format!("counted for {} s", text::number(seconds)),
            None => "counted since each proxy started".to_owned(),
        };
        format!(
            "{workloads} workloads in {} namespaces, {strict} of them with mutual TLS only; \
             {} connections between workloads, {secured} with mutual TLS, {failing} with errors; {when}.",
            namespaces.len(),
            self.edges.len()
        )
    }
}

#[cfg(test)]
mod tests;
