//! `proxy-status`: what each proxy was sent and has accepted, from istiod's
//! page `/debug/syncz`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::args::ProxyStatus;
use crate::table;

/// Longest wait for istiod.
const LIMIT: Duration = Duration::from_secs(3);
const PAGE: &str = "/debug/syncz";
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

/// Asks istiod and renders its answer.
///
/// # Errors
/// When istiod does not answer.
pub async fn run(args: &ProxyStatus) -> anyhow::Result<String> {
    let page = tokio::time::timeout(LIMIT, fetch(&args.debug_address)).await;
    let page = page.map_err(anyhow::Error::from).and_then(|page| page).with_context(|| {
        format!("istiod at {}: is it running? --debug-address names its --monitoringAddr", args.debug_address)
    })?;
    if args.output == "json" {
        return Ok(page);
    }
    let rows: Vec<Row> =
        serde_json::from_str(&page).with_context(|| format!("answer of {PAGE}: {page:.200}"))?;
    Ok(render(rows, args.namespace.as_deref()))
}

fn render(rows: Vec<Row>, namespace: Option<&str>) -> String {
    let mut lines =
        vec![["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "VERSION"].map(ToOwned::to_owned).to_vec()];
    let mut errors = String::new();
    let mut rows: Vec<Row> = rows
        .into_iter()
        .filter(|row| {
            namespace.is_none_or(|wanted| row.proxy.rsplit_once('.').is_some_and(|(_, ns)| ns == wanted))
        })
        .collect();
    rows.sort_by(|one, other| one.proxy.cmp(&other.proxy));
    for row in rows {
        let states =
            TYPES.iter().map(|(_, name)| row.resources.get(*name).map_or("NOT SENT".into(), Resource::state));
        let line = [row.proxy.clone(), row.cluster_id].into_iter().chain(states).chain([row.istio_version]);
        lines.push(line.collect());
        for (column, name) in TYPES {
            if let Some(error) = row.resources.get(name).and_then(|resource| resource.last_error.as_ref()) {
                errors += &format!("{}: {column} refused: {error}\n", row.proxy);
            }
        }
    }
    format!("{}{errors}", table::render(&lines))
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

async fn fetch(address: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(PAGE).header(http::header::HOST, address).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{PAGE}: {status}");
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    // The connection drives the exchange and ends after it.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        closed = connection => { closed?; exchange.await }
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
        let rows = || serde_json::from_str(page).unwrap();
        assert_eq!(
            render(rows(), Some("default")),
            "NAME          CLUSTER   CDS     LDS      EDS        RDS        VERSION\n\
             web.default   k         STALE   SYNCED   NOT SENT   NOT SENT   1\n\
             web.default: CDS refused: no\n"
        );
        assert!(render(rows(), None).contains("db.other"));
    }
}
