//! Access logs, spans, patches and extensions.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::app::PORT;
use istio_tests::client::Ask;
use istio_tests::load::Load;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use serde_json::Value;

use super::{Case, more, none_failed};

pub(crate) const CASES: &[Case] = &[
    ("an_access_log_has_a_line_for_each_request_until_it_is_disabled", access_log),
    ("access_logs_are_json_or_text_of_any_form_and_spans_arrive", providers),
    ("a_patch_adds_filters_and_changes_clusters", patches),
    ("a_patch_that_does_not_fit_harms_no_request", bad_patch),
    ("a_script_and_a_module_of_users_see_requests", modules),
];

const FILE: &str = "extensions.yaml";
const FRONT: &str = "front";

/// One workload; the other service is only called.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: front, namespace: default}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: default}
spec: {clusterIP: 10.96.1.1, selector: {app: front}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: default}
spec: {clusterIP: 10.96.1.2, selector: {app: back}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: default, labels: {app: front, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: front, containers: [{name: app}]}
status: {phase: Running, podIP: 10.77.0.10}
";

/// A mesh of that workload, with providers.
pub(crate) fn start() -> anyhow::Result<Mesh> {
    Mesh::start_with_settings("istio-e2e-more", OBJECTS, MESH)
}

fn request(mesh: &Mesh, query: &str) -> anyhow::Result<Ask> {
    let address = mesh.pod(FRONT)?.workload.address;
    Ok(Ask::get((address, PORT), "front:9080", &format!("/headers{query}")))
}

/// Load that is well under way.
fn load(mesh: &Mesh) -> anyhow::Result<Load> {
    let load = Load::start(&mesh.client, request(mesh, "")?, 4);
    more(&load, 50)?;
    Ok(load)
}

/// Removes a file of the objects.
fn remove(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
    fs::remove_file(mesh.objects.join(name)).with_context(|| name.to_owned())?;
    mesh.wait_synced()
}

fn telemetry(spec: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: logs, namespace: default}}\nspec: {spec}\n"
    )
}

fn ask(mesh: &Mesh, query: &str) -> anyhow::Result<()> {
    let answer = request(mesh, &format!("?{query}"))?.from(&mesh.client)?;
    ensure!(answer.status.is_success(), "{}", answer.status);
    Ok(())
}

/// Asks until a line of the proxy's log has a word, and returns the line.
fn logged(mesh: &Mesh, query: &str, word: &str) -> anyhow::Result<String> {
    Mesh::wait(&format!("{word:?} in the log"), || {
        ask(mesh, query)?;
        let output = mesh.pod(FRONT)?.output();
        let line = output.lines().find(|line| line.contains(word) && line.contains(query));
        Ok(line.context("no such line")?.to_owned())
    })
}

/// Waits until a word is part of Envoy's configuration, or is not.
fn logger(mesh: &Mesh, word: &str, is_there: bool) -> anyhow::Result<()> {
    Mesh::wait(word, || {
        let dump = mesh.pod(FRONT)?.config_dump()?.to_string();
        ensure!(dump.contains(word) == is_there, "{word}");
        Ok(())
    })
}

fn access_log(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.write(FILE, &telemetry("{accessLogging: [{providers: [{name: envoy}], match: {mode: SERVER}}]}"))?;
    let line = logged(mesh, "log=first", "\"GET /headers?log=first HTTP/1.1\" 200")?;
    ensure!(line.contains("inbound|9080||") && line.contains("via_upstream"), "{line}");
    mesh.write(FILE, &telemetry("{accessLogging: [{providers: [{name: envoy}], disabled: true}]}"))?;
    logger(mesh, "UPSTREAM_TRANSPORT_FAILURE_REASON", false)?;
    ask(mesh, "log=second")?;
    // Lines come in their order: when the third is there, the second would be.
    mesh.write(
        FILE,
        &telemetry("{accessLogging: [{providers: [{name: envoy}], filter: {expression: 'request.path.contains(\"third\")'}}]}"),
    )?;
    logger(mesh, "ExpressionFilter", true)?;
    logged(mesh, "log=third", "\"GET /headers?log=third HTTP/1.1\"")?;
    ask(mesh, "log=fourth")?;
    let output = mesh.pod(FRONT)?.output();
    ensure!(!output.contains("log=second") && !output.contains("log=fourth"), "{output}");
    remove(mesh, FILE)
}

const MESH: &str = "
extensionProviders:
- name: fields
  envoyFileAccessLog:
    path: /dev/stdout
    logFormat: {labels: {kind: fields, path: '%REQ(:PATH)%', code: '%RESPONSE_CODE%', bare: '%REQ_WITHOUT_QUERY(:PATH)%'}}
