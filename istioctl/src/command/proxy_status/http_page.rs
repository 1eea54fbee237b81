//! The page `/debug/syncz` of one istiod, without authentication: for meshes whose
//! monitoring port can be reached.

use std::collections::BTreeMap;

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::proxies::admin::{CONNECT, exchange};
use crate::render::table::Table;

const PAGE: &str = "debug/syncz";
/// Blanks between columns.
const GAP: usize = 3;
/// Columns and the types that they show.
const TYPES: [(&str, &str); 4] = [
    ("CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    ("LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"),
    ("EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"),
    ("RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"),
];

#[derive(Debug, Deserialize)]
struct Row {
    proxy: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    istio_version: String,
    #[serde(default)]
    resources: BTreeMap<String, Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    sent: Option<String>,
    acked: Option<String>,
    last_error: Option<String>,
    state: String,
}

/// The page's JSON.
pub(super) async fn fetch(address: &str) -> anyhow::Result<String> {
    let answer = async {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream.with_context(|| format!("no connection in {} s", CONNECT.as_secs()))??;
        exchange(Box::new(stream), Method::GET, PAGE).await
    };
    answer.await.with_context(|| {
        format!("istiod at {address}: is it running? --debug-address names its --monitoringAddr")
    })
}

/// Its table, and what was refused.
pub(super) fn render(page: &str, namespace: Option<&str>) -> anyhow::Result<String> {
    let rows: Vec<Row> =
        serde_json::from_str(page).with_context(|| format!("answer of {PAGE}: {page:.200}"))?;
    let mut table = Table::new(GAP);
    table.row(["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "VERSION"]);
    let mut errors = String::new();
    let is_meant = |row: &Row| {
        namespace.is_none_or(|wanted| row.proxy.rsplit_once('.').is_some_and(|(_, ns)| ns == wanted))
    };
    let mut rows: Vec<Row> = rows.into_iter().filter(is_meant).collect();
    rows.sort_by(|one, other| one.proxy.cmp(&other.proxy));
    for row in rows {
        let states =
            TYPES.iter().map(|(_, name)| row.resources.get(*name).map_or("NOT SENT".into(), Resource::state));
        table.row([row.proxy.clone(), row.cluster_id].into_iter().chain(states).chain([row.istio_version]));
        for (column, name) in TYPES {
            if let Some(error) = row.resources.get(name).and_then(|resource| resource.last_error.as_ref()) {
                errors += &format!("{}: {column} refused: {error}\n", row.proxy);
            }
        }
    }
    Ok(table.render() + &errors)
}

impl Resource {
    fn state(&self) -> String {
        match (&self.sent, &self.acked) {
            _ if !self.state.is_empty() => self.state.clone(),
            (None, _) => "NOT SENT".into(),
            (sent, acked) if sent == acked => "SYNCED".into(),
            _ => "STALE".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_each_type_and_what_was_refused() {
        let page = r#"[
            {"proxy": "web.default", "cluster_id": "k", "istio_version": "1", "resources": {
                "type.googleapis.com/envoy.config.cluster.v3.Cluster": {"sent": "2", "acked": "1", "lastError": "no"},
                "type.googleapis.com/envoy.config.listener.v3.Listener": {"sent": "2", "acked": "2"}}},
            {"proxy": "db.other"}]"#;
        assert_eq!(
            render(page, Some("default")).unwrap(),
            "NAME          CLUSTER   CDS     LDS      EDS        RDS        VERSION\n\
             web.default   k         STALE   SYNCED   NOT SENT   NOT SENT   1\n\
             web.default: CDS refused: no\n"
        );
        assert!(render(page, None).unwrap().contains("db.other"));
    }
}
