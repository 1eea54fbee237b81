//! A response as bytes, without a copy of the whole.
//!
//! Resources are shared by all clients; encoding a response into one buffer
//! would give each client a copy of its own, as large as its configuration.
//! [`Pieces`] gives the same bytes in pieces, made when the transport takes
//! them: large resources as they are, the rest gathered, since a piece for each
//! small resource would cost more than the copy.

use std::sync::Arc;
use std::vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use names::TypeUrl;
use prost::{encode_length_delimiter, length_delimiter_len};

use crate::{Answer, Resource, Variant};

/// Bytes that are gathered to a piece: what HTTP/2 sends in one frame.
pub const PIECE: usize = 16 * 1024;
/// A resource of that many bytes is a piece of its own, and not copied.
pub const LARGE: usize = 4 * 1024;

/// Fields of both responses, in `envoy/service/discovery/v3/discovery.proto`.
const VERSION: u8 = 1;
const RESOURCES: u8 = 2;
const TYPE_URL: u8 = 4;
const NONCE: u8 = 5;
/// Field of `DeltaDiscoveryResponse`.
const REMOVED: u8 = 6;
/// Fields of `Resource`.
const RESOURCE_VERSION: u8 = 1;
const RESOURCE_ANY: u8 = 2;
const RESOURCE_NAME: u8 = 3;
/// Fields of `google.protobuf.Any`.
const ANY_TYPE: u8 = 1;
const ANY_VALUE: u8 = 2;

/// The bytes of one gRPC message, the five before it included.
#[derive(Debug)]
pub struct Pieces {
    variant: Variant,
    type_url: TypeUrl,
    resources: vec::IntoIter<Resource>,
    removed: vec::IntoIter<Arc<str>>,
    /// What comes before the resources, until it is written.
    head: Option<(u32, String)>,
    /// The nonce, which comes after the resources, until it is written.
    nonce: Option<String>,
    /// A resource that is the next piece, and its name if that follows.
    large: Option<(Bytes, Arc<str>)>,
    /// A name to write before anything else.
    name: Option<Arc<str>>,
    is_done: bool,
}

impl Pieces {
    /// The response that says this, in one variant of the protocol.
    #[must_use]
    pub fn new(variant: Variant, answer: Answer) -> Self {
        let length = message_length(variant, &answer);
        let Answer { type_url, nonce, version, resources, removed } = answer;
        let removed = if variant == Variant::Delta { removed } else { Vec::new() };
        Self {
            variant,
            type_url,
            resources: resources.into_iter(),
            removed: removed.into_iter(),
            // Messages are far shorter than 4 GiB.
            head: Some((u32::try_from(length).unwrap_or(u32::MAX), version)),
            nonce: Some(nonce),
            large: None,
            name: None,
            is_done: false,
        }
    }

    /// The next resource: whole, or what comes before its large body.
    fn resource(&mut self, resource: Resource, piece: &mut BytesMut) {
        let any = any_length(&self.type_url, &resource);
        match self.variant {
            Variant::Sotw => length_delimited(piece, RESOURCES, any),
            Variant::Delta => {
                length_delimited(piece, RESOURCES, resource_length(&resource, any));
                text(piece, RESOURCE_VERSION, &resource.version_text());
                length_delimited(piece, RESOURCE_ANY, any);
            }
        }
        text(piece, ANY_TYPE, self.type_url.as_str());
        if !resource.body.is_empty() {
            length_delimited(piece, ANY_VALUE, resource.body.len());
        }
        if resource.body.len() >= LARGE {
            self.large = Some((resource.body, resource.name));
            return;
        }
        piece.put_slice(&resource.body);
        self.end(&resource.name, piece);
    }

    /// What comes after the body of a resource.
    fn end(&self, name: &str, piece: &mut BytesMut) {
        if self.variant == Variant::Delta {
            text(piece, RESOURCE_NAME, name);
        }
    }

    /// Writes up to the end of a piece; returns whether the message is at its end.
    fn write(&mut self, piece: &mut BytesMut) -> bool {
        if let Some((length, version)) = self.head.take() {
            piece.put_u8(0);
            piece.put_u32(length);
            text(piece, VERSION, &version);
        }
        if let Some(name) = self.name.take() {
            self.end(&name, piece);
        }
        while let Some(next) = self.resources.as_slice().first() {
            let body = if next.body.len() < LARGE { next.body.len() } else { 0 };
            if is_full(piece, body + next.name.len() + 2 * self.type_url.as_str().len()) {
                return false;
            }
            if let Some(resource) = self.resources.next() {
                self.resource(resource, piece);
            }
            if self.large.is_some() {
                return false;
            }
        }
        if let Some(nonce) = &self.nonce {
            if is_full(piece, self.type_url.as_str().len() + nonce.len()) {
                return false;
            }
            text(piece, TYPE_URL, self.type_url.as_str());
            text(piece, NONCE, nonce);
            self.nonce = None;
        }
        while let Some(next) = self.removed.as_slice().first() {
            if is_full(piece, next.len()) {
                return false;
            }
            if let Some(name) = self.removed.next() {
                length_delimited(piece, REMOVED, name.len());
                piece.put_slice(name.as_bytes());
            }
        }
        true
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    /// Never an empty piece: transports count those as an attack.
    fn next(&mut self) -> Option<Bytes> {
        if let Some((body, name)) = self.large.take() {
            self.name = Some(name);
            return Some(body);
        }
        if self.is_done {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE);
        self.is_done = self.write(&mut piece);
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

/// Whether that much, with its tags and lengths, has to wait for the next piece.
fn is_full(piece: &BytesMut, more: usize) -> bool {
    /// Tags, lengths and the version of a resource, at most.
    const BESIDES: usize = 64;
    !piece.is_empty() && piece.len() + more + BESIDES > PIECE
}

fn message_length(variant: Variant, answer: &Answer) -> usize {
    let Answer { type_url, nonce, version, resources, removed } = answer;
    let resources = resources.iter().map(|resource| {
        let any = any_length(type_url, resource);
        field_length(match variant {
            Variant::Sotw => any,
            Variant::Delta => resource_length(resource, any),
        })
    });
    let removed = removed.iter().filter(|_| variant == Variant::Delta).map(|name| field_length(name.len()));
    let texts = [version.as_str(), type_url.as_str(), nonce].map(text_length);
    texts.into_iter().chain(resources).chain(removed).sum()
}

fn any_length(type_url: &TypeUrl, resource: &Resource) -> usize {
    let body = resource.body.len();
    text_length(type_url.as_str()) + if body == 0 { 0 } else { field_length(body) }
}

fn resource_length(resource: &Resource, any: usize) -> usize {
    text_length(&resource.version_text()) + field_length(any) + text_length(&resource.name)
}

/// Length of a field with its tag and its own length.
fn field_length(content: usize) -> usize {
    1 + length_delimiter_len(content) + content
}

fn text_length(text: &str) -> usize {
    if text.is_empty() { 0 } else { field_length(text.len()) }
}

/// The beginning of a field with a length. All field numbers here are below 16.
fn length_delimited(piece: &mut BytesMut, field: u8, length: usize) {
    piece.put_u8(field << 3 | 2);
    // A buffer that grows has room for it.
    encode_length_delimiter(length, piece).ok();
}

/// A text; an empty one is left out, as everywhere in protobuf.
fn text(piece: &mut BytesMut, field: u8, text: &str) {
    if !text.is_empty() {
        length_delimited(piece, field, text.len());
        piece.put_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
