//! A real Prometheus scrapes the mesh: what dashboards ask it has the right answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, ensure};
use istio_tests::call::{Call, Scheme};
use istio_tests::client::Ask;
use istio_tests::mesh::{CLIENT, ISTIOD, Mesh};
use istio_tests::telemetry::dashboard;
use istio_tests::telemetry::prometheus::{Prometheus, Target};
use istio_tests::telemetry::scrape::Labels;

use super::world::{EDGE, call, folder, repeat};
use super::{Before, CLOSED};

/// Where Prometheus answers: at its usual port is the server outside of the mesh.
const PORT: u16 = 9900;
/// Panels without an answer in this mesh, which has nothing of what they show.
const SILENT: &[(&str, &str)] = &[
    ("control-plane", "Certificates that were refused"),
    ("control-plane", "Not taken in time, ended by a fault"),
    ("control-plane", "Refused by proxies"),
    ("proxies", "Scrapes that failed in part"),
];

/// Every pod, and istiod.
fn targets(mesh: &Mesh) -> Vec<Target> {
    let pods = mesh.pods.iter().map(|pod| Target {
        job: "proxies",
        address: format!("{}:{}", pod.workload.address, names::port::AGENT_STATUS),
        path: "/stats/prometheus",
        labels: vec![("pod", pod.workload.name.clone()), ("namespace", pod.workload.namespace.clone())],
    });
    let istiod = Target {
        job: "istiod",
        address: format!("{ISTIOD}:{}", names::port::ISTIOD_MONITORING),
        path: "/metrics",
        labels: vec![("pod", "istiod".into()), ("namespace", "istio-system".into())],
    };
    pods.chain([istiod]).collect()
}

/// Traffic of every kind.
fn traffic(mesh: &Mesh, round: u32) -> anyhow::Result<()> {
    let front = &mesh.pod("front")?.network;
    repeat(&call(Scheme::Http, 80, "/asked"), front, 10 * round, 200)?;
    repeat(&call(Scheme::Http, 80, "/status/404"), front, 2 * round, 404)?;
    repeat(&call(Scheme::Http, 80, "/reset"), front, 3 * round, 503)?;
    repeat(&call(Scheme::Grpc, 7070, "/istio.test.Echo/Echo"), front, round, 200)?;
    for _ in 0..2 * round {
        call(Scheme::Tcp, 9090, "").from(front)?;
    }
    let entry = Call {
        address: SocketAddr::from((EDGE, 8080)),
        host: "shop.example".into(),
        ..call(Scheme::Http, 80, "/in")
    };
    repeat(&entry, &mesh.client, 5 * round, 200).map(drop)
}

/// Requests of a round, by who asked: the front, a client by the gateway.
const OF_FRONT: u32 = 10 + 2 + 3 + 1;
const OF_EDGE: u32 = 5;

/// Scrapes of one target that enclose a round: from the one to the other.
struct Window {
    instance: String,
    from: f64,
    to: f64,
}

impl Window {
    /// What a query says of exactly that time. `WINDOW` in it stands for the range: with a
    /// sample at either end nothing is extrapolated.
    fn ask(&self, prometheus: &Prometheus, query: &str) -> anyhow::Result<Vec<(Labels, f64)>> {
        // A range does not include its begin, since version 3.
        let range = format!("{}ms", ((self.to - self.from) * 1000.0).round() + 1.0);
        let query =
            query.replace("WINDOW", &range).replace("INSTANCE", &format!("instance=\"{}\"", self.instance));
        prometheus.query_at(&query, Some(self.to))
    }

    /// The same, of one number that must be near that one: within a thousandth.
    fn equals(&self, prometheus: &Prometheus, query: &str, wanted: f64) -> anyhow::Result<()> {
        let found = self.ask(prometheus, query)?;
        ensure!(found.len() == 1, "{query}: {found:?}");
        ensure!((found[0].1 - wanted).abs() <= wanted.abs() / 1000.0, "{query}: {} not {wanted}", found[0].1);
        Ok(())
    }
}

