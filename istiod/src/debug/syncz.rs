//! `/debug/syncz`: what each proxy was sent and has accepted, in the form that
//! `istioctl proxy-status` reads.

use std::time::SystemTime;

use names::TypeUrl;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use xds::TypeStatus;

use crate::push::status::{Row, Table};

/// Field prefix of each type in the older part of the page.
const PREFIXES: [(&str, TypeUrl); 5] = [
    ("cluster", TypeUrl::Cluster),
    ("listener", TypeUrl::Listener),
    ("route", TypeUrl::Route),
    ("endpoint", TypeUrl::Endpoint),
    ("extensionconfig", TypeUrl::Extension),
];

/// The page.
#[must_use]
pub fn page(table: &Table) -> Value {
    table.all().iter().map(|(_, row)| of_row(row)).collect()
}

fn of_row(row: &Row) -> Value {
    let mut page = Map::new();
    page.insert("cluster_id".into(), row.proxy.cluster_id.as_str().into());
    page.insert("proxy".into(), row.name().into());
    page.insert("proxy_type".into(), row.proxy.id.node_type.as_str().into());
    page.insert("istio_version".into(), row.proxy.istio_version.as_str().into());
    let types = row.types();
    for (prefix, type_url) in &PREFIXES {
        let Some(status) = types.get(type_url) else { continue };
        let nonce = |nonce: &Option<String>| Value::from(nonce.clone().unwrap_or_default());
        page.insert(format!("{prefix}_sent"), nonce(&status.sent_nonce));
        page.insert(format!("{prefix}_acked"), nonce(&status.acked_nonce));
    }
    let resources: Map<String, Value> =
        types.iter().map(|(type_url, status)| (type_url.as_str().to_owned(), of_type(status))).collect();
    page.insert("resources".into(), resources.into());
    page.into()
}

fn of_type(status: &TypeStatus) -> Value {
    json!({
        "sent": status.sent_nonce,
        "acked": status.acked_nonce,
        "sentTime": stamp(status.sent_at),
        "ackedTime": stamp(status.acked_at),
        "lastError": status.last_error,
        "state": status.state().as_str(),
    })
}

/// A time as RFC 3339 writes it.
pub(super) fn stamp(time: Option<SystemTime>) -> Option<String> {
    OffsetDateTime::from(time?).format(&Rfc3339).ok()
}
