//! Telemetry objects change what proxies count, while requests run.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use istio_tests::client::Ask;
use istio_tests::mesh::Mesh;
use istio_tests::program::MODULE;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_request_is_counted_at_both_sides_and_shown_at_both_ports", both_sides),
    ("telemetry_adds_and_removes_tags_of_a_workload", tags),
    ("telemetry_switches_metrics_off_and_on_again", switches),
    ("a_patch_finds_the_filter_that_counts", patched),
    ("an_envoy_that_refuses_the_module_runs_without_it", refused),
];

const FILE: &str = "telemetry.yaml";
/// Envoy's own metrics, and the agent's, which are joined with them.
const PORTS: [u16; 2] = [15090, 15020];
const CLIENT: &str = "productpage-v1";
const SERVER: &str = "details-v1";
const REQUESTS: &str = "istio_requests_total";

/// The series of a metric that have all these labels, `name="value"`.
fn series(mesh: &Mesh, pod: &str, port: u16, metric: &str, labels: &[&str]) -> anyhow::Result<Vec<String>> {
    let network = &mesh.pod(pod)?.network;
    let answer = Ask::get((Ipv4Addr::LOCALHOST, port), "pod", "/stats/prometheus").from(network)?;
    ensure!(answer.status.is_success(), "{pod}:{port}: {}", answer.status);
    let start = format!("{metric}{{");
    let lines = answer.body.lines().filter(|line| line.starts_with(&start));
    Ok(lines.filter(|line| labels.iter().all(|label| line.contains(label))).map(str::to_owned).collect())
}

/// What they add up to.
fn count(mesh: &Mesh, pod: &str, metric: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for line in series(mesh, pod, PORTS[1], metric, labels)? {
        let value = line.rsplit(' ').next().context("a value")?;
        sum += value.parse::<f64>().with_context(|| line.clone())?;
    }
    Ok(sum)
}

/// Calls productpage, which calls details.
fn call(mesh: &Mesh) -> anyhow::Result<()> {
    let answer = mesh.productpage(None)?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    Ok(())
}

fn telemetry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n---\n"
    )
}

/// Takes the objects away, and waits until the client counts as before.
fn remove(mesh: &Mesh) -> anyhow::Result<()> {
    fs::remove_file(mesh.objects.join(FILE)).context(FILE)?;
    let usual = ["reporter=\"source\"", "destination_app=\"details\"", "source_principal=\"spiffe://"];
    Mesh::wait("everything is counted as before", || {
        for (pod, labels) in [(CLIENT, &usual[..]), (SERVER, &["reporter=\"destination\""][..])] {
            let before = count(mesh, pod, REQUESTS, labels)?;
            call(mesh)?;
            ensure!(count(mesh, pod, REQUESTS, labels)? > before, "{pod} does not count");
        }
        Ok(())
    })
}

fn both_sides(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.programs().module()?;
    call(mesh)?;
    let common = [
        "source_workload=\"productpage-v1\"",
        "source_workload_namespace=\"default\"",
        "source_principal=\"spiffe://cluster.local/ns/default/sa/",
        "source_app=\"productpage\"",
        "destination_workload=\"details-v1\"",
        "destination_principal=\"spiffe://cluster.local/ns/default/sa/",
        "destination_service=\"details.default.svc.cluster.local\"",
        "destination_service_name=\"details\"",
        "destination_service_namespace=\"default\"",
        "request_protocol=\"http\"",
        "response_code=\"200\"",
    ];
    let sides = [
        (CLIENT, ["reporter=\"source\"", "connection_security_policy=\"unknown\""]),
        (SERVER, ["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""]),
    ];
    for (pod, own) in sides {
        let labels: Vec<&str> = common.iter().copied().chain(own).collect();
        for port in PORTS {
            let found = series(mesh, pod, port, REQUESTS, &labels)?;
            if found.len() != 1 {
                let all = series(mesh, pod, port, REQUESTS, &[])?;
                anyhow::bail!("{pod}:{port}: {} series of {labels:?} in {}", found.len(), all.join("\n"));
            }
        }
        let before = count(mesh, pod, REQUESTS, &labels)?;
        call(mesh)?;
        let after = count(mesh, pod, REQUESTS, &labels)?;
        ensure!(after > before, "{pod}: {before}, then {after}");
    }
    Ok(())
}

fn tags(mesh: &mut Mesh) -> anyhow::Result<()> {
    let everybody = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {verb: {value: request.method}}}]}]}";
    let client = "{selector: {matchLabels: {app: productpage}}, metrics: [{overrides: [
        {match: {metric: REQUEST_COUNT, mode: CLIENT}, tagOverrides: {source_principal: {operation: REMOVE}, place: {value: '\"here\"'}}}]}]}";
    mesh.write(FILE, &(telemetry("everybody", everybody) + &telemetry("client", client)))?;
    let of_client = ["reporter=\"source\"", "destination_app=\"details\"", "verb=\"GET\"", "place=\"here\""];
    Mesh::wait("tags of the client", || {
        call(mesh)?;
        let found = series(mesh, CLIENT, PORTS[0], REQUESTS, &of_client)?;
        ensure!(!found.is_empty(), "no series with {of_client:?}");
        ensure!(!found.iter().any(|line| line.contains("source_principal=")), "{found:?}");
        Ok(())
    })?;
    Mesh::wait("the tag of the server", || {
        call(mesh)?;
        let found = series(mesh, SERVER, PORTS[0], REQUESTS, &["reporter=\"destination\"", "verb=\"GET\""])?;
        ensure!(!found.is_empty(), "no series with the tag");
        let is_its_own =
            found.iter().all(|line| line.contains("source_principal=") && !line.contains("place="));
        ensure!(is_its_own, "{found:?}");
        Ok(())
    })?;
    // Other metrics stay as they are.
    let sizes = series(mesh, SERVER, PORTS[0], "istio_request_bytes_count", &["verb="])?;
    ensure!(sizes.is_empty(), "{sizes:?}");
    remove(mesh)
}

