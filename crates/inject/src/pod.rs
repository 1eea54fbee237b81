//! A pod as JSON, and how to find one's way in it. It stays JSON from end to
//! end, so that fields that we do not know pass through untouched.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Name of the proxy's container.
pub const PROXY: &str = "istio-proxy";
/// Name of the init container that redirects traffic.
pub const INIT: &str = "istio-init";
/// Name of the init container that checks what the CNI plugin did.
pub const VALIDATION: &str = "istio-validation";
/// Name of an init container of older releases.
pub const CORE_DUMP: &str = "enable-core-dump";

/// The containers of `spec`.
pub(crate) const CONTAINERS: &str = "containers";
/// The init containers of `spec`.
pub(crate) const INIT_CONTAINERS: &str = "initContainers";

/// A string below the value, or an empty one.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A map of strings in the metadata, such as `labels`.
pub(crate) fn strings(pod: &Value, field: &str) -> BTreeMap<String, String> {
    let map = pod["metadata"][field].as_object();
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A list of `spec`; an empty one when there is none.
pub(crate) fn list<'a>(pod: &'a Value, field: &str) -> &'a [Value] {
    pod["spec"][field].as_array().map_or(&[], Vec::as_slice)
}

/// The object behind a field, which is made when it is not there.
pub(crate) fn object<'a>(value: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let outer = as_object(value);
    as_object(outer.entry(field).or_insert(Value::Null))
}

/// The value as an object; anything else becomes an empty one.
pub(crate) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was just made one"),
    }
}

/// A list behind a field, which is made when it is not there.
pub(crate) fn list_in<'a>(value: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let slot = as_object(value).entry(field).or_insert(Value::Null);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("it was just made one"),
    }
}

/// A map of the metadata, made when it is not there.
pub(crate) fn metadata_map<'a>(pod: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let metadata = as_object(pod).entry("metadata").or_insert(Value::Null);
    object(metadata, field)
}

/// A list of `spec`, made when it is not there.
pub(crate) fn spec_list<'a>(pod: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    let spec = as_object(pod).entry("spec").or_insert(Value::Null);
    list_in(spec, field)
}

/// The name of a container, volume, variable.
pub(crate) fn name(item: &Value) -> &str {
    item["name"].as_str().unwrap_or_default()
}

/// The item of that name.
pub(crate) fn find<'a>(items: &'a [Value], wanted: &str) -> Option<&'a Value> {
    items.iter().find(|item| name(item) == wanted)
}

/// The container of that name, a normal one before an init container.
pub(crate) fn container<'a>(pod: &'a Value, wanted: &str) -> Option<&'a Value> {
    find(list(pod, CONTAINERS), wanted).or_else(|| find(list(pod, INIT_CONTAINERS), wanted))
}

/// The proxy's container, to be changed.
pub(crate) fn proxy_mut(pod: &mut Value) -> Option<&mut Value> {
    let field = if find(list(pod, CONTAINERS), PROXY).is_some() { CONTAINERS } else { INIT_CONTAINERS };
    let list = pod.get_mut("spec")?.get_mut(field)?.as_array_mut()?;
    list.iter_mut().find(|container| name(container) == PROXY)
}

/// Where a container goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Last,
}

/// Moves the container of that name, if it is there.
pub(crate) fn move_to(pod: &mut Value, field: &str, wanted: &str, place: Place) {
    if find(list(pod, field), wanted).is_none() {
        return;
    }
    let list = spec_list(pod, field);
    let (mut moved, rest): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|item| name(item) == wanted);
    // The API server refuses two containers of a name; the last one is as good as any.
    moved.truncate(moved.len().max(1));
    *list = match place {
        Place::First => moved.into_iter().chain(rest).collect(),
        Place::Last => rest.into_iter().chain(moved).collect(),
    };
}
