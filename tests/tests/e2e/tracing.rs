//! Spans and access logs arrive at a real collector.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, ensure};
use istio_tests::call::Scheme;
use istio_tests::mesh::Mesh;
use istio_tests::telemetry::als::{Entry, Server};
use istio_tests::telemetry::collector::{Collector, Span, attribute};
use istio_tests::telemetry::datadog;
use serde_json::Value;

use super::Case;
use super::telemetry::world::{call, folder, repeat, start_two};

pub(crate) const CASES: &[Case] = &[
    ("spans_of_a_request_are_one_trace_at_a_collector", open_telemetry),
    ("spans_go_by_http_and_as_zipkin_has_them", by_http),
    ("spans_go_to_an_agent_of_datadog", by_datadog),
    ("access_logs_go_to_services", log_services),
    ("a_file_of_json_has_the_requests_that_an_expression_chooses", files),
];

const FILE: &str = "telemetry.yaml";

/// Who takes spans and logs, outside of the mesh. No connection serves two requests: one
/// from before a change is treated as it was then.
const OBJECTS: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: back, namespace: shop}
spec: {host: back, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
---
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: shop}
spec:
  clusterIP: 10.96.3.20
  ports:
  - {name: grpc-otlp, port: 4317}
  - {name: http-otlp, port: 4318}
  - {name: http-zipkin, port: 9411}
  - {name: http-datadog, port: 8126}
  - {name: grpc-logs, port: 9001}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: collector-1, namespace: shop, labels: {kubernetes.io/service-name: collector}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.100]}]
ports: [{name: grpc-otlp, port: 4317}, {name: http-otlp, port: 4318}, {name: http-zipkin, port: 9411}, {name: http-datadog, port: 8126}, {name: grpc-logs, port: 9001}]
";

const SETTINGS: &str = "extensionProviders:
- name: otel
  opentelemetry: {service: collector.shop.svc.cluster.local, port: 4317}
- name: otel-http
  opentelemetry: {service: collector.shop.svc.cluster.local, port: 4318, http: {path: /v1/traces, timeout: 5s}}
- name: zipkin
  zipkin: {service: collector.shop.svc.cluster.local, port: 9411}
- name: datadog
  datadog: {service: collector.shop.svc.cluster.local, port: 8126}
- name: requests
  envoyHttpAls: {service: collector.shop.svc.cluster.local, port: 9001, logName: of-requests}
- name: connections
  envoyTcpAls: {service: collector.shop.svc.cluster.local, port: 9001, logName: of-connections}
- name: otel-logs
  envoyOtelAls:
    service: collector.shop.svc.cluster.local
    port: 4317
    logFormat: {text: '%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%', labels: {code: '%RESPONSE_CODE%', host: '%REQ(:AUTHORITY)%'}}
- name: json
  envoyFileAccessLog:
    path: /dev/stdout
    logFormat: {labels: {kind: chosen, path: '%REQ(:PATH)%', code: '%RESPONSE_CODE%', flags: '%RESPONSE_FLAGS%'}}
";

pub(crate) fn start() -> anyhow::Result<Mesh> {
    start_two("istio-e2e-spans", OBJECTS, SETTINGS)
}

/// Says what holds for both workloads, and waits until their Envoys have it, which is known
/// by a word in their configuration.
fn apply(mesh: &Mesh, spec: &str, word: &str) -> anyhow::Result<()> {
    let text = format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: all, namespace: shop}}\nspec: {spec}\n"
    );
    mesh.write(FILE, &text)?;
    for pod in &mesh.pods {
        Mesh::wait(word, || {
            let dump = pod.admin("/config_dump?resource=dynamic_listeners")?;
            ensure!(dump.contains(word), "{} has no {word}", pod.workload.name);
            Ok(())
        })?;
    }
    mesh.wait_synced()
}

/// Removes what was said.
fn end(mesh: &Mesh) -> anyhow::Result<()> {
    fs::remove_file(mesh.objects.join(FILE))?;
    mesh.wait_synced()
}

/// Spans of a provider, that many of a hundred, with a tag.
fn traced(provider: &str, percent: u32, word: &str) -> String {
    format!(
        "{{tracing: [{{providers: [{{name: {provider}}}], randomSamplingPercentage: {percent}, \
         customTags: {{round: {{literal: {{value: {word}}}}}, asked: {{header: {{name: x-asked, defaultValue: nobody}}}}}}}}]}}"
    )
}

/// One request of the front.
fn ask(mesh: &Mesh, path: &str) -> anyhow::Result<()> {
    let mut request = call(Scheme::Http, 80, path);
    request.headers = vec![("x-asked".into(), "me".into())];
    repeat(&request, &mesh.pod("front")?.network, 1, 200).map(drop)
}