pub(super) fn questions(mesh: &mut Mesh) -> anyhow::Result<()> {
    let prometheus = Prometheus::start_at(PORT, &mesh.client, &folder(mesh, "prometheus"), &targets(mesh))?;
    // The series come into being: an increase is seen from the second number on. They are
    // larger than what comes, so that nothing looks like a start at zero.
    traffic(mesh, 2)?;
    let mut elsewhere = call(Scheme::Http, 80, "/out");
    elsewhere.address = SocketAddr::from((CLIENT, 80));
    elsewhere.host = "elsewhere.example".into();
    repeat(&elsewhere, &mesh.pod("front")?.network, 1, 200)?;
    settled(mesh, &prometheus)?;
    let last = |name: &str| -> anyhow::Result<(String, f64)> {
        let instance = format!("{}:{}", mesh.pod(name)?.workload.address, names::port::AGENT_STATUS);
        let time = prometheus.scrapes(&instance)?.pop().context("never scraped")?;
        Ok((instance, time))
    };
    let begins = [last("front")?, last("back")?, last("edge")?];
    let before = Before::of(mesh, &["front", "back", "edge"])?;
    traffic(mesh, 1)?;
    settled(mesh, &prometheus)?;
    let mut windows = Vec::new();
    for (instance, from) in begins {
        let to = prometheus.scrapes(&instance)?.pop().context("never scraped")?;
        ensure!(to > from, "{instance}: {from} to {to}");
        windows.push(Window { instance, from, to });
    }
    let [front, back, edge] = &windows[..] else { anyhow::bail!("windows") };
    volumes(&prometheus, front, back, edge)?;
    latencies(&prometheus, back)?;
    bytes(mesh, &prometheus, front, &before)?;
    sums(mesh, &prometheus)?;
    open_metrics(mesh, &prometheus)?;
    dashboards(&prometheus)
}

/// Waits until everything is counted, and all of it is scraped.
fn settled(mesh: &Mesh, prometheus: &Prometheus) -> anyhow::Result<()> {
    // A number is there when the request is over: what came last is a connection.
    Mesh::wait("all connections closed", || {
        for pod in ["front", "back"] {
            let page = mesh.pod(pod)?.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
            let sum =
                |wanted| page.iter().filter(|((name, _), _)| name == wanted).map(|(_, v)| v).sum::<f64>();
            ensure!(sum(super::OPENED) == sum(CLOSED), "{pod}: some are open");
        }
        Ok(())
    })?;
    prometheus.wait_scraped()
}

/// How much was asked, how much of it went well, and by whom.
fn volumes(prometheus: &Prometheus, front: &Window, back: &Window, edge: &Window) -> anyhow::Result<()> {
    let of = |count: u32| f64::from(count);
    let increase = |more: &str| format!("sum(increase(istio_requests_total{{INSTANCE{more}}}[WINDOW]))");
    front.equals(prometheus, &increase(",reporter=\"source\""), of(OF_FRONT))?;
    edge.equals(prometheus, &increase(",reporter=\"source\""), of(OF_EDGE))?;
    back.equals(prometheus, &increase(",reporter=\"destination\""), of(OF_FRONT + OF_EDGE))?;
    back.equals(prometheus, &increase(",response_code=~\"4.*\""), 2.0)?;
    back.equals(prometheus, &increase(",response_code=~\"5.*\",response_flags=\"UC\""), 3.0)?;
    back.equals(prometheus, &increase(",request_protocol=\"grpc\",grpc_response_status=\"0\""), 1.0)?;
    let good = "sum(rate(istio_requests_total{INSTANCE,reporter=\"destination\",response_code!~\"5.*\"}[WINDOW])) / \
                sum(rate(istio_requests_total{INSTANCE,reporter=\"destination\"}[WINDOW]))";
    let all = of(OF_FRONT + OF_EDGE);
    back.equals(prometheus, good, (all - 3.0) / all)?;
    // Who asks the back, and how it ends; what the front asks.
    let by = "round(sum(increase(istio_requests_total{INSTANCE,reporter=\"destination\",destination_workload=\"back\"}[WINDOW])) \
              by (source_workload, source_workload_namespace, response_code))";
    let incoming = back.ask(prometheus, by)?;
    let wanted = [
        ("front", "shop", "200", 11.0),
        ("front", "shop", "404", 2.0),
        ("front", "shop", "503", 3.0),
        ("edge", "edge", "200", 5.0),
    ];
    let is_active = |(_, value): &&(Labels, f64)| *value != 0.0;
    let seen: BTreeMap<_, _> = incoming
        .iter()
        .filter(is_active)
        .map(|(labels, value)| {
            let of = |name: &str| labels.get(name).cloned().unwrap_or_default();
            ((of("source_workload"), of("source_workload_namespace"), of("response_code")), *value)
        })
        .collect();
    let wanted: BTreeMap<_, _> = wanted
        .into_iter()
        .map(|(workload, namespace, code, value)| ((workload.into(), namespace.into(), code.into()), value))
        .collect();
    ensure!(seen == wanted, "incoming: {seen:?}");
    let by = "round(sum(increase(istio_requests_total{INSTANCE,reporter=\"source\",source_workload=\"front\"}[WINDOW])) \
              by (destination_service))";
    let outgoing = front.ask(prometheus, by)?;
    let active: Vec<_> = outgoing.iter().filter(is_active).collect();
    ensure!(
        active.len() == 1
            && active[0].0["destination_service"] == super::BACK_SERVICE.0
            && (active[0].1 - of(OF_FRONT)).abs() < 0.5,
        "outgoing: {outgoing:?}"
    );
    Ok(())
}

