//! `/debug/config_distribution`: which proxies have an object as it is in force.

use config::{Kind, Store, digest};
use serde_json::{Map, Value};
use xds::SyncState;

use super::{Page, parameter};
use crate::push::status::{Row, Table};
use crate::world::World;

/// Told in place of the digest of an object that is not there.
const ABSENT: &str = "absent";
/// Field of each type, with the type.
const FIELDS: [(&str, names::TypeUrl); 4] = [
    ("cluster_acked", names::TypeUrl::Cluster),
    ("listener_acked", names::TypeUrl::Listener),
    ("route_acked", names::TypeUrl::Route),
    ("endpoint_acked", names::TypeUrl::Endpoint),
];

/// The page about an object, `resource=KIND/NAMESPACE/NAME`.
#[must_use]
pub fn page(world: &World, table: &Table, query: &str) -> Page {
    let resource = parameter(query, "resource").unwrap_or_default();
    let Some(version) = version(&world.store, resource) else {
        let words = "name the object: resource=KIND/NAMESPACE/NAME\n";
        return Page::text(http::StatusCode::BAD_REQUEST, words);
    };
    Page::Json(table.all().iter().map(|(_, row)| of_row(row, &version, world.serial)).collect())
}

/// What an object in force says, in short; none when there is no such kind.
fn version(store: &Store, resource: &str) -> Option<String> {
    let mut parts = resource.split('/');
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = Kind::ALL.iter().find(|known| known.is_istio() && known.as_str() == kind)?;
    let found = store.objects().find(|object| {
        object.key.kind == *kind && *object.key.namespace == *namespace && *object.key.name == *name
    });
    Some(found.map_or_else(|| ABSENT.to_owned(), |object| digest::of(&object.spec)))
}

/// Of each type that a proxy has asked for, the version that it has accepted; empty
/// while it waits for something, or has refused it.
fn of_row(row: &Row, version: &str, serial: u64) -> Value {
    let has_all = row.reached() >= serial;
    let types = row.types();
    let mut fields = Map::new();
    fields.insert("proxy".into(), row.name().into());
    for (field, type_url) in &FIELDS {
        let Some(status) = types.get(type_url) else { continue };
        let has_it = has_all && !status.is_pending() && status.state() == SyncState::Synced;
        fields.insert((*field).to_owned(), if has_it { version } else { "" }.into());
    }
    fields.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_object_is_named_by_kind_namespace_and_name() {
        let mut store = Store::default();
        let text = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a, namespace: b}\nspec: {egress: [{hosts: ['./*']}]}\n";
        for object in config::yaml::read("a.yaml", text).objects {
            store.apply(Arc::new(object));
        }
        assert_eq!(version(&store, "Sidecar/b/a").unwrap().len(), 16);
        assert_eq!(version(&store, "Sidecar/b/c").unwrap(), ABSENT);
        for wrong in ["Pod/b/a", "Sidecar/b", "", "sidecar/b/a"] {
            assert_eq!(version(&store, wrong), None, "{wrong}");
        }
    }
}
