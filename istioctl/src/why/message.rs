//! Typed messages from the JSON of a dump, where a message may hold others that
//! this program does not know.

use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage};
use proto::Any;
use serde_json::Value;

/// Stands in for a message of a type that is not known: its value is the type's name.
const UNKNOWN: &str = "google.protobuf.StringValue";
const PREFIX: &str = "type.googleapis.com/";

/// A message from its JSON. Fields that are not known are left out.
///
/// # Errors
/// What does not fit.
pub(super) fn decode<M: prost::Message + prost::Name + Default>(json: &str) -> Result<M, String> {
    let name = M::full_name();
    let descriptor =
        proto::reflect::pool().get_message_by_name(&name).ok_or_else(|| format!("no message type {name}"))?;
    let mut json: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    prepare(&mut json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, json, &options)
        .map_err(|error| error.to_string())?;
    M::decode(message.encode_to_vec().as_slice()).map_err(|error| error.to_string())
}

/// Puts something known in the place of messages of unknown types.
fn prepare(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(prepare),
        Value::Object(fields) => {
            if let Some(Value::String(url)) = fields.get("@type") {
                let mut name = url.rsplit('/').next().unwrap_or_default().to_owned();
                let is_wrapper = name.ends_with(".TypedStruct");
                if is_wrapper || proto::reflect::pool().get_message_by_name(&name).is_none() {
                    // What this one holds is of another type, whose name it tells.
                    let inner =
                        fields.get("type_url").or_else(|| fields.get("typeUrl")).and_then(Value::as_str);
                    if let Some(inner) = inner.filter(|_| is_wrapper) {
                        inner.rsplit('/').next().unwrap_or_default().clone_into(&mut name);
                    }
                    fields.clear();
                    fields.insert("@type".into(), format!("{PREFIX}{UNKNOWN}").into());
                    fields.insert("value".into(), name.into());
                    return;
                }
            }
            fields.values_mut().for_each(prepare);
        }
        _ => {}
    }
}

/// The full name of the type of a packed message.
pub(super) fn kind(any: &Any) -> String {
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name == UNKNOWN {
        return String::decode(any.value.clone()).unwrap_or_default();
    }
    name.to_owned()
}

/// A packed message of type `M`, if it is one.
pub(super) fn unpack<M: prost::Name + Default>(any: &Any) -> Option<M> {
    any.unpack().ok()
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::listener::v3::{Listener, listener_filter};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_keeps_its_name() {
        let json = json!({
            "name": "x", "a_field_of_tomorrow": {"a": 1},
            "listener_filters": [
                {"name": "a", "typed_config": {"@type": "type.googleapis.com/a.b.Unknown", "value": [1]}},
                {"name": "b", "typed_config": {"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "x/c.d", "value": {}}},
            ],
        });
        let listener: Listener = decode(&json.to_string()).unwrap();
        let kinds = listener.listener_filters.iter().map(|filter| match &filter.config_type {
            Some(listener_filter::ConfigType::TypedConfig(any)) => kind(any),
            _ => String::new(),
        });
        assert_eq!(kinds.collect::<Vec<_>>(), ["a.b.Unknown", "c.d"]);
        assert!(decode::<Listener>(r#"{"name": 5}"#).is_err());
    }
}
