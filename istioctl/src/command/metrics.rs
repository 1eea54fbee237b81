//! `experimental metrics`: rates and latencies of workloads, as Prometheus has them.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use http::Method;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::args::Global;
use crate::args::metrics::Metrics;
use crate::failure::Result;
use crate::proxies::admin::{CONNECT, exchange};
use crate::proxies::{Connection, Mesh, Proxy};
use crate::query::encoded;

/// Labels of the pods of Prometheus.
const PROMETHEUS: &str = "app.kubernetes.io/name=prometheus";
/// Port of Prometheus.
const PORT: u16 = 9090;
/// Narrowest column, and blanks before the widest cell.
const WIDTH: usize = 13;
const PADDING: usize = 2;

/// Where Prometheus is.
enum Place {
    Pod(Mesh, Proxy),
    Address { host: String, port: u16, prefix: String },
}

/// What is told of a workload.
#[derive(Debug, Default, PartialEq)]
struct Row {
    requests: f64,
    errors: f64,
    /// Of half, nine of ten and 99 of 100 requests, in milliseconds.
    latencies: [f64; 3],
}

/// An answer of Prometheus.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Data {
    result_type: String,
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// Shows a line of each workload.
///
/// # Errors
/// When there is no Prometheus, or it does not answer.
pub async fn run(args: &Metrics, global: &Global, out: &mut impl Write) -> Result {
    if args.workloads.is_empty() {
        return Err(anyhow!("metrics requires workload name; see istioctl x metrics --help").into());
    }
    let place = match &args.prometheus_url {
        Some(url) => address(url)?,
        None => pod(global).await?,
    };
    out.write_all(header().as_bytes())?;
    for workload in &args.workloads {
        let row = row(&place, workload, args.duration).await;
        let row = row.with_context(|| format!("could not build metrics for workload {workload:?}"))?;
        out.write_all(line(workload, &row).as_bytes())?;
    }
    Ok(())
}

async fn pod(global: &Global) -> anyhow::Result<Place> {
    // It lies beside the control plane.
    let global = Global { namespace: Some(global.istio_namespace.clone()), ..global.clone() };
    let mesh = Mesh::open(&global).await?;
    let found = mesh.selected(PROMETHEUS).await;
    let found = found.with_context(|| {
        format!(
            "no Prometheus pods found in the namespace {:?}; name another with --prometheus-url",
            global.istio_namespace
        )
    })?;
    let pod = found.into_iter().next().context("no Prometheus pods found")?;
    Ok(Place::Pod(mesh, pod))
}

fn address(url: &str) -> anyhow::Result<Place> {
    let what = || format!("--prometheus-url {url:?}: write http://HOST:PORT");
    let uri: http::Uri = url.parse().with_context(what)?;
    if uri.scheme_str() == Some("https") {
        bail!("--prometheus-url {url}: TLS is not spoken; forward its port and name http://localhost:PORT");
    }
    ensure!(uri.scheme_str() == Some("http"), "{}", what());
    let host = uri.host().with_context(what)?.trim_matches(['[', ']']).to_owned();
    let prefix = uri.path().trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Place::Address { host, port: uri.port_u16().unwrap_or(80), prefix })
}

async fn row(place: &Place, workload: &str, over: Duration) -> anyhow::Result<Row> {
    let queries = queries(workload, over);
    let mut values = [0.0; 5];
    for (value, query) in values.iter_mut().zip(&queries) {
        *value = ask(place, query).await?;
    }
    let [requests, errors, half, nine, most] = values;
    Ok(Row { requests, errors, latencies: [half, nine, most] })
}

/// Requests and errors a second, and three latencies.
fn queries(workload: &str, over: Duration) -> [String; 5] {
    let mut parts = workload.split('.');
    let mut part = || escaped(parts.next().unwrap_or_default());
    let (name, namespace) = (part(), part());
    let which = format!(
        "destination_workload=~\"{name}.*\", destination_workload_namespace=~\"{namespace}.*\",reporter=\"destination\""
    );
    let over = time(over);
    let rate = |more: &str| format!("sum(rate(istio_requests_total{{{which}{more}}}[{over}]))");
    let latency = |part: &str| {
        format!(
            "histogram_quantile({part}, sum(rate(istio_request_duration_milliseconds_bucket{{{which}}}[{over}])) by (le))"
        )
    };
    [
        rate(""),
        rate(",response_code=~\"[45][0-9]{2}\""),
        latency("0.500000"),
        latency("0.900000"),
        latency("0.990000"),
    ]
}

/// A name inside of quotes.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The first value that answers a query; 0 if there is none.
async fn ask(place: &Place, query: &str) -> anyhow::Result<f64> {
    let (connection, prefix): (Connection, &str) = match place {
        Place::Pod(mesh, pod) => (mesh.connect(pod, PORT).await?, ""),
        Place::Address { host, port, prefix } => {
            let connect = tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await;
            let stream = connect.context("no connection in time").and_then(|made| Ok(made?));
            (Box::new(stream.with_context(|| format!("Prometheus at {host}:{port}"))?), prefix)
        }
    };
    let text =
        exchange(connection, Method::GET, &format!("{prefix}api/v1/query?query={}", encoded(query))).await;
    value(&text.context("Prometheus")?)
}

fn value(text: &str) -> anyhow::Result<f64> {
    let answer: Answer = serde_json::from_str(text).context("what answers is no Prometheus")?;
    ensure!(
        answer.data.result_type == "vector",
        "bad metric value type returned for query: {}",
        answer.data.result_type
    );
    let Some(sample) = answer.data.result.first() else { return Ok(0.0) };
    sample.value.1.parse().with_context(|| format!("value {:?}", sample.value.1))
}