- name: words
  envoyFileAccessLog: {path: /dev/stdout, logFormat: {text: 'words %REQ(:METHOD)% %REQ(:PATH)% end'}}
- name: spans
  zipkin: {service: spans.default.svc.cluster.local, port: 9411}
";
/// A collector outside of the mesh.
const SPANS: &str = "
apiVersion: v1
kind: Service
metadata: {name: spans, namespace: default}
spec: {clusterIP: 10.96.9.9, ports: [{name: http, port: 9411}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: spans-1, namespace: default, labels: {kubernetes.io/service-name: spans}}
addressType: IPv4
endpoints: [{addresses: [10.77.0.100]}]
ports: [{name: http, port: 9411}]
---
";

fn providers(mesh: &mut Mesh) -> anyhow::Result<()> {
    let listener = netns::within(&mesh.client, || async { Ok(TcpListener::bind((CLIENT, 9411))?) })?;
    listener.set_nonblocking(true)?;
    let spec = "{accessLogging: [{providers: [{name: fields}, {name: words}]}],
  tracing: [{providers: [{name: spans}], randomSamplingPercentage: 100, customTags: {origin: {literal: {value: here}}}}]}";
    mesh.write(FILE, &format!("{SPANS}{}", telemetry(spec)))?;
    let line = logged(mesh, "log=json", "\"kind\":\"fields\"")?;
    let fields: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(fields["code"] == 200 && fields["bare"] == "/headers", "{line}");
    logged(mesh, "log=text", "words GET /headers?log=text end")?;
    Mesh::wait("a span", || {
        ask(mesh, "log=span")?;
        let report = report(&listener)?;
        let list = report.find("\r\n[{").zip(report.rfind("}]")).context("a request without spans")?;
        let spans: Value =
            serde_json::from_str(&report[list.0 + 2..list.1 + 2]).with_context(|| report.clone())?;
        let all = spans.as_array().context("spans")?;
        let tagged =
            all.iter().find(|span| span["tags"]["origin"] == "here").context("a span with the tag")?;
        ensure!(tagged["traceId"].as_str().is_some_and(|id| id.len() == 32), "{tagged}");
        ensure!(tagged["tags"]["istio.canonical_service"].is_string(), "{tagged}");
        Ok(())
    })?;
    remove(mesh, FILE)
}

/// A request that came, in full; it is answered.
fn report(listener: &TcpListener) -> anyhow::Result<String> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    // Its body comes in chunks.
    while !text.ends_with("\r\n0\r\n\r\n") {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "it ended early: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    Ok(text)
}

fn patches_of(patches: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: patches, namespace: default}}\nspec:\n  configPatches:\n{patches}"
    )
}

fn header(mesh: &Mesh, name: &str) -> anyhow::Result<Option<String>> {
    let answer = request(mesh, "")?.from(&mesh.client)?;
    ensure!(answer.status.is_success(), "{}", answer.status);
    Ok(answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned))
}

/// Removes the file, and waits until nothing adds a header any more.
fn gone(mesh: &Mesh, name: &str) -> anyhow::Result<()> {
    remove(mesh, FILE)?;
    Mesh::wait("no such header", || {
        ensure!(header(mesh, name)?.is_none(), "there is {name}");
        Ok(())
    })
}

fn patches(mesh: &mut Mesh) -> anyhow::Result<()> {
    const PATCHES: &str = r#"  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: lua
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: "function envoy_on_response(handle) handle:headers():add('x-lua', 'seen') end"}
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: ADD
      value:
        name: mutation
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
          mutations: {response_mutations: [{append: {header: {key: x-mutation, value: seen}}}]}
  - applyTo: NETWORK_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: MERGE
      value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, server_name: patched}}
  - applyTo: CLUSTER
    match: {context: SIDECAR_OUTBOUND, cluster: {service: back.default.svc.cluster.local}}
    patch: {operation: MERGE, value: {connect_timeout: 0.250s}}
"#;
    mesh.write(FILE, &patches_of(PATCHES))?;
    Mesh::wait("headers of the patches", || {
        for (name, wanted) in [("x-lua", "seen"), ("x-mutation", "seen"), ("server", "patched")] {
            let seen = header(mesh, name)?;
            ensure!(seen.as_deref() == Some(wanted), "{name}: {seen:?}");
        }
        Ok(())
    })?;
    mesh.wait_synced()?;
    let clusters = mesh.pod(FRONT)?.config_dump()?.to_string();
    let (_, rest) = clusters
        .split_once("\"name\":\"outbound|9080||back.default.svc.cluster.local\"")
        .context("the cluster of back")?;
    let before = clusters.len() - rest.len();
    let around = &clusters[before.saturating_sub(2000)..(before + 2000).min(clusters.len())];
    ensure!(around.contains("\"connect_timeout\":\"0.250s\""), "{around}");
    gone(mesh, "x-lua")
}

