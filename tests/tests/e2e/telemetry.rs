//! Istio's metrics out of stock Envoys: known traffic is counted to the exact number, with
//! exactly the right labels, on both sides.

#[path = "telemetry/counts.rs"]
mod counts;
#[path = "telemetry/prometheus.rs"]
mod prometheus;
#[path = "telemetry/world.rs"]
pub(crate) mod world;

use anyhow::{Context as _, ensure};
use istio_tests::mesh::Mesh;
use istio_tests::telemetry::scrape::{Labels, Numbers, added};

use super::Case;
pub(crate) use world::start;

pub(crate) const CASES: &[Case] = &[
    ("requests_are_counted_on_both_sides", counts::requests),
    ("calls_of_grpc_and_their_messages_are_counted", counts::grpc),
    ("connections_and_their_bytes_are_counted", counts::connections),
    ("what_a_client_outside_says_of_itself_counts_for_nothing", counts::plaintext),
    ("what_is_denied_reset_or_tried_again_is_counted_once_by_who_asked", counts::failures),
    ("who_serves_is_asked_only_where_istiod_does_not_know_it", counts::exchanged),
    ("a_mirrored_request_is_counted_where_it_arrives", counts::mirrored),
    ("a_gateway_counts_as_the_source", counts::gateway),
    ("a_gateway_knows_where_its_connections_go", counts::gateway_of_bytes),
    ("what_leaves_the_mesh_is_counted_by_the_source", counts::outside),
    ("prometheus_answers_the_questions_of_dashboards", prometheus::questions),
];

