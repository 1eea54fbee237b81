//! Kubernetes' strategic merge of a patch into a pod: maps are merged, lists
//! whose items have a key are merged by it, all else is replaced.
//!
//! `null` removes a field, `$patch: delete` an item, `$patch: replace` what was
//! there before.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// What kind of object a map is, as far as it matters which lists it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pod,
    Metadata,
    Spec,
    Container,
    Other,
}

/// How a list comes together with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Items with the same value of the field are the same.
    By(&'static str),
    /// Scalars; each once.
    Union,
    /// The patch's list takes its place.
    Replace,
}

const DIRECTIVE: &str = "$patch";

fn child(kind: Kind, field: &str) -> (Kind, Strategy) {
    use Strategy::{By, Replace, Union};
    match (kind, field) {
        (Kind::Pod, "metadata") => (Kind::Metadata, Replace),
        (Kind::Pod, "spec") => (Kind::Spec, Replace),
        (Kind::Metadata, "ownerReferences") => (Kind::Other, By("uid")),
        (Kind::Metadata, "finalizers") => (Kind::Other, Union),
        (Kind::Spec, "containers" | "initContainers" | "ephemeralContainers") => {
            (Kind::Container, By("name"))
        }
        (Kind::Spec, "volumes" | "imagePullSecrets" | "resourceClaims" | "schedulingGates") => {
            (Kind::Other, By("name"))
        }
        (Kind::Spec, "hostAliases") => (Kind::Other, By("ip")),
        (Kind::Spec, "topologySpreadConstraints") => (Kind::Other, By("topologyKey")),
        (Kind::Container, "env") => (Kind::Other, By("name")),
        (Kind::Container, "ports") => (Kind::Other, By("containerPort")),
        (Kind::Container, "volumeMounts") => (Kind::Other, By("mountPath")),
        (Kind::Container, "volumeDevices") => (Kind::Other, By("devicePath")),
        _ => (Kind::Other, Replace),
    }
}

/// Merges a patch into a pod.
pub(crate) fn pod(base: &mut Value, patch: &Value) {
    value(base, patch, Kind::Pod, Strategy::Replace);
}

fn value(base: &mut Value, patch: &Value, kind: Kind, strategy: Strategy) {
    match (base, patch, strategy) {
        (Value::Object(base), Value::Object(patch), _) => map(base, patch, kind),
        (Value::Array(base), Value::Array(patch), Strategy::By(key)) => by_key(base, patch, kind, key),
        (Value::Array(base), Value::Array(patch), Strategy::Union) => {
            for item in patch {
                if !base.contains(item) {
                    base.push(item.clone());
                }
            }
        }
        (base, patch, _) => *base = clean(patch, kind),
    }
}

fn map(base: &mut Map<String, Value>, patch: &Map<String, Value>, kind: Kind) {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => return base.clear(),
        Some("replace") => base.clear(),
        _ => {}
    }
    for (field, part) in patch.iter().filter(|(field, _)| *field != DIRECTIVE) {
        let (kind, strategy) = child(kind, field);
        if part.is_null() {
            base.remove(field);
        } else if let Some(old) = base.get_mut(field) {
            value(old, part, kind, strategy);
        } else {
            base.insert(field.clone(), clean(part, kind));
        }
    }
}

/// A part of a patch that meets nothing, without what is only for merging.
fn clean(patch: &Value, kind: Kind) -> Value {
    match patch {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(field, part)| *field != DIRECTIVE && !part.is_null());
            Value::Object(
                kept.map(|(field, part)| (field.clone(), clean(part, child(kind, field).0))).collect(),
            )
        }
        Value::Array(items) => {
            let kept = items.iter().filter(|item| item[DIRECTIVE] != "delete");
            Value::Array(kept.map(|item| clean(item, kind)).collect())
        }
        other => other.clone(),
    }
}

