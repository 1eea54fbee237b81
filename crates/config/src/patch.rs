//! Values of patches (`EnvoyFilter`): pieces of Envoy's configuration, written
//! as JSON, in encoded form.

mod wire;

use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage as _};
use proto::istio::networking::v1alpha3::envoy_filter::{ApplyTo, Patch};
use proto::reflect;

/// A piece of Envoy's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The encoded message, of the type [`message_name`] names.
    pub encoded: Vec<u8>,
    /// The same for being put behind another message, which merges the two:
    /// lengths of time are whole, so that no part of the other one is left.
    pub merging: Vec<u8>,
    /// A field that Envoy's API does not have, when there is one: it was left out.
    pub unknown: Option<Error>,
}

/// A value is no such piece of configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Path of the field inside the value; may be empty.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Full name of the message that patches of a kind are made of.
#[must_use]
pub fn message_name(apply_to: ApplyTo) -> Option<&'static str> {
    Some(match apply_to {
        ApplyTo::Invalid => return None,
        ApplyTo::Listener => "envoy.config.listener.v3.Listener",
        ApplyTo::FilterChain => "envoy.config.listener.v3.FilterChain",
        ApplyTo::NetworkFilter => "envoy.config.listener.v3.Filter",
        ApplyTo::ListenerFilter => "envoy.config.listener.v3.ListenerFilter",
        ApplyTo::HttpFilter => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        ApplyTo::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
        ApplyTo::VirtualHost => "envoy.config.route.v3.VirtualHost",
        ApplyTo::HttpRoute => "envoy.config.route.v3.Route",
        ApplyTo::Cluster => "envoy.config.cluster.v3.Cluster",
        ApplyTo::ExtensionConfig => "envoy.config.core.v3.TypedExtensionConfig",
        ApplyTo::Bootstrap => "envoy.config.bootstrap.v3.Bootstrap",
    })
}

/// Reads the value of a patch; `None` when it has none.
///
/// # Errors
/// When it is no such message, or names a type that Envoy's API does not have.
pub fn read(apply_to: ApplyTo, patch: &Patch) -> Result<Option<Value>, Error> {
    let Some(value) = &patch.value else { return Ok(None) };
    let plain = |message: &str| Error { field: String::new(), message: message.into() };
    let name = message_name(apply_to).ok_or_else(|| plain("applyTo is missing"))?;
    let descriptor =
        reflect::pool().get_message_by_name(name).ok_or_else(|| plain("Envoy's API has no such message"))?;
    let json = serde_json::to_value(value).map_err(|error| plain(&error.to_string()))?;
    let (message, unknown) = match parse(descriptor.clone(), &json, true) {
        Ok(message) => (message, None),
        Err(strict) => (parse(descriptor, &json, false)?, Some(strict)),
    };
    let descriptor = message.descriptor();
    let bytes = message.encode_to_vec();
    let form = |is_merging| {
        wire::rewrite(&descriptor, &bytes, is_merging).ok_or_else(|| plain("it cannot be encoded"))
    };
    Ok(Some(Value { encoded: form(false)?, merging: form(true)?, unknown }))
}

/// An encoded message of the full name `name` in the one form of several:
/// entries of maps by their keys. `None` when it is no such message.
#[must_use]
pub fn canonical(name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    wire::rewrite(&reflect::pool().get_message_by_name(name)?, bytes, false)
}

fn parse(
    descriptor: MessageDescriptor,
    json: &serde_json::Value,
    is_strict: bool,
) -> Result<DynamicMessage, Error> {
    let options = DeserializeOptions::new().deny_unknown_fields(is_strict);
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_path_to_error::Deserializer::new(json, &mut track);
    DynamicMessage::deserialize_with_options(descriptor, reader, &options).map_err(|error| {
        let field = track.path().to_string();
        let mut message = error.to_string();
        if message.contains(".v2.") {
            message.push_str(": name the type of version 3 of Envoy's API");
        }
        Error { field: if field == "." { String::new() } else { field }, message }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(apply_to: ApplyTo, json: &str) -> Result<Value, Error> {
        let patch = Patch { value: serde_json::from_str(json).unwrap(), ..Patch::default() };
        read(apply_to, &patch).map(Option::unwrap)
    }

    fn json(apply_to: ApplyTo, text: &str) -> serde_json::Value {
        let value = of(apply_to, text).unwrap();
        assert_eq!(value.unknown, None, "{text}");
        reflect::to_json(message_name(apply_to).unwrap(), &value.encoded).unwrap()
    }

    #[test]
    fn values_are_written_as_envoy_writes_them() {
        let cluster = json(
            ApplyTo::Cluster,
            r#"{"connect_timeout": "1.5s", "lbPolicy": "MAGLEV",
            "circuit_breakers": {"thresholds": [{"max_connections": 77}]}}"#,
        );
        assert_eq!(cluster["connectTimeout"], "1.500s");
        assert_eq!(cluster["circuitBreakers"]["thresholds"][0]["maxConnections"], 77);
        let filter = json(
            ApplyTo::HttpFilter,
            r#"{"name": "lua", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": "x"}}}"#,
        );
        assert_eq!(filter["typedConfig"]["defaultSourceCode"]["inlineString"], "x");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let error =
            of(ApplyTo::Cluster, r#"{"circuit_breakers": {"thresholds": [{"max_connections": "x"}]}}"#);
        assert_eq!(error.unwrap_err().field, "circuit_breakers.thresholds[0].max_connections");
        let unknown = of(ApplyTo::Cluster, r#"{"nmae": "x", "name": "y"}"#).unwrap().unknown.unwrap();
        assert!(unknown.message.contains("nmae"), "{unknown}");
        let error = of(ApplyTo::NetworkFilter, r#"{"name": "x", "typed_config": {"@type": "a/b.C"}}"#);
        assert!(error.unwrap_err().message.contains("b.C"));
    }

    #[test]
    fn merging_replaces_lengths_of_time_as_a_whole() {
        let half = of(ApplyTo::Cluster, r#"{"connect_timeout": "0.5s"}"#).unwrap();
        let ten = of(ApplyTo::Cluster, r#"{"connect_timeout": "10s"}"#).unwrap();
        let both = [ten.encoded, half.merging].concat();
        let merged = reflect::to_json("envoy.config.cluster.v3.Cluster", &both).unwrap();
        assert_eq!(merged["connectTimeout"], "0.500s");
    }

    #[test]
    fn the_same_value_has_the_same_bytes() {
        let text = r#"{"name": "x", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.wasm.v3.EnvironmentVariables",
            "key_values": {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6", "g": "7"}}}"#;
        let first = of(ApplyTo::NetworkFilter, text).unwrap();
        for _ in 0..8 {
            assert_eq!(of(ApplyTo::NetworkFilter, text).unwrap(), first);
        }
    }
}