/// The metrics of some pods at one time.
struct Before {
    pods: Vec<(&'static str, Numbers)>,
}

impl Before {
    fn of(mesh: &Mesh, pods: &[&'static str]) -> anyhow::Result<Self> {
        let read =
            |name: &&'static str| Ok((*name, mesh.pod(name)?.istio_metrics(names::port::ENVOY_PROMETHEUS)?));
        Ok(Self { pods: pods.iter().map(read).collect::<anyhow::Result<_>>()? })
    }

    /// Waits until exactly that was counted since, and nothing else, at each of the pods:
    /// counters by name and labels; and the histograms of requests agree with them.
    fn wait(&self, mesh: &Mesh, wanted: &[(&str, Vec<Count>)]) -> anyhow::Result<()> {
        for (pod, before) in &self.pods {
            let wanted: Numbers = wanted
                .iter()
                .filter(|(name, _)| name == pod)
                .flat_map(|(_, counts)| counts)
                .map(|count| ((count.name.to_owned(), count.labels.clone()), count.value))
                .collect();
            Mesh::wait(&format!("the metrics of {pod}"), || {
                let now = mesh.pod(pod)?.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
                let all = added(before, &now);
                let is_counter = |name: &str| name.ends_with("_total");
                let seen: Numbers = all
                    .iter()
                    .filter(|((name, _), _)| is_counter(name))
                    .map(|(k, v)| (k.clone(), *v))
                    .collect();
                ensure!(seen == wanted, "{}", difference(&seen, &wanted));
                histograms(&all)
            })?;
            // The agent shows the same.
            let (own, merged) = (
                mesh.pod(pod)?.istio_metrics(names::port::ENVOY_PROMETHEUS)?,
                mesh.pod(pod)?.istio_metrics(names::port::AGENT_STATUS)?,
            );
            let missing: Vec<_> = own.iter().filter(|(key, _)| !merged.contains_key(key)).take(1).collect();
            ensure!(missing.is_empty(), "{pod}: not merged: {missing:?}");
        }
        Ok(())
    }
}

/// What is missing, and what is too much.
fn difference(seen: &Numbers, wanted: &Numbers) -> String {
    let lines = |one: &Numbers, other: &Numbers| {
        let lines = one.iter().filter(|(key, value)| other.get(key) != Some(value));
        lines.map(|((name, labels), value)| format!("{name} {labels:?} {value}\n")).collect::<String>()
    };
    format!("not there:\n{}unexpected:\n{}", lines(wanted, seen), lines(seen, wanted))
}

/// Every request is in each of the histograms, under the same labels.
fn histograms(all: &Numbers) -> anyhow::Result<()> {
    for ((_, labels), count) in all.iter().filter(|((name, _), _)| name == REQUESTS) {
        for histogram in
            ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"]
        {
            let mut last = labels.clone();
            last.insert("le".into(), "+Inf".into());
            for (suffix, labels) in [("count", labels), ("bucket", &last)] {
                let name = format!("{histogram}_{suffix}");
                let seen = all.get(&(name.clone(), labels.clone()));
                ensure!(seen == Some(count), "{name} is {seen:?}, not {count}: {labels:?}");
            }
        }
    }
    Ok(())
}

const REQUESTS: &str = "istio_requests_total";
const OPENED: &str = "istio_tcp_connections_opened_total";
const CLOSED: &str = "istio_tcp_connections_closed_total";
const SENT: &str = "istio_tcp_sent_bytes_total";
const RECEIVED: &str = "istio_tcp_received_bytes_total";
const REQUEST_MESSAGES: &str = "istio_request_messages_total";
const RESPONSE_MESSAGES: &str = "istio_response_messages_total";

/// One number of one metric.
struct Count {
    name: &'static str,
    labels: Labels,
    value: f64,
}

fn count(name: &'static str, labels: &Labels, value: u32) -> Count {
    Count { name, labels: labels.clone(), value: value.into() }
}

/// One end of calls, as labels tell it.
#[derive(Clone, Copy)]
struct End {
    workload: &'static str,
    namespace: &'static str,
    app: &'static str,
    version: &'static str,
    service: &'static str,
    revision: &'static str,
    cluster: &'static str,
    /// Whether it has shown a certificate.
    is_proven: bool,
}

/// A workload of the mesh that has told who it is.
const fn end(name: &'static str, namespace: &'static str) -> End {
    End {
        workload: name,
        namespace,
        app: name,
        version: "v1",
        service: name,
        revision: "v1",
        cluster: "Kubernetes",
        is_proven: true,
    }
}

const FRONT: End = end("front", "shop");
const BACK: End = end("back", "shop");
const SHADOW: End = end("shadow", "shop");
const EDGE: End = end("edge", "edge");
const UNKNOWN: End = End {
    workload: "unknown",
    namespace: "unknown",
    app: "unknown",
    version: "unknown",
    service: "unknown",
    revision: "latest",
    cluster: "unknown",
    is_proven: false,
};

impl End {
    /// The same without a certificate.
    const fn plain(mut self) -> Self {
        self.is_proven = false;
        self
    }
}

/// Labels of both ends.
fn ends(reporter: &str, source: End, destination: End, service: (&str, &str, &str)) -> Labels {
    let mut labels = Labels::new();
    let mut put = |name: String, value: &str| drop(labels.insert(name, value.to_owned()));
    for (side, end) in [("source", source), ("destination", destination)] {
        let principal = format!("spiffe://cluster.local/ns/{}/sa/{}", end.namespace, end.workload);
        put(format!("{side}_principal"), if end.is_proven { &principal } else { "unknown" });
        for (label, value) in [
            ("workload", end.workload),
            ("workload_namespace", end.namespace),
            ("app", end.app),
            ("version", end.version),
            ("canonical_service", end.service),
            ("canonical_revision", end.revision),
            ("cluster", end.cluster),
        ] {
            put(format!("{side}_{label}"), value);
        }
    }
    put("reporter".into(), reporter);
    put("destination_service".into(), service.0);
    put("destination_service_name".into(), service.1);
    put("destination_service_namespace".into(), service.2);
    labels
}

/// With further labels.
fn with(labels: &Labels, more: &[(&str, &str)]) -> Labels {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    labels.clone().into_iter().chain(more).collect()
}

/// How an HTTP request ended.
fn http(labels: &Labels, code: &str, flags: &str) -> Labels {
    let policy = security(labels);
    with(
        labels,
        &[
            ("request_protocol", "http"),
            ("response_code", code),
            ("response_flags", flags),
            ("grpc_response_status", ""),
            ("connection_security_policy", policy),
        ],
    )
}

/// Only the destination knows how it was asked.
fn security(labels: &Labels) -> &'static str {
    match (labels["reporter"].as_str(), labels["source_principal"].as_str()) {
        ("source", _) => "unknown",
        (_, "unknown") => "none",
        _ => "mutual_tls",
    }
}

const BACK_SERVICE: (&str, &str, &str) = ("back.shop.svc.cluster.local", "back", "shop");
const SHADOW_SERVICE: (&str, &str, &str) = ("shadow.shop.svc.cluster.local", "shadow", "shop");

/// Of an answer: whether nothing in it is of the exchange between proxies.
fn is_clean(reply: &istio_tests::call::Reply) -> anyhow::Result<()> {
    for (name, _) in &reply.headers {
        ensure!(!name.as_str().starts_with("x-envoy-peer-metadata"), "the answer has {name}");
    }
    let seen = reply.server["headers"].as_object().context("headers that the server saw")?;
    let found = seen.keys().find(|name| name.starts_with("x-envoy-peer-metadata"));
    ensure!(found.is_none(), "the application saw {found:?}");
    Ok(())
}