/// Quantiles are those that the buckets say.
fn latencies(prometheus: &Prometheus, back: &Window) -> anyhow::Result<()> {
    const BUCKETS: &str = "sum(increase(istio_request_duration_milliseconds_bucket{INSTANCE,reporter=\"destination\"}[WINDOW])) by (le)";
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (labels, value) in back.ask(prometheus, BUCKETS)? {
        let limit = labels.get("le").context("le")?;
        buckets.push((if limit == "+Inf" { f64::INFINITY } else { limit.parse()? }, value));
    }
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let limits: Vec<f64> = buckets.iter().map(|(limit, _)| *limit).collect();
    let of_envoy = [0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0];
    ensure!(limits.starts_with(&of_envoy) && limits.last() == Some(&f64::INFINITY), "{limits:?}");
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    ensure!((total - f64::from(OF_FRONT + OF_EDGE)).abs() < 0.1, "{total} in all buckets");
    let mut last = 0.0;
    for quantile in [0.5, 0.9, 0.99] {
        let query = format!("histogram_quantile({quantile}, {BUCKETS})");
        let found = back.ask(prometheus, &query)?;
        ensure!(found.len() == 1, "{query}: {found:?}");
        let wanted = linear(&buckets, quantile);
        ensure!((found[0].1 - wanted).abs() <= wanted / 1000.0, "{query}: {} not {wanted}", found[0].1);
        ensure!(found[0].1 >= last && found[0].1 > 0.0, "{query}: {}", found[0].1);
        last = found[0].1;
    }
    Ok(())
}

/// A quantile by Prometheus' rule: linear within its bucket.
fn linear(buckets: &[(f64, f64)], quantile: f64) -> f64 {
    let rank = quantile * buckets.last().map_or(0.0, |(_, count)| *count);
    let mut below = (0.0, 0.0);
    for &(limit, count) in buckets {
        if count >= rank {
            return below.0 + (limit - below.0) * (rank - below.1) / (count - below.1);
        }
        below = (limit, count);
    }
    f64::NAN
}

/// Bytes of connections.
fn bytes(mesh: &Mesh, prometheus: &Prometheus, front: &Window, before: &Before) -> anyhow::Result<()> {
    let (_, before) = before.pods.iter().find(|(name, _)| *name == "front").context("front")?;
    let now = mesh.pod("front")?.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
    let added = istio_tests::telemetry::scrape::added(before, &now);
    for metric in [super::SENT, super::RECEIVED] {
        let wanted: f64 = added.iter().filter(|((name, _), _)| name == metric).map(|(_, value)| value).sum();
        let query = format!(
            "sum(increase({metric}{{INSTANCE,reporter=\"source\",destination_service_name=\"back\"}}[WINDOW]))"
        );
        front.equals(prometheus, &query, wanted)?;
    }
    front.equals(prometheus, "sum(increase(istio_tcp_received_bytes_total{INSTANCE}[WINDOW]))", 2.0 * 6.0)?;
    front.equals(prometheus, &format!("sum(increase({CLOSED}{{INSTANCE}}[WINDOW]))"), 2.0)
}