fn switches(mesh: &mut Mesh) -> anyhow::Result<()> {
    const DURATION: &str = "istio_request_duration_milliseconds_count";
    let one = "{metrics: [{overrides: [{match: {metric: REQUEST_DURATION, mode: SERVER}, disabled: true}]}]}";
    let of_server = ["reporter=\"destination\""];
    mesh.write(FILE, &telemetry("one", one))?;
    Mesh::wait("durations are not counted", || {
        let before = (count(mesh, SERVER, REQUESTS, &of_server)?, count(mesh, SERVER, DURATION, &of_server)?);
        call(mesh)?;
        let after = (count(mesh, SERVER, REQUESTS, &of_server)?, count(mesh, SERVER, DURATION, &of_server)?);
        ensure!(after.0 > before.0 && after.1 == before.1, "{before:?}, then {after:?}");
        Ok(())
    })?;
    let all = "{selector: {matchLabels: {app: details}}, metrics: [{overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]}";
    mesh.write(FILE, &telemetry("all", all))?;
    let of_client = ["reporter=\"source\"", "destination_app=\"details\""];
    Mesh::wait("details counts nothing, productpage does, and knows whom it called", || {
        let before = (count(mesh, SERVER, REQUESTS, &of_server)?, count(mesh, CLIENT, REQUESTS, &of_client)?);
        call(mesh)?;
        let after = (count(mesh, SERVER, REQUESTS, &of_server)?, count(mesh, CLIENT, REQUESTS, &of_client)?);
        ensure!(after.0 == before.0 && after.1 > before.1, "{before:?}, then {after:?}");
        Ok(())
    })?;
    let mut filters = String::new();
    // A listener that was replaced is shown as long as it drains.
    Mesh::wait("the filter that counts is gone", || {
        filters = mesh.pod(SERVER)?.config_dump()?.to_string();
        ensure!(!filters.contains("\"name\":\"istio.stats\""), "the filter that counts is there still");
        Ok(())
    })?;
    ensure!(filters.contains("\"name\":\"istio.metadata_exchange\""), "nobody would know details");
    remove(mesh)
}

fn patched(mesh: &mut Mesh) -> anyhow::Result<()> {
    const PATCH: &str = "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: beside, namespace: default}
spec:
  workloadSelector: {labels: {app: details}}
  configPatches:
  - applyTo: HTTP_FILTER
    match:
      context: SIDECAR_INBOUND
      listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: istio.stats}}}}
    patch:
      operation: INSERT_AFTER
      value:
        name: beside
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code:
            inline_string: |
              function envoy_on_response(handle) handle:headers():add('x-beside', 'yes') end
";
    mesh.write(FILE, PATCH)?;
    let name = "details.default.svc.cluster.local";
    let answer = Mesh::wait("the filter beside", || {
        let address = mesh.pod(SERVER)?.workload.address;
        let ask = Ask::get((address, istio_tests::app::PORT), name, "/details/0");
        let answer = ask.from(&mesh.pod(CLIENT)?.network)?;
        ensure!(answer.headers.contains_key("x-beside"), "{:?}", answer.headers);
        Ok(answer)
    })?;
    ensure!(answer.status.is_success(), "{}", answer.status);
    remove(mesh)
}

/// Starts the proxy of the server anew.
fn restart(mesh: &mut Mesh, env: &[(String, String)]) -> anyhow::Result<()> {
    let pod = mesh.pod_mut(SERVER)?;
    // At once: a drain takes seconds. Envoy goes with its agent.
    drop(pod.agent.take());
    pod.start_agent(env)?;
    pod.wait_ready()?;
    mesh.wait_synced()
}

fn refused(mesh: &mut Mesh) -> anyhow::Result<()> {
    let dir = mesh.pod(SERVER)?.dir.join("module");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(MODULE), "no shared object")?;
    restart(mesh, &[("ISTIO_TELEMETRY_MODULE".into(), dir.display().to_string())])?;
    let output = mesh.pod(SERVER)?.output();
    ensure!(output.contains("the module is left out"), "nobody is told: {output}");
    Mesh::wait("calls", || call(mesh))?;
    let filters = mesh.pod(SERVER)?.config_dump()?.to_string();
    ensure!(!filters.contains("istio_telemetry"), "it has filters that Envoy refuses");
    // The other side knows it still, by what istiod says of its endpoint: without an owner,
    // the name of the pod.
    let known = ["reporter=\"source\"", "destination_workload=\"details-v1\""];
    let before = count(mesh, CLIENT, REQUESTS, &known)?;
    call(mesh)?;
    if count(mesh, CLIENT, REQUESTS, &known)? <= before {
        let all = series(mesh, CLIENT, PORTS[0], REQUESTS, &["reporter=\"source\""])?;
        anyhow::bail!("the client does not know whom it calls: {}", all.join("\n"));
    }
    // As in other cases, with the variant of the protocol that the mesh began with.
    restart(mesh, &[("ISTIO_DELTA_XDS".into(), "false".into())])?;
    Mesh::wait("it counts again", || {
        call(mesh)?;
        let counted = count(mesh, SERVER, REQUESTS, &["reporter=\"destination\""])?;
        ensure!(counted > 0.0, "nothing is counted");
        Ok(())
    })
}
