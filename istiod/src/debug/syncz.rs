//! `/debug/syncz`: what each proxy was sent and has accepted, in the form that
//! `istioctl proxy-status` reads.

use std::time::SystemTime;

use names::TypeUrl;
use serde_json::{Map, Value};
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

/// Time of what never happened, as Istio writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The page; of one namespace, if that is asked for.
#[must_use]
pub fn page(table: &Table, namespace: Option<&str>) -> Value {
    let all = table.all();
    let is_wanted = |row: &Row| {
        namespace.is_none_or(|namespace| namespace.is_empty() || row.proxy.namespace == namespace)
    };
    all.iter().filter(|(_, row)| is_wanted(row)).map(|(_, row)| of_row(row)).collect()
}

fn of_row(row: &Row) -> Value {
    let mut page = Map::new();
    let mut add = |name: String, text: &str| {
        if !text.is_empty() {
            page.insert(name, text.into());
        }
    };
    add("cluster_id".into(), &row.proxy.cluster_id);
    add("proxy".into(), &row.name());
    add("proxy_type".into(), row.proxy.id.node_type.as_str());
    add("istio_version".into(), &row.proxy.istio_version);
    let types = row.types();
    for (prefix, type_url) in &PREFIXES {
        let Some(status) = types.get(type_url) else { continue };
        add(format!("{prefix}_sent"), status.sent_nonce.as_deref().unwrap_or_default());
        add(format!("{prefix}_acked"), status.acked_nonce.as_deref().unwrap_or_default());
    }
    let resources: Map<String, Value> =
        types.iter().map(|(type_url, status)| (type_url.as_str().to_owned(), of_type(status))).collect();
    if !resources.is_empty() {
        page.insert("resources".into(), resources.into());
    }
    page.into()
}

fn of_type(status: &TypeStatus) -> Value {
    let mut page = Map::new();
    let sent_time = stamp(status.sent_at).unwrap_or_else(|| NEVER.to_owned());
    page.insert("sentTime".into(), sent_time.into());
    // The last two are ours.
    page.insert("state".into(), status.state().as_str().into());
    for (name, text) in [
        ("sent", status.sent_nonce.clone()),
        ("acked", status.acked_nonce.clone()),
        ("lastError", status.last_error.clone()),
        ("ackedTime", stamp(status.acked_at)),
    ] {
        page.extend(text.map(|text| (name.to_owned(), Value::from(text))));
    }
    page.into()
}

/// A time as RFC 3339 writes it.
pub(super) fn stamp(time: Option<SystemTime>) -> Option<String> {
    OffsetDateTime::from(time?).format(&Rfc3339).ok()
}