/// What is stored is what the proxies show: every number.
fn sums(mesh: &Mesh, prometheus: &Prometheus) -> anyhow::Result<()> {
    for pod in &mesh.pods {
        let page = pod.istio_metrics(names::port::AGENT_STATUS)?;
        let stored =
            prometheus.query(&format!("{{__name__=~\"istio_.*_total\",pod=\"{}\"}}", pod.workload.name))?;
        let stored: BTreeMap<(String, Labels), f64> = stored
            .into_iter()
            .map(|(mut labels, value)| {
                let name = labels.remove("__name__").unwrap_or_default();
                labels.retain(|name, _| !["instance", "job", "pod", "namespace"].contains(&name.as_str()));
                ((name, labels), value)
            })
            .collect();
        // What agents count of themselves goes on by itself.
        let is_still = |name: &str| name.ends_with("_total") && !name.starts_with("istio_agent_");
        for ((name, labels), value) in page.iter().filter(|((name, _), _)| is_still(name)) {
            // Prometheus leaves out what is empty.
            let labels: Labels = labels
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect();
            let found = stored.get(&(name.clone(), labels.clone()));
            ensure!(
                found == Some(value),
                "{}: {name} {labels:?} is {value}, stored {found:?}",
                pod.workload.name
            );
        }
    }
    Ok(())
}

/// The back's application answers as OpenMetrics, so the whole page of its pod is that: what
/// the questions above were answered from. Its number has an example and a unit, which
/// Prometheus takes from nothing else.
fn open_metrics(mesh: &Mesh, prometheus: &Prometheus) -> anyhow::Result<()> {
    let back = mesh.pod("back")?;
    let instance = format!("{}:{}", back.workload.address, names::port::AGENT_STATUS);
    let failure = prometheus.failure(&instance)?;
    ensure!(failure.is_empty(), "{failure}");
    ensure!(prometheus.number(&format!("up{{instance=\"{instance}\"}}"), None)? > 0.0, "not up");
    let own = format!("echo_waited_seconds_total{{instance=\"{instance}\",format=\"open\"}}");
    ensure!((prometheus.number(&own, None)? - 1.5).abs() < 1e-9);
    ensure!(prometheus.metadata("echo_waited_seconds")? == ["counter", "seconds"]);
    ensure!(prometheus.metadata("istio_requests_total")? == ["counter", ""]);
    ensure!(!prometheus.output().contains("ppend failed"), "{}", prometheus.output());
    // What it was given is what is counted.
    let total = format!("sum(istio_requests_total{{instance=\"{instance}\"}})");
    let page = back.istio_metrics(names::port::ENVOY_PROMETHEUS)?;
    let counted: f64 =
        page.iter().filter(|((name, _), _)| name == super::REQUESTS).map(|(_, value)| value).sum();
    ensure!((prometheus.number(&total, None)? - counted).abs() < 0.5, "{total} is not {counted}");
    // The page itself, asked for as Prometheus does.
    let ask = |accept: &str| {
        let ask = Ask::get((Ipv4Addr::LOCALHOST, names::port::AGENT_STATUS), "pod", "/stats/prometheus");
        ask.header("accept", accept).from(&back.network)
    };
    let open = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, kind, has_end) in
        [(open, "application/openmetrics-text", true), ("text/plain;version=0.0.4", "text/plain", false)]
    {
        let answer = ask(accept)?;
        let content_type = answer.headers.get("content-type").context("content-type")?.to_str()?;
        ensure!(content_type.starts_with(kind), "{accept}: {content_type}");
        let ends = answer.body.lines().filter(|line| line.starts_with("# EOF")).count();
        ensure!(ends == usize::from(has_end), "{accept}: {ends} ends");
        ensure!(answer.body.ends_with("# EOF\n") == has_end, "{accept}");
        ensure!(answer.body.contains("\nistio_requests_total{"), "{accept}");
    }
    Ok(())
}

/// Every query of our dashboards is one, and finds what this traffic has made.
fn dashboards(prometheus: &Prometheus) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dashboards");
    let values = BTreeMap::from([
        ("__rate_interval", "2m"),
        ("__range", "10m"),
        ("reporter", "destination"),
        ("service", "back.shop.svc.cluster.local"),
        ("namespace", "shop"),
        ("workload", "back|front"),
        ("pod", "front|back|edge"),
    ]);
    let mut silent = BTreeSet::new();
    let queries = dashboard::read(&folder)?;
    for query in &queries {
        let text = query.with(&values)?;
        let at = || format!("{}: {}: {text}", query.dashboard, query.panel);
        let found = prometheus.query(&text).with_context(at)?;
        if found.is_empty() {
            silent.insert((query.dashboard.as_str(), query.panel.as_str()));
        }
    }
    let wanted: BTreeSet<_> = SILENT.iter().copied().collect();
    ensure!(silent == wanted, "no data in panels: {silent:?}, expected: {wanted:?}");
    Ok(())
}
