//! The headers over which two proxies tell each other who they are.
//!
//! A proxy writes them on requests that it sends into the mesh, and on the answers to
//! such requests. It believes them only when the other side has shown a certificate, and
//! passes them on to nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::attributes::{Attribute, Attributes, Headers, Metadata, Stream};
use crate::cache::Cache;
use crate::node::Node;
use crate::peer::Workload;
use crate::settings::Direction;

/// The header with the metadata.
pub const HEADER: &str = "x-envoy-peer-metadata";
/// The header with the node's id.
pub const HEADER_ID: &str = "x-envoy-peer-metadata-id";

/// Both.
const NAMES: [&str; 2] = [HEADER_ID, HEADER];

/// A peer that has told who it is.
#[derive(Debug)]
pub struct Known {
    /// Of this process; equal numbers are equal peers.
    pub number: u64,
    /// What it told.
    pub workload: Workload,
}

/// The exchange of one filter configuration.
#[derive(Debug)]
pub struct Exchange {
    direction: Direction,
    id: String,
    value: String,
    /// By the header's bytes, so that nobody can name another under a known id.
    peers: Cache<Option<Arc<Known>>>,
}

/// What one stream remembers of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    id: bool,
    value: bool,
}

impl Exchange {
    /// As the node `own`.
    #[must_use]
    pub fn new(direction: Direction, own: &Node) -> Self {
        let id = match direction {
            Direction::Gateway => own.id.replacen("sidecar~", "router~", 1),
            _ => own.id.clone(),
        };
        Self { direction, id, value: Workload::of(own).encode(), peers: Cache::default() }
    }

    /// At the request's headers. Answers who sent it, as far as it is believed.
    pub fn request(&self, stream: &mut impl Stream) -> (Option<Arc<Known>>, Asked) {
        if self.direction == Direction::Inbound {
            let trusted = is_there(stream.text(Attribute::ConnectionUriSanPeerCertificate));
            let (peer, asked) = self.take(stream, Headers::Request, trusted);
            return if trusted { (peer, asked) } else { (None, Asked::default()) };
        }
        let tells = !is_external(stream);
        self.write(stream, Headers::Request, Asked { id: tells, value: tells });
        (None, Asked::default())
    }

    /// At the response's headers. Answers who sent it, as far as it is believed.
    pub fn response(&self, stream: &mut impl Stream, asked: Asked) -> Option<Arc<Known>> {
        if self.direction == Direction::Inbound {
            self.write(stream, Headers::Response, asked);
            return None;
        }
        let trusted = is_there(stream.text(Attribute::UpstreamUriSanPeerCertificate));
        self.take(stream, Headers::Response, trusted).0
    }

    /// Removes the headers, and reads them where they are to be believed.
    fn take(&self, stream: &mut impl Stream, map: Headers, trusted: bool) -> (Option<Arc<Known>>, Asked) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let [id, header] = stream.headers(map, NAMES);
        let asked = Asked { id: id.is_some(), value: header.is_some() };
        let peer = header.filter(|_| trusted).and_then(|header| {
            let read = || {
                let workload = Workload::decode(header)?;
                Some(Arc::new(Known { number: NUMBER.fetch_add(1, Ordering::Relaxed), workload }))
            };
            // What is too long is not even kept as unreadable.
            if header.len() > crate::peer::LONGEST {
                None
            } else {
                (*self.peers.get(header, 0, read)).clone()
            }
        });
        for (name, is_there) in NAMES.into_iter().zip([asked.id, asked.value]) {
            if is_there {
                stream.remove_header(map, name);
            }
        }
        (peer, asked)
    }

    /// Writes the headers that are `asked` for. What the application says of itself goes
    /// to nobody.
    fn write(&self, stream: &mut impl Stream, map: Headers, asked: Asked) {
        let there = stream.headers(map, NAMES).map(|header| header.is_some());
        let values = [(asked.id, &self.id), (asked.value, &self.value)];
        for ((name, is_there), (is_asked, value)) in NAMES.into_iter().zip(there).zip(values) {
            match (is_asked, is_there) {
                (true, false) => stream.add_header(map, name, value.as_bytes()),
                (true, true) => stream.set_header(map, name, value.as_bytes()),
                (false, true) => stream.remove_header(map, name),
                (false, false) => {}
            }
        }
    }
}

fn is_there(text: Option<&str>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

/// Whether a request leaves the mesh, by what istiod writes at the cluster.
fn is_external(stream: &impl Attributes) -> bool {
    let cluster = stream.text(Attribute::XdsClusterName).unwrap_or_default();
    let said = |key| stream.metadata_truth(Metadata::Cluster, "istio", key).unwrap_or_default();
    matches!(cluster, "PassthroughCluster" | "BlackHoleCluster") || said("external") || said("disable_mx")
}

#[cfg(test)]
mod tests;