fn header() -> String {
    cells(
        ["WORKLOAD", "TOTAL RPS", "ERROR RPS", "P50 LATENCY", "P90 LATENCY", "P99 LATENCY"]
            .map(str::to_owned),
    )
}

fn line(workload: &str, row: &Row) -> String {
    let [half, nine, most] = row.latencies.map(latency);
    cells([
        workload.to_owned(),
        format!("{:.3}", row.requests),
        format!("{:.3}", row.errors),
        half,
        nine,
        most,
    ])
}

/// A line by itself: each cell is as wide as its own text wants.
fn cells(cells: [String; 6]) -> String {
    let mut line = String::new();
    for (index, cell) in cells.into_iter().enumerate() {
        let cell = if index == 0 { format!("{cell:>40}") } else { cell };
        let width = WIDTH.max(cell.chars().count() + PADDING);
        line += &format!("{cell:>width$}");
    }
    line + "\n"
}

/// Whole milliseconds; no number is no time.
fn latency(milliseconds: f64) -> String {
    let milliseconds = if milliseconds.is_finite() { milliseconds.max(0.0).trunc() / 1000.0 } else { 0.0 };
    time(Duration::try_from_secs_f64(milliseconds).unwrap_or_default())
}

/// A time as Go and Prometheus write it: `1m0s`, `250ms`.
fn time(time: Duration) -> String {
    let milliseconds = time.as_millis();
    if milliseconds < 1000 {
        return if milliseconds == 0 { "0s".into() } else { format!("{milliseconds}ms") };
    }
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    let (seconds, rest) = (milliseconds / 1000 % 60, milliseconds % 1000);
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if hours > 0 || minutes > 0 {
        text += &format!("{minutes}m");
    }
    text += &seconds.to_string();
    if rest > 0 {
        text += format!(".{rest:03}").trim_end_matches('0');
    }
    text + "s"
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_line_is_laid_out_as_in_istio() {
        let row = Row { requests: 1.5, errors: 0.0, latencies: [3.7, 65.0, 1234.5] };
        let wanted = "        1.500        0.000          3ms         65ms       1.234s\n";
        assert_eq!(line("productpage-v1", &row), format!("{:>42}{wanted}", "productpage-v1"));
        assert_eq!(
            header(),
            "                                  WORKLOAD    TOTAL RPS    ERROR RPS  P50 LATENCY  P90 LATENCY  P99 LATENCY\n"
        );
    }

    #[test]
    fn times_are_written_as_in_go() {
        for (milliseconds, wanted) in [
            (0, "0s"),
            (5, "5ms"),
            (60_000, "1m0s"),
            (90_500, "1m30.5s"),
            (3_600_000, "1h0m0s"),
            (1001, "1.001s"),
        ] {
            assert_eq!(time(Duration::from_millis(milliseconds)), wanted);
        }
        assert_eq!(
            (latency(f64::NAN), latency(-1.0), latency(2.9)),
            ("0s".into(), "0s".into(), "2ms".into())
        );
    }

    #[test]
    fn queries_are_those_of_istio_and_names_stay_inside_of_their_quotes() {
        let [requests, errors, half, ..] = queries("web-v1.shop", Duration::from_secs(60));
        let which = "destination_workload=~\"web-v1.*\", destination_workload_namespace=~\"shop.*\",reporter=\"destination\"";
        assert_eq!(requests, format!("sum(rate(istio_requests_total{{{which}}}[1m0s]))"));
        assert!(errors.contains("response_code=~\"[45][0-9]{2}\""), "{errors}");
        assert!(half.starts_with(
            "histogram_quantile(0.500000, sum(rate(istio_request_duration_milliseconds_bucket{"
        ));
        assert!(queries("a\"}", Duration::from_secs(1))[0].contains("=~\"a\\\"}.*\""));
    }

    #[test]
    fn an_address_is_one_of_http() {
        assert!(
            matches!(address("http://[::1]:9090/a/").unwrap(), Place::Address { host, port: 9090, prefix } if host == "::1" && prefix == "a/")
        );
        for wrong in ["https://a", "a:9090", "ftp://a", ""] {
            let told = address(wrong).err().map(|error| format!("{error:#}")).unwrap();
            assert!(told.contains("--prometheus-url"), "{told}");
        }
    }

    #[tokio::test]
    async fn prometheus_is_asked_for_each_value() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/prom", listener.local_addr().unwrap());
        let server = runtime::tasks::Tasks::new().spawn("prometheus", async move {
            let mut asked = Vec::new();
            for number in 0..5 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4096];
                let length = stream.read(&mut head).await.unwrap();
                asked.push(String::from_utf8_lossy(&head[..length]).lines().next().unwrap().to_owned());
                let result = if number == 1 {
                    "[]".into()
                } else {
                    format!("[{{\"metric\":{{}},\"value\":[1,\"{number}.5\"]}}]")
                };
                let body = format!(
                    "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":{result}}}}}"
                );
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let row = row(&address(&url).unwrap(), "web.shop", Duration::from_secs(60)).await.unwrap();
        assert_eq!(row, Row { requests: 0.5, errors: 0.0, latencies: [2.5, 3.5, 4.5] });
        let asked = server.await.unwrap().unwrap();
        assert!(
            asked[0].starts_with("GET /prom/api/v1/query?query=sum%28rate%28istio_requests_total%7B"),
            "{asked:?}"
        );
        assert!(value("{}").is_err() && value("<html>").is_err());
    }
}
