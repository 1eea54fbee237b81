//! Policies in force: `/debug/authorizationz`, `/debug/telemetryz` and
//! `/debug/pushcontext`.

use std::collections::BTreeMap;

use config::{Kind, Object};
use serde_json::{Map, Value, json};

use super::registry;
use crate::world::World;

/// `/debug/authorizationz`.
pub(super) fn authorization(world: &World) -> Value {
    json!({ "authorization_policies": of_authorization(world) })
}

/// `/debug/telemetryz`.
pub(super) fn telemetry(world: &World) -> Value {
    json!({ "telemetries": {
        "namespace_to_telemetries": by_namespace(world, Kind::Telemetry, |object| named(object).into()),
        "root_namespace": world.snapshot.mesh.root_namespace,
    } })
}

/// `/debug/pushcontext`.
pub(super) fn push_context(world: &World) -> Value {
    json!({
        "AuthorizationPolicies": of_authorization(world),
        "NetworkGateways": registry::networks(&world.snapshot),
        "UnresolvedGateways": [],
    })
}

fn of_authorization(world: &World) -> Value {
    let policy = |object: &Object| {
        let mut policy = named(object);
        policy.insert("annotations".into(), json!(object.meta.annotations));
        policy.into()
    };
    json!({
        "namespace_to_policies": by_namespace(world, Kind::AuthorizationPolicy, policy),
        "root_namespace": world.snapshot.mesh.root_namespace,
    })
}

fn named(object: &Object) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".into(), (*object.key.name).into());
    fields.insert("namespace".into(), (*object.key.namespace).into());
    fields.insert("spec".into(), config::digest::json(&object.spec));
    fields
}

fn by_namespace(world: &World, kind: Kind, row: impl Fn(&Object) -> Value) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in world.store.shared(kind) {
        all.entry(object.key.namespace.to_string()).or_default().push(row(object));
    }
    all
}
