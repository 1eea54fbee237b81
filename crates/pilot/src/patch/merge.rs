//! Merging: fields that a patch sets replace those that are there, lists grow,
//! messages are merged field by field.

use prost::bytes::{BufMut as _, BytesMut};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, MessageDescriptor, Value as Field};
use proto::istio::networking::v1alpha3::envoy_filter::patch::Operation;
use proto::{Any, reflect};

use super::Value;

/// Merges the value of a patch into a message. What cannot be merged stays.
pub(super) fn merge<M: Message + Name + Default + Clone>(
    operation: Operation,
    target: &mut M,
    value: &Value,
) {
    if operation == Operation::MergeAndReplaceList {
        let merged = replacing_lists(&M::full_name(), &target.encode_to_vec(), &value.encoded);
        if let Some(merged) = merged.and_then(|bytes| M::decode(bytes.as_slice()).ok()) {
            *target = merged;
        }
        return;
    }
    // One encoded message behind another is their merger.
    let mut merged = target.clone();
    if merged.merge(value.merging.clone()).is_ok() {
        *target = merged;
    }
}

/// Merges a packed message, as it is merged, into one of the same type;
/// otherwise nothing changes and the answer is `false`.
pub(super) fn merge_any(operation: Operation, target: &mut Any, source: &Any) -> bool {
    let name = |any: &Any| any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
    let of_type = name(target);
    if of_type != name(source) {
        return false;
    }
    if operation == Operation::MergeAndReplaceList {
        let Some(merged) = replacing_lists(&of_type, &target.value, &source.value) else { return false };
        target.value = merged.into();
        return true;
    }
    let mut merged = BytesMut::with_capacity(target.value.len() + source.value.len());
    merged.put(target.value.clone());
    merged.put(source.value.clone());
    target.value = merged.freeze();
    true
}

/// The same, but lists of the patch take the place of others.
fn replacing_lists(name: &str, target: &[u8], source: &[u8]) -> Option<Vec<u8>> {
    let descriptor: MessageDescriptor = reflect::pool().get_message_by_name(name)?;
    let mut target = DynamicMessage::decode(descriptor.clone(), target).ok()?;
    let source = DynamicMessage::decode(descriptor, source).ok()?;
    lay(&mut target, &source);
    config::patch::canonical(name, &target.encode_to_vec())
}

fn lay(target: &mut DynamicMessage, source: &DynamicMessage) {
    for (field, value) in source.fields() {
        let is_duration = |message: &DynamicMessage| {
            prost_reflect::ReflectMessage::descriptor(message).full_name() == "google.protobuf.Duration"
        };
        match value {
            Field::Message(inner) if !is_duration(inner) && target.has_field(&field) => {
                if let Field::Message(own) = target.get_field_mut(&field) {
                    lay(own, inner);
                }
            }
            Field::Map(entries) if target.has_field(&field) => {
                if let Field::Map(own) = target.get_field_mut(&field) {
                    own.extend(entries.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
            }
            value => target.set_field(&field, value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::cluster::v3::Cluster;

    use super::*;

    fn cluster(json: serde_json::Value) -> Cluster {
        Cluster::decode(reflect::from_json(&Cluster::full_name(), json).unwrap().as_slice()).unwrap()
    }

    fn merged(operation: Operation) -> Cluster {
        let mut target = cluster(serde_json::json!({
            "name": "a", "connectTimeout": "1.5s",
            "circuitBreakers": {"thresholds": [{"maxConnections": 1}]},
            "metadata": {"filterMetadata": {"x": {"a": 1}, "y": {"b": 2}}},
        }));
        let patch = serde_json::from_str(
            r#"{"connect_timeout": "3s", "circuit_breakers": {"thresholds": [{"max_connections": 2}]},
                "metadata": {"filter_metadata": {"x": {"c": 3}}}}"#,
        )
        .unwrap();
        let patch = proto::istio::networking::v1alpha3::envoy_filter::Patch {
            value: Some(patch),
            ..Default::default()
        };
        let apply_to = proto::istio::networking::v1alpha3::envoy_filter::ApplyTo::Cluster;
        let value = config::patch::read(apply_to, &patch).unwrap().unwrap();
        let value = Value { encoded: value.encoded.into(), merging: value.merging.into() };
        merge(operation, &mut target, &value);
        target
    }

    #[test]
    fn lists_grow_and_lengths_of_time_are_replaced() {
        let merged = merged(Operation::Merge);
        assert_eq!((merged.name.as_str(), merged.connect_timeout.unwrap().nanos), ("a", 0));
        let limits = merged.circuit_breakers.unwrap().thresholds;
        let limits: Vec<_> = limits.into_iter().map(|limit| limit.max_connections).collect();
        assert_eq!(limits, [Some(1), Some(2)]);
        let metadata = merged.metadata.unwrap().filter_metadata;
        assert!(metadata["x"].fields.contains_key("c") && metadata.contains_key("y"));
    }

    #[test]
    fn lists_are_replaced_on_request() {
        let merged = merged(Operation::MergeAndReplaceList);
        assert_eq!(merged.connect_timeout.unwrap().seconds, 3);
        let limits = merged.circuit_breakers.unwrap().thresholds;
        assert_eq!(limits.len(), 1);
        assert_eq!(limits[0].max_connections, Some(2));
    }

    #[test]
    fn only_equal_types_are_merged() {
        let mut target = Any::pack(&cluster(serde_json::json!({"name": "a"})));
        let other = Any { type_url: "type.googleapis.com/x.Y".into(), ..target.clone() };
        assert!(!merge_any(Operation::Merge, &mut target, &other));
        assert_eq!(target.unpack::<Cluster>().unwrap().name, "a");
    }
}
