//! Canonical proto JSON of Envoy messages, with every `Any` expanded.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::Any;

/// Descriptors of all messages of the crate.
#[expect(clippy::expect_used, reason = "the bytes come from our own build script")]
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = DescriptorPool::decode(include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin")).as_slice())
        .expect("envoy.bin is a descriptor set");
    pool.decode_file_descriptor_set(include_bytes!(concat!(env!("OUT_DIR"), "/istio.bin")).as_slice())
        .expect("istio.bin is a descriptor set");
    pool
});

/// Why a message has no JSON form or JSON is no message.
#[derive(Debug)]
pub enum Error {
    /// The type is not among the crate's.
    UnknownType(String),
    /// The bytes are no such message.
    Decode(prost::DecodeError),
    /// The JSON is no such message, or a value inside has an unknown type.
    Json(serde_json::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownType(name) => write!(f, "no message type {name}"),
            Self::Decode(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The descriptors of all messages of the crate.
#[must_use]
pub fn pool() -> &'static DescriptorPool {
    &POOL
}

/// JSON of an encoded message of the full name `name`.
///
/// # Errors
/// When the type is unknown or the bytes do not fit it.
pub fn to_json(name: &str, bytes: &[u8]) -> Result<serde_json::Value, Error> {
    let descriptor = POOL.get_message_by_name(name).ok_or_else(|| Error::UnknownType(name.into()))?;
    let message = DynamicMessage::decode(descriptor, bytes).map_err(Error::Decode)?;
    message
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(Error::Json)
}

/// JSON of a packed message, with `@type`.
///
/// # Errors
/// As [`to_json`].
pub fn any_to_json(any: &Any) -> Result<serde_json::Value, Error> {
    to_json("google.protobuf.Any", &any.encode_to_vec())
}

/// The encoded form of a message of the full name `name` given as JSON.
///
/// # Errors
/// When the type is unknown or the JSON does not fit it.
pub fn from_json(name: &str, json: serde_json::Value) -> Result<Vec<u8>, Error> {
    let descriptor = POOL.get_message_by_name(name).ok_or_else(|| Error::UnknownType(name.into()))?;
    let message = DynamicMessage::deserialize(descriptor, json).map_err(Error::Json)?;
    Ok(message.encode_to_vec())
}
