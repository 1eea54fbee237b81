//! What a sidecar has counted: by Istio's metrics, or by what Envoy itself counts of
//! each endpoint where there are none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::prometheus::{Sample, samples};
use crate::dump::clusters;
use crate::dump::view::Address;
use crate::json::Text;

/// What istiod does not know, and what nobody is.
const UNKNOWN: &str = "unknown";

/// Who told of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reporter {
    /// The sidecar of the client.
    Source,
    /// The sidecar of the server.
    Destination,
    /// Envoy's own counters at the client.
    Envoy,
}

/// An end of traffic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A workload: namespace and name.
    Workload(String, String),
    /// A host whose workload is not known.
    Host(String),
    /// An endpoint, and the host that it was called by.
    Address(IpAddr, String),
    /// Somebody without a sidecar.
    Outside,
}

/// What traffic is told by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Who told.
    pub reporter: Reporter,
    /// Whose.
    pub from: End,
    /// To whom.
    pub to: End,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
}

/// How much it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// Requests, or connections.
    pub total: f64,
    /// Those that failed.
    pub errors: f64,
    /// Bytes of TCP.
    pub bytes: f64,
    /// With mutual TLS.
    pub secured: f64,
    /// Without it.
    pub plain: f64,
    /// Hosts by which the server was called.
    pub services: Vec<String>,
}

/// All traffic that a sidecar tells of.
pub type Counts = BTreeMap<Flow, Count>;

/// What was counted between two times; a proxy that started anew counts from zero.
#[must_use]
pub fn between(before: &Counts, after: &Counts) -> Counts {
    let mut found = after.clone();
    for (flow, count) in &mut found {
        let Some(old) = before.get(flow).filter(|old| old.total <= count.total) else { continue };
        count.total -= old.total;
        count.errors = (count.errors - old.errors).max(0.0);
        count.bytes = (count.bytes - old.bytes).max(0.0);
        count.secured = (count.secured - old.secured).max(0.0);
        count.plain = (count.plain - old.plain).max(0.0);
    }
    found
}

/// What Istio's metrics of a page of Prometheus say.
#[must_use]
pub fn of_metrics(text: &str) -> Counts {
    let mut counts = Counts::new();
    for sample in samples(text) {
        // Envoy puts its name before metrics that it does not know.
        let name = sample.name.strip_prefix("envoy_").unwrap_or(sample.name);
        let is_requests = name == "istio_requests_total";
        let is_connections = name == "istio_tcp_connections_opened_total";
        let is_bytes = matches!(name, "istio_tcp_sent_bytes_total" | "istio_tcp_received_bytes_total");
        if !is_requests && !is_connections && !is_bytes {
            continue;
        }
        let Some(flow) = flow(&sample, is_requests) else { continue };
        let count = counts.entry(flow).or_default();
        if is_bytes {
            count.bytes += sample.value;
            continue;
        }
        count.total += sample.value;
        if is_requests && is_error(&sample) {
            count.errors += sample.value;
        }
        match label(&sample, "connection_security_policy") {
            "mutual_tls" => count.secured += sample.value,
            "none" => count.plain += sample.value,
            _ => {}
        }
        let service = label(&sample, "destination_service");
        if !matches!(service, "" | UNKNOWN) && !count.services.iter().any(|known| known == service) {
            count.services.push(service.to_owned());
        }
    }
    counts.retain(|_, count| count.total > 0.0);
    counts
}

fn label<'a>(sample: &'a Sample<'_>, name: &str) -> &'a str {
    sample.labels.get(name).map_or("", String::as_str)
}

/// Whether the server failed, or never answered.
fn is_error(sample: &Sample<'_>) -> bool {
    let code = label(sample, "response_code");
    let status = label(sample, "grpc_response_status");
    // Codes of gRPC that are the server's fault.
    code == "0" || code.starts_with('5') || matches!(status, "2" | "4" | "12" | "13" | "14" | "15")
}

fn flow(sample: &Sample<'_>, is_requests: bool) -> Option<Flow> {
    let reporter = match label(sample, "reporter") {
        "source" => Reporter::Source,
        "destination" => Reporter::Destination,
        _ => return None,
    };
    let workload = |side: &str| {
        let name = label(sample, &format!("{side}_workload"));
        let namespace = label(sample, &format!("{side}_workload_namespace"));
        (!matches!(name, "" | UNKNOWN)).then(|| End::Workload(namespace.to_owned(), name.to_owned()))
    };
    let host = [label(sample, "destination_service"), label(sample, "destination_service_name")];
    let host = host.into_iter().find(|host| !matches!(*host, "" | UNKNOWN)).unwrap_or(UNKNOWN);
    let protocol = match label(sample, "request_protocol") {
        "grpc" if is_requests => "grpc",
        _ if is_requests => "http",
        _ => "tcp",
    };
    Some(Flow {
        reporter,
        from: workload("source").unwrap_or(End::Outside),
        to: workload("destination").unwrap_or_else(|| End::Host(host.to_owned())),
        protocol: protocol.to_owned(),
    })
}

/// What Envoy counts of each endpoint: the page `/clusters?format=json`.
///
/// # Errors
/// When it is another page.
pub fn of_clusters(text: &str, from: &End) -> Result<Counts, crate::dump::Error> {
    let mut counts = Counts::new();
    for raw in clusters::parse(text)? {
        let status: Status<'_> = serde_json::from_str(raw.get()).map_err(crate::dump::Error::Json)?;
        let parts: Vec<&str> = status.name.split('|').collect();
        let ["outbound", _, _, host] = parts[..] else { continue };
        for endpoint in &status.host_statuses {
            let stat = |name: &str| {
                let found = endpoint.stats.iter().find(|stat| &*stat.name == name);
                found.map_or(0.0, |stat| stat.value.0)
            };
            let requests = stat("rq_total");
            let total = if requests > 0.0 { requests } else { stat("cx_total") };
            if total <= 0.0 {
                continue;
            }
            let address = endpoint.address.socket_address.as_ref();
            let to = match address.and_then(|socket| socket.address.parse().ok()) {
                Some(ip) => End::Address(ip, host.to_owned()),
                None => End::Host(host.to_owned()),
            };
            let protocol = if requests > 0.0 { "http" } else { "tcp" };
            let flow =
                Flow { reporter: Reporter::Envoy, from: from.clone(), to, protocol: protocol.to_owned() };
            let count = counts.entry(flow).or_default();
            count.total += total;
            count.errors += if requests > 0.0 { stat("rq_error") } else { stat("cx_connect_fail") };
            if !count.services.iter().any(|known| known == host) {
                count.services.push(host.to_owned());
            }
        }
    }
    Ok(counts)
}

/// `envoy.admin.v3.ClusterStatus`, as far as it counts.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, alias = "hostStatuses")]
    host_statuses: Vec<Endpoint<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint<'a> {
    #[serde(borrow)]
    address: Address<'a>,
    #[serde(borrow)]
    stats: Vec<Stat<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Stat<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    value: Number,
}

/// A number that JSON of protobuf writes as text.
#[derive(Default)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Text(String),
        }
        Ok(Self(match Either::deserialize(deserializer)? {
            Either::Number(number) => number,
            Either::Text(text) => text.parse().unwrap_or_default(),
        }))
    }
}