/// One request of the front, and its spans: that of the caller and that of the called.
fn trace(mesh: &Mesh, collector: &Collector, path: &str) -> anyhow::Result<[Span; 2]> {
    ask(mesh, path)?;
    let spans = Mesh::wait("the spans", || collector.trace(path, 2))?;
    ensure!(spans.len() == 2, "{spans:?}");
    let of = |service: &str| spans.iter().find(|span| span.service == service).cloned();
    let (client, server) = of("front.shop").zip(of("back.shop")).with_context(|| format!("{spans:?}"))?;
    Ok([client, server])
}

/// Asks until the spans are as they should be: a connection that is kept from before is of the
/// former settings, until Envoy ends it.
fn wait_one(mesh: &Mesh, collector: &Collector, path: &str, word: &str) -> anyhow::Result<()> {
    let mut attempt = 0;
    Mesh::wait("spans of the new settings", || {
        attempt += 1;
        is_one(&trace(mesh, collector, &format!("{path}/{attempt}"))?, word)
    })
}

/// Whether two spans belong together as they should.
fn is_one(spans: &[Span; 2], word: &str) -> anyhow::Result<()> {
    let [client, server] = spans;
    let id = client.text("traceId");
    ensure!(id.len() == 32 && server.text("traceId") == id, "{spans:?}");
    ensure!(client.text("parentSpanId").is_empty(), "{client:?}");
    ensure!(server.text("parentSpanId") == client.text("spanId"), "{spans:?}");
    // OpenTelemetry's numbers for who serves and who calls.
    ensure!(client.value["kind"] == 3 && server.value["kind"] == 2, "{spans:?}");
    for span in spans {
        let tag = |name| span.tag(name).unwrap_or_default();
        ensure!(tag("round") == word && tag("asked") == "me", "{span:?}");
        ensure!(tag("http.status_code") == "200", "{span:?}");
        ensure!(tag("istio.namespace") == "shop" && tag("istio.canonical_revision") == "v1", "{span:?}");
    }
    ensure!(client.tag("istio.canonical_service").as_deref() == Some("front"), "{client:?}");
    ensure!(server.tag("istio.canonical_service").as_deref() == Some("back"), "{server:?}");
    ensure!(client.text("name").starts_with("back.shop.svc.cluster.local:80/"), "{client:?}");
    Ok(())
}

fn open_telemetry(mesh: &mut Mesh) -> anyhow::Result<()> {
    let collector = Collector::start(&mesh.client, &folder(mesh, "otel"))?;
    apply(mesh, &traced("otel", 100, "all"), "\"all\"")?;
    wait_one(mesh, &collector, "/otel/all", "all")?;
    // Of none, none comes: spans go in their order, so what comes later says so.
    apply(mesh, &traced("otel", 0, "none"), "\"none\"")?;
    repeat(&call(Scheme::Http, 80, "/otel/none"), &mesh.pod("front")?.network, 20, 200)?;
    apply(mesh, &traced("otel", 100, "again"), "\"again\"")?;
    wait_one(mesh, &collector, "/otel/again", "again")?;
    ensure!(collector.trace("/otel/none", 0)?.is_empty(), "{:?}", collector.trace("/otel/none", 0));
    end(mesh)
}

fn by_http(mesh: &mut Mesh) -> anyhow::Result<()> {
    let collector = Collector::start(&mesh.client, &folder(mesh, "zipkin"))?;
    for provider in ["zipkin", "otel-http"] {
        apply(mesh, &traced(provider, 100, provider), &format!("\"{provider}\""))?;
        wait_one(mesh, &collector, &format!("/by/{provider}"), provider)?;
    }
    end(mesh)
}

fn by_datadog(mesh: &mut Mesh) -> anyhow::Result<()> {
    let agent = datadog::Agent::start(&mesh.client, "collector.shop.svc.cluster.local");
    // Of a request: the span of who called, and that of who was called.
    let trace = |path: &str| -> anyhow::Result<[datadog::Span; 2]> {
        ask(mesh, path)?;
        let spans = Mesh::wait("the spans", || agent.trace(path, 2))?;
        let of = |service: &str| spans.iter().find(|span| span.service == service).cloned();
        ensure!(spans.len() == 2, "{spans:?}");
        let (client, server) = of("front.shop").zip(of("back.shop")).with_context(|| format!("{spans:?}"))?;
        Ok([client, server])
    };
    // Also of those that are not kept the agent is told.
    for (percent, is_kept) in [(100, true), (0, false)] {
        let word = format!("datadog-{percent}");
        apply(mesh, &traced("datadog", percent, &word), &format!("\"{word}\""))?;
        let mut attempt = 0;
        Mesh::wait("spans of the new settings", || {
            attempt += 1;
            let spans = trace(&format!("/{word}/{attempt}"))?;
            let [client, server] = &spans;
            ensure!(client.trace_id == server.trace_id && client.trace_id != 0, "{spans:?}");
            ensure!(client.parent_id == 0 && server.parent_id == client.span_id, "{spans:?}");
            ensure!(client.resource.starts_with("back.shop.svc.cluster.local:80/"), "{client:?}");
            ensure!(server.resource.starts_with("back.shop.svc.cluster.local:80/"), "{server:?}");
            for span in &spans {
                let tag = |name: &str| span.meta.get(name).map_or("", String::as_str);
                ensure!(span.name == "envoy.proxy" && span.error == 0, "{span:?}");
                ensure!(tag("round") == word && tag("asked") == "me", "{span:?}");
                ensure!(tag("http.status_code") == "200" && tag("istio.namespace") == "shop", "{span:?}");
                let priority = span.priority().with_context(|| format!("{span:?}"))?;
                ensure!((priority > 0.0) == is_kept, "{span:?}");
            }
            Ok(())
        })?;
    }
    end(mesh)
}

