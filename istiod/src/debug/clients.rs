//! Connected proxies: `/debug/adsz`, `/debug/connections` and `/debug/instancesz`.

use names::TypeUrl;
use pilot::Snapshot;
use prost::Message as _;
use proto::reflect;
use serde_json::{Map, Value, json};
use xds::session::Wanted;

use super::registry;
use super::syncz::stamp;
use crate::push::status::{Row, Table};

/// `/debug/connections`: who is connected since when.
#[must_use]
pub fn connections(table: &Table) -> Value {
    let clients: Vec<Value> = table.all().iter().map(|(id, row)| brief(id, row).into()).collect();
    list(clients)
}

fn list(clients: Vec<Value>) -> Value {
    let mut page = Map::new();
    page.insert("totalClients".into(), clients.len().into());
    if !clients.is_empty() {
        page.insert("clients".into(), clients.into());
    }
    page.into()
}

/// `/debug/adsz`: the same with what each says of itself and wants.
#[must_use]
pub fn adsz(rows: &[(String, Row)]) -> Value {
    let clients: Vec<Value> = rows.iter().map(|(id, row)| full(id, row)).collect();
    list(clients)
}

fn brief(id: &str, row: &Row) -> Map<String, Value> {
    let mut client = Map::new();
    client.insert("connectionId".into(), id.into());
    client.insert("connectedAt".into(), stamp(Some(row.connected_at)).into());
    client.insert("address".into(), row.peer.map(|peer| peer.to_string()).unwrap_or_default().into());
    client
}

fn full(id: &str, row: &Row) -> Value {
    let mut client = brief(id, row);
    let proxy = &row.proxy;
    let metadata = reflect::to_json("google.protobuf.Struct", &proxy.metadata.encode_to_vec());
    let locality = &proxy.locality;
    let watches: Map<String, Value> = row
        .wanted()
        .into_iter()
        .map(|(type_url, wanted)| {
            let names = match wanted {
                Wanted::All => Vec::new(),
                Wanted::Names(names) => names.iter().map(|name| Value::from(&**name)).collect(),
            };
            (TypeUrl::as_str(&type_url).to_owned(), Value::from(names))
        })
        .collect();
    if !proxy.labels.is_empty() {
        client.insert("labels".into(), json!(proxy.labels));
    }
    client.insert("metadata".into(), metadata.unwrap_or_default());
    let parts = [("region", &locality.region), ("zone", &locality.zone), ("sub_zone", &locality.sub_zone)];
    let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
    let parts: Map<String, Value> = parts.map(|(name, part)| (name.into(), part.as_str().into())).collect();
    if !parts.is_empty() {
        client.insert("locality".into(), parts.into());
    }
    if !watches.is_empty() {
        client.insert("watches".into(), watches.into());
    }
    client.into()
}

/// `/debug/instancesz`: services of each proxy's own workload.
#[must_use]
pub fn instances(table: &Table, snapshot: &Snapshot) -> Value {
    let mut proxies = Map::new();
    for (_, row) in table.all() {
        let served: Vec<Value> = pilot::served(snapshot, &row.proxy)
            .into_iter()
            .map(|(service, port, target)| {
                json!({
                    "Service": registry::of_service(&service, &snapshot.settings.cluster_id),
                    "Port": registry::target(&port, target),
                })
            })
            .collect();
        proxies.insert(row.name(), served.into());
    }
    proxies.into()
}