/// Items of the patch come in its order; items that only the base has keep
/// their places before those of the patch that followed them in the base, and
/// go to the end otherwise.
fn by_key(base: &mut Vec<Value>, patch: &[Value], kind: Kind, key: &str) {
    if patch.iter().any(|item| item[DIRECTIVE] == "replace" && item.get(key).is_none()) {
        let items = patch.iter().filter(|item| item[DIRECTIVE] != "replace");
        *base = items.map(|item| clean(item, kind)).collect();
        return;
    }
    let id = |item: &Value| item.get(key).map(Value::to_string);
    // Lists may be as long as a request: everything is looked up, nothing searched for.
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (index, item) in base.iter().enumerate() {
        if let Some(id) = id(item) {
            places.entry(id).or_insert(index);
        }
    }
    let deleted: BTreeSet<String> =
        patch.iter().filter(|item| item[DIRECTIVE] == "delete").filter_map(id).collect();
    let mut merged: Vec<Option<Value>> = std::mem::take(base).into_iter().map(Some).collect();
    let mut indexes = places.clone();
    let mut ours: Vec<String> = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for item in patch.iter().filter(|item| item[DIRECTIVE] != "delete") {
        let Some(id) = id(item) else { continue };
        let old = indexes.get(&id).and_then(|index| merged.get_mut(*index)).and_then(Option::as_mut);
        match old {
            Some(old) => value(old, item, kind, Strategy::Replace),
            None => {
                indexes.insert(id.clone(), merged.len());
                merged.push(Some(clean(item, kind)));
            }
        }
        if known.insert(id.clone()) {
            ours.push(id);
        }
    }
    let patched: Vec<(String, Value)> = ours
        .into_iter()
        .filter_map(|id| {
            let item = merged.get_mut(*indexes.get(&id)?)?.take()?;
            Some((id, item))
        })
        .collect();
    let mut rest = merged
        .into_iter()
        .flatten()
        .filter(|item| id(item).is_none_or(|id| !deleted.contains(&id)))
        .peekable();
    for (name, item) in patched {
        let place = places.get(&name);
        let is_before = |left: &Value| {
            let left = id(left);
            matches!((left.and_then(|left| places.get(&left)), place), (Some(left), Some(right)) if left < right)
        };
        while let Some(left) = rest.next_if(is_before) {
            base.push(left);
        }
        base.push(item);
    }
    base.extend(rest);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut base: Value, patch: &Value) -> Value {
        pod(&mut base, patch);
        base
    }

    #[test]
    fn containers_and_variables_are_merged_by_name() {
        let base = json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["1", "2"],
            "env": [{"name": "A", "value": "1"}, {"name": "C", "value": "3"}]}]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "args": ["3"],
            "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}]}, {"name": "b"}]}});
        assert_eq!(
            merged(base, &patch),
            json!({"spec": {"containers": [{"name": "a", "image": "x", "args": ["3"],
                "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "9"}, {"name": "C", "value": "3"}]},
                {"name": "b"}]}})
        );
    }

    #[test]
    fn what_stood_before_an_item_of_the_patch_stays_before_it() {
        let base = json!({"spec": {"volumes": [{"name": "u"}, {"name": "a"}, {"name": "v"}]}});
        let patch = json!({"spec": {"volumes": [{"name": "a", "emptyDir": null}, {"name": "b"}]}});
        let names: Vec<String> = merged(base, &patch)["spec"]["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|volume| volume["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["u", "a", "b", "v"]);
    }

    #[test]
    fn directives_remove_and_replace() {
        let base = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "securityContext": {"fsGroup": 1}}});
        let patch = json!({"metadata": {"labels": {"a": null}}, "spec": {
            "containers": [{"name": "a", "$patch": "delete"}, {"name": "x", "$patch": "delete"}],
            "securityContext": {"$patch": "replace", "runAsUser": 1}}});
        assert_eq!(
            merged(base, &patch),
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {
                "containers": [{"name": "b"}], "securityContext": {"runAsUser": 1}}})
        );
    }

    #[test]
    fn two_variables_of_a_name_in_a_patch_are_one() {
        let patch = json!({"spec": {"containers": [{"name": "a",
            "env": [{"name": "A", "value": "1"}, {"name": "B"}, {"name": "A", "value": "2"}]}]}});
        let base = json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Z"}]}]}});
        assert_eq!(
            merged(base, &patch)["spec"]["containers"][0]["env"],
            json!([{"name": "A", "value": "2"}, {"name": "B"}, {"name": "Z"}])
        );
    }
}