fn log_services(mesh: &mut Mesh) -> anyhow::Result<()> {
    let server = Server::start(&mesh.client);
    let collector = Collector::start(&mesh.client, &folder(mesh, "logs"))?;
    let spec = "{accessLogging: [{providers: [{name: requests}, {name: connections}, {name: otel-logs}]}]}";
    apply(mesh, spec, "of-connections")?;
    let front = &mesh.pod("front")?.network;
    repeat(&call(Scheme::Http, 80, "/logged"), front, 1, 200)?;
    repeat(&call(Scheme::Http, 80, "/status/404"), front, 1, 404)?;
    call(Scheme::Tcp, 9090, "").from(front)?;
    let request = |path: &str, status| Entry::Request {
        log: "of-requests".into(),
        host: "back:80".into(),
        path: path.into(),
        status,
    };
    // Both sides log each of them, at both loggers: one of requests knows nothing of what a
    // connection carries, one of connections counts requests as such.
    let connection =
        Entry::Request { log: "of-requests".into(), host: String::new(), path: String::new(), status: 0 };
    let wanted = [
        (request("/logged", 200), 2),
        (request("/status/404", 404), 2),
        (connection, 2),
        (Entry::Connection { log: "of-connections".into() }, 2 * 3),
    ];
    Mesh::wait("entries of the access log service", || {
        let entries = server.entries();
        for (entry, count) in &wanted {
            let seen = entries.iter().filter(|one| *one == entry).count();
            ensure!(seen == *count, "{seen} of {entry:?}: {entries:?}");
        }
        Ok(())
    })?;
    Mesh::wait("records at the collector", || {
        let records = collector.logs()?;
        for (line, code) in [("GET /logged 200", "200"), ("GET /status/404 404", "404")] {
            let is_it = |record: &&Value| {
                record["body"]["stringValue"].as_str().is_some_and(|body| body.trim() == line)
                    && attribute(&record["attributes"], "code").as_deref() == Some(code)
                    && attribute(&record["attributes"], "host").as_deref() == Some("back:80")
            };
            let seen = records.iter().filter(is_it).count();
            ensure!(seen == 2, "{seen} of {line}: {records:?}");
        }
        Ok(())
    })?;
    end(mesh)
}

fn files(mesh: &mut Mesh) -> anyhow::Result<()> {
    let spec = "{accessLogging: [{providers: [{name: json}], match: {mode: SERVER}, \
                filter: {expression: 'response.code >= 400 && request.headers[\"x-asked\"] == \"me\"'}}]}";
    apply(mesh, spec, "ExpressionFilter")?;
    let front = &mesh.pod("front")?.network;
    let mut asked = call(Scheme::Http, 80, "/status/404?chosen");
    repeat(&asked, front, 1, 404)?;
    asked.headers = vec![("x-asked".into(), "me".into())];
    for (path, status) in [("/fine?chosen", 200), ("/status/404?chosen", 404), ("/status/500?chosen", 500)] {
        asked.path = path.into();
        repeat(&asked, front, 1, status)?;
    }
    let lines = |pod: &str| -> anyhow::Result<Vec<Value>> {
        let output = mesh.pod(pod)?.output();
        let chosen = output.lines().filter(|line| line.contains("\"kind\":\"chosen\""));
        chosen.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    };
    Mesh::wait("lines", || {
        let lines = lines("back")?;
        let seen: BTreeSet<(&str, u64)> = lines
            .iter()
            .map(|line| {
                (line["path"].as_str().unwrap_or_default(), line["code"].as_u64().unwrap_or_default())
            })
            .collect();
        let wanted = BTreeSet::from([("/status/404?chosen", 404), ("/status/500?chosen", 500)]);
        ensure!(seen == wanted && lines.len() == 2, "{lines:?}");
        Ok(())
    })?;
    // Only the called one logs.
    ensure!(lines("front")?.is_empty(), "{:?}", lines("front"));
    end(mesh)
}
