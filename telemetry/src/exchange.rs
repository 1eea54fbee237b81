//! The headers over which two proxies tell each other who they are.
//!
//! A proxy writes them on requests that it sends into the mesh, and on the answers to
//! such requests. It believes them only when the other side has shown a certificate, and
//! passes them on to nobody.
//!
//! A client that knows its servers from their endpoints sends its metadata without its id,
//! and this module's servers then answer neither: that saves half of the exchange. Istio's
//! clients always send both, and its servers answer what was sent.

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

/// Where istiod says, in a cluster's metadata `istio`, that each endpoint tells all of its workload.
const NAMED: &str = "named_endpoints";

/// Both headers.
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
    /// Whether the peer is asked even where its endpoint tells: that does not tell all.
    always_asks: bool,
    id: String,
    value: String,
    /// By the header's bytes, so that nobody can name another under a known id.
    peers: Cache<Option<Arc<Known>>>,
}

/// Which of the headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Which {
    id: bool,
    value: bool,
}

impl Which {
    const NONE: Self = Self { id: false, value: false };
    const BOTH: Self = Self { id: true, value: true };
    const VALUE: Self = Self { id: false, value: true };
}

impl Exchange {
    /// As the node `own`; `always_asks` where something is read of peers that only they tell.
    #[must_use]
    pub fn new(direction: Direction, own: &Node, always_asks: bool) -> Self {
        let id = match direction {
            Direction::Gateway => own.id.replacen("sidecar~", "router~", 1),
            _ => own.id.clone(),
        };
        Self { direction, always_asks, id, value: Workload::of(own).encode(), peers: Cache::default() }
    }

    /// At the request's headers. Answers who sent it, as far as it is believed, and what it
    /// is to be told.
    pub fn request(&self, stream: &mut impl Stream) -> (Option<Arc<Known>>, Which) {
        if self.direction == Direction::Inbound {
            let (peer, sent) = self.take(stream, Headers::Request);
            let is_asked = sent.id && is_trusted(stream, Headers::Request);
            return (peer, if is_asked { sent } else { Which::NONE });
        }
        self.write(stream, Headers::Request, self.tells(stream));
        (None, Which::NONE)
    }

    /// At the response's headers. Answers who sent it, as far as it is believed.
    pub fn response(&self, stream: &mut impl Stream, asked: Which) -> Option<Arc<Known>> {
        if self.direction != Direction::Inbound {
            return self.take(stream, Headers::Response).0;
        }
        self.write(stream, Headers::Response, asked);
        None
    }

    /// What the server of a request is told, by what istiod writes at the cluster.
    fn tells(&self, stream: &impl Attributes) -> Which {
        let said = |key| stream.metadata_truth(Metadata::Cluster, "istio", key).unwrap_or_default();
        if !self.always_asks && said(NAMED) {
            return Which::VALUE;
        }
        let cluster = stream.text(Attribute::XdsClusterName).unwrap_or_default();
        let is_special = matches!(cluster, "PassthroughCluster" | "BlackHoleCluster");
        if is_special || said("external") || said("disable_mx") { Which::NONE } else { Which::BOTH }
    }

    /// Removes the headers, and reads them where they are to be believed.
    fn take(&self, stream: &mut impl Stream, map: Headers) -> (Option<Arc<Known>>, Which) {
        let [id, header] = stream.headers(map, NAMES);
        let sent = Which { id: id.is_some(), value: header.is_some() };
        let header = header.filter(|_| is_trusted(stream, map));
        let peer = header.and_then(|header| self.peer(header));
        for (name, is_there) in NAMES.into_iter().zip([sent.id, sent.value]) {
            if is_there {
                stream.remove_header(map, name);
            }
        }
        (peer, sent)
    }

    fn peer(&self, header: &[u8]) -> Option<Arc<Known>> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        // What is too long is not even kept as unreadable.
        if header.len() > crate::peer::LONGEST {
            return None;
        }
        let read = || {
            let workload = Workload::decode(header)?;
            Some(Arc::new(Known { number: NUMBER.fetch_add(1, Ordering::Relaxed), workload }))
        };
        (*self.peers.get(header, 0, read)).clone()
    }

    /// Writes the headers that are `wanted`. What the application says of itself goes to
    /// nobody.
    fn write(&self, stream: &mut impl Stream, map: Headers, wanted: Which) {
        let there = stream.headers(map, NAMES).map(|header| header.is_some());
        let values = [(wanted.id, &self.id), (wanted.value, &self.value)];
        for ((name, is_there), (is_wanted, value)) in NAMES.into_iter().zip(there).zip(values) {
            match (is_wanted, is_there) {
                (true, false) => stream.add_header(map, name, value.as_bytes()),
                (true, true) => stream.set_header(map, name, value.as_bytes()),
                (false, true) => stream.remove_header(map, name),
                (false, false) => {}
            }
        }
    }
}

/// Whether who sent these headers has shown a certificate.
fn is_trusted(stream: &impl Attributes, map: Headers) -> bool {
    let certificate = match map {
        Headers::Request | Headers::RequestTrailers => Attribute::ConnectionUriSanPeerCertificate,
        Headers::Response | Headers::ResponseTrailers => Attribute::UpstreamUriSanPeerCertificate,
    };
    stream.text(certificate).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
