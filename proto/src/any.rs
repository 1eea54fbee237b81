//! `google.protobuf.Any` whose value is shared bytes.

use bytes::Bytes;
use prost::Name;

/// A message of any type in encoded form.
///
/// The value is [`Bytes`], so that cloning a resource into a response copies nothing.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/FULL.NAME`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// Packs a message.
    #[must_use]
    pub fn pack<M: Name>(message: &M) -> Self {
        Self {
            type_url: format!("type.googleapis.com/{}", M::full_name()),
            value: message.encode_to_vec().into(),
        }
    }

    /// Whether it holds a message of that type.
    #[must_use]
    pub fn is<M: Name>(&self) -> bool {
        self.type_url.rsplit('/').next() == Some(M::full_name().as_str())
    }

    /// Unpacks a message of type `M`.
    ///
    /// # Errors
    /// When it holds another type or bytes that are no such message.
    pub fn unpack<M: Name + Default>(&self) -> Result<M, prost::DecodeError> {
        if !self.is::<M>() {
            #[expect(deprecated, reason = "prost has no other public constructor of its error")]
            return Err(prost::DecodeError::new(format!("{} is not a {}", self.type_url, M::full_name())));
        }
        M::decode(self.value.clone())
    }
}

impl Name for Any {
    const PACKAGE: &'static str = "google.protobuf";
    const NAME: &'static str = "Any";
}

impl serde::Serialize for Any {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        use serde::ser::SerializeStruct as _;
        let mut value = serializer.serialize_struct("Any", 2)?;
        value.serialize_field("@type", &self.type_url)?;
        value.serialize_field("value", &base64::engine::general_purpose::STANDARD.encode(&self.value))?;
        value.end()
    }
}

impl<'de> serde::Deserialize<'de> for Any {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a message of any type cannot be given here"))
    }
}
