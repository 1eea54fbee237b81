//! The headers over which two proxies tell each other who they are.
//!
//! A proxy writes them on requests that it sends into the mesh, and on the answers to
//! such requests. It believes them only when the other side has shown a certificate, and
//! passes them on to nobody.
//!
//! The exchange costs more than all counting: Envoy handles each byte of a header several
//! times. So a client that knows its servers from their endpoints sends its metadata without
//! its id, and this module's servers then answer neither; and where all servers have this
//! module, the client's metadata has a form of a quarter of the bytes. Istio's clients always
//! send both headers, and its servers answer what was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::attributes::{Attribute, Attributes, Headers, Metadata, Stream};
use crate::cache::Cache;
use crate::grpc;
use crate::node::Node;
use crate::peer::Workload;
use crate::settings::Direction;

/// The header with the metadata.
pub const HEADER: &str = "x-envoy-peer-metadata";
/// The header with the node's id.
pub const HEADER_ID: &str = "x-envoy-peer-metadata-id";

/// Where istiod says, in a cluster's metadata `istio`, what is known of all its endpoints.
const PEERS: &str = "peers";
/// Each tells all of its workload.
const NAMED: &str = "named";
/// Each reads the short form, too.
const SHORT: &str = "short";

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
    /// The same for this module; as `value` where it cannot be written so.
    short: String,
    /// By the header's bytes, so that nobody can name another under a known id.
    peers: Cache<Option<Arc<Known>>>,
}

/// What the headers of a request tell.
#[derive(Debug)]
pub struct Begun {
    /// Who sent it, as far as it is believed.
    pub peer: Option<Arc<Known>>,
    /// For the response.
    pub call: Call,
    /// Whether it is of gRPC. All is looked for in one pass.
    pub is_grpc: bool,
}

/// What one stream remembers of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Whether any of the headers came with the request, or went with it. Where none did,
    /// nobody reads what a response says.
    is_told: bool,
    /// Whether the server's own sidecar takes such headers out of the response.
    is_clean: bool,
    /// What the client is to be told.
    asked: Which,
}

/// Which of the headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Which {
    id: bool,
    value: bool,
}

impl Which {
    const NONE: Self = Self { id: false, value: false };
}

/// What the headers are to be.
type Wanted<'a> = (Option<&'a str>, Option<&'a str>);

impl Exchange {
    /// As the node `own`; `always_asks` where something is read of peers that only they tell.
    #[must_use]
    pub fn new(direction: Direction, own: &Node, always_asks: bool) -> Self {
        let id = match direction {
            Direction::Gateway => own.id.replacen("sidecar~", "router~", 1),
            _ => own.id.clone(),
        };
        let workload = Workload::of(own);
        let value = workload.encode();
        let short = workload.short().unwrap_or_else(|| value.clone());
        Self { direction, always_asks, id, value, short, peers: Cache::default() }
    }

    /// At the request's headers.
    pub fn request(&self, stream: &mut impl Stream) -> Begun {
        const MAP: Headers = Headers::Request;
        let [id, header, content_type] = stream.headers(MAP, [HEADER_ID, HEADER, grpc::HEADER]);
        let is_grpc = content_type.is_some_and(grpc::is);
        let sent = Which { id: id.is_some(), value: header.is_some() };
        if self.direction != Direction::Inbound {
            let (told, is_clean) = self.tells(stream);
            let call = Call { is_told: told != (None, None), is_clean, asked: Which::NONE };
            write(stream, MAP, sent, told);
            return Begun { peer: None, call, is_grpc };
        }
        if sent == Which::NONE {
            return Begun { peer: None, call: Call::default(), is_grpc };
        }
        let is_trusted = is_trusted(stream, MAP);
        let peer = header.filter(|_| is_trusted).and_then(|header| self.peer(header));
        write(stream, MAP, sent, (None, None));
        let asked = if is_trusted && sent.id { sent } else { Which::NONE };
        Begun { peer, call: Call { is_told: true, is_clean: false, asked }, is_grpc }
    }

    /// At the response's headers. Answers who sent it, as far as it is believed.
    pub fn response(&self, stream: &mut impl Stream, call: Call) -> Option<Arc<Known>> {
        const MAP: Headers = Headers::Response;
        let Call { is_told, is_clean, asked } = call;
        if is_clean || self.direction == Direction::Inbound && !is_told {
            return None;
        }
        let [id, header] = stream.headers(MAP, [HEADER_ID, HEADER]);
        let sent = Which { id: id.is_some(), value: header.is_some() };
        if self.direction == Direction::Inbound {
            let told = (asked.id.then_some(&*self.id), asked.value.then_some(&*self.value));
            write(stream, MAP, sent, told);
            return None;
        }
        let header = header.filter(|_| is_told && is_trusted(stream, MAP));
        let peer = header.and_then(|header| self.peer(header));
        write(stream, MAP, sent, (None, None));
        peer
    }

    /// What the server of a request is told, by what istiod writes at the cluster, and whether
    /// its sidecar is one of this module: then it takes out of the response what was not asked.
    fn tells(&self, stream: &impl Attributes) -> (Wanted<'_>, bool) {
        if !self.always_asks {
            match stream.metadata(Metadata::Cluster, "istio", PEERS) {
                Some(SHORT) => return ((None, Some(&self.short)), true),
                Some(NAMED) => return ((None, Some(&self.value)), false),
                _ => {}
            }
        }
        let said = |key| stream.metadata_truth(Metadata::Cluster, "istio", key).unwrap_or_default();
        let cluster = stream.text(Attribute::XdsClusterName).unwrap_or_default();
        let is_special = matches!(cluster, "PassthroughCluster" | "BlackHoleCluster");
        if is_special || said("external") || said("disable_mx") {
            return ((None, None), false);
        }
        ((Some(&self.id), Some(&self.value)), false)
    }

    /// Whom a header names.
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
}

/// Writes the headers that are `wanted` over those that are `there`: what the other side
/// sent has been read, and what the application says of itself goes to nobody.
fn write(stream: &mut impl Stream, map: Headers, there: Which, wanted: Wanted<'_>) {
    for (name, is_there, wanted) in [(HEADER_ID, there.id, wanted.0), (HEADER, there.value, wanted.1)] {
        match (wanted, is_there) {
            (Some(value), false) => stream.add_header(map, name, value.as_bytes()),
            (Some(value), true) => stream.set_header(map, name, value.as_bytes()),
            (None, true) => stream.remove_header(map, name),
            (None, false) => {}
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