fn bad_patch(mesh: &mut Mesh) -> anyhow::Result<()> {
    let load = load(mesh)?;
    // One whose type nobody knows: the object is refused, what was in force stays.
    let unknown = "  - applyTo: HTTP_FILTER
    patch: {operation: INSERT_FIRST, value: {name: x, typed_config: {'@type': type.googleapis.com/stats.PluginConfig}}}\n";
    mesh.write(FILE, &patches_of(unknown))?;
    Mesh::wait("the problem", || {
        let problems = mesh.istiod.page("/debug/sourcez")?["problems"].to_string();
        ensure!(problems.contains("stats.PluginConfig"), "{problems}");
        Ok(())
    })?;
    more(&load, 50)?;
    // One that fits nothing, one that lacks its type, and one that is right.
    let mixed = "  - applyTo: HTTP_FILTER
    patch: {operation: INSERT_FIRST, value: {name: untyped}}
  - applyTo: NETWORK_FILTER
    match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: x}}}
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: ADD
      value: {name: m, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-right, value: seen}}}]}}}\n";
    mesh.write(FILE, &patches_of(mixed))?;
    Mesh::wait("the right one", || {
        ensure!(header(mesh, "x-right")?.is_some(), "no header");
        Ok(())
    })?;
    mesh.wait_synced()?;
    more(&load, 50)?;
    remove(mesh, FILE)?;
    none_failed(load)
}

/// A module that adds a header to responses, by the ABI of proxy-wasm.
fn wasm() -> Vec<u8> {
    fn section(id: u8, items: &[&[u8]]) -> Vec<u8> {
        let body: Vec<u8> = std::iter::once(items.len() as u8).chain(items.concat()).collect();
        [&[id, body.len() as u8][..], &body].concat()
    }
    fn name(text: &str) -> Vec<u8> {
        [&[text.len() as u8], text.as_bytes()].concat()
    }
    const I32: u8 = 0x7f;
    let import = [name("env"), name("proxy_add_header_map_value"), vec![0, 2]].concat();
    let export = |text: &str, kind: u8, index: u8| [name(text), vec![kind, index]].concat();
    // Adds, to the headers of a response (2), what the memory holds at 0 and at 8.
    let add = [0, 0x41, 2, 0x41, 0, 0x41, 6, 0x41, 8, 0x41, 3, 0x10, 0, 0x1a, 0x41, 0, 0x0b];
    let body = |code: &[u8]| [&[code.len() as u8], code].concat();
    let data = [&[0, 0x41, 0, 0x0b, 11][..], b"x-wasm\0\0yes"].concat();
    let allocate = [0, 0x41, 0x80, 0x08, 0x0b];
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(
            1,
            &[
                &[0x60, 0, 0],
                &[0x60, 1, I32, 1, I32],
                &[0x60, 5, I32, I32, I32, I32, I32, 1, I32],
                &[0x60, 3, I32, I32, I32, 1, I32],
            ],
        ),
        section(2, &[&import]),
        section(3, &[&[0], &[1], &[3]]),
        section(5, &[&[0, 1]]),
        section(
            7,
            &[
                &export("memory", 2, 0),
                &export("proxy_abi_version_0_2_1", 0, 1),
                &export("malloc", 0, 2),
                &export("proxy_on_response_headers", 0, 3),
            ],
        ),
        section(10, &[&body(&[0, 0x0b]), &body(&allocate), &body(&add)]),
        section(11, &[&data]),
    ]
    .concat()
}

fn modules(mesh: &mut Mesh) -> anyhow::Result<()> {
    let file = mesh.dir.join("header.wasm");
    fs::write(&file, wasm())?;
    let text = format!(
        "apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {{name: header, namespace: default}}
spec:
  selector: {{matchLabels: {{app: front}}}}
  url: file://{}
  phase: AUTHN
  match: [{{mode: SERVER}}]
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {{name: script, namespace: default}}
spec:
  selector: {{matchLabels: {{app: front}}}}
  match: [{{mode: SERVER, ports: [{{number: 9080}}]}}]
  lua: {{inlineCode: \"function envoy_on_response(handle) handle:headers():add('x-script', 'yes') end\"}}
",
        file.display()
    );
    mesh.write(FILE, &text)?;
    Mesh::wait("headers of the extensions", || {
        for name in ["x-wasm", "x-script"] {
            let seen = header(mesh, name)?;
            ensure!(seen.as_deref() == Some("yes"), "{name}: {seen:?}");
        }
        Ok(())
    })?;
    mesh.wait_synced()?;
    gone(mesh, "x-wasm")
}
