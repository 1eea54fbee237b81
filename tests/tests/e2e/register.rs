//! A workload on a plain host, which nobody has written an object of: it registers
//! itself, is called under mutual TLS as long as its probe says that it is well, and
//! is forgotten when it has ended.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, ensure};
use istio_tests::client::Ask;
use istio_tests::mesh::pod::Workload;
use istio_tests::mesh::{ISTIOD, Mesh, Options};
use istio_tests::program::Programs;
use serde_json::Value;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_workload_of_no_object_registers_and_is_called_under_mutual_tls", called),
    ("policies_for_its_group_hold_for_a_registered_workload", policies),
    ("a_registered_workload_that_is_not_well_is_not_called", health),
    ("a_registered_workload_is_called_again_after_istiod_has_ended", restart),
    ("an_entry_of_the_directory_wins_over_a_registered_one", conflict),
    ("a_registered_workload_that_has_ended_is_forgotten", ended),
];

const OBJECTS: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: web, namespace: default}
spec:
  metadata: {labels: {app: web, from: group}}
  template: {serviceAccount: web, ports: {http: 9080}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.example.com]
  addresses: [10.96.0.7]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: caller, namespace: default, labels: {app: caller, version: echo}}
spec: {containers: [{name: caller}], serviceAccountName: caller}
status: {phase: Running, podIP: 10.77.0.13}
";

const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)), 80);
const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 31);
/// Its entry.
const ENTRY: &str = "web-10.77.0.31";
/// As long as this file is there, the machine is well.
const WELL: &str = "well";

pub(super) fn start() -> anyhow::Result<Mesh> {
    let programs = Programs::find()?;
    let env = vec![("ISTIO_META_AUTO_REGISTER_GROUP".to_owned(), "web".to_owned())];
    let probe = format!("{{readinessProbe: {{periodSeconds: 1, exec: {{command: [test, -e, {WELL}]}}}}}}");
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("mesh.yaml"), OBJECTS)?;
    let options = Options {
        name: "istio-register".parse()?,
        objects: folder.path().to_owned(),
        // That is the one without a label `app`.
        agent_env: BTreeMap::from([(String::new(), env)]),
    };
    let mut mesh = Mesh::start(&programs, &options, &mut |_| {})?;
    mesh.istiod.env.push(("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "2s"));
    mesh.istiod.stop()?;
    mesh.istiod.start()?;
    // What the group says of it, it need not say itself.
    mesh.add(Workload {
        name: "machine".into(),
        namespace: "default".into(),
        address: MACHINE,
        service_account: "web".into(),
        labels: BTreeMap::from([("version".into(), "echo".into())]),
        annotations: BTreeMap::from([("proxy.istio.io/config".into(), probe)]),
    })?;
    Ok(mesh)
}

/// Calls it as the pod with a sidecar does.
fn call(mesh: &Mesh) -> anyhow::Result<(u16, Value)> {
    let answer = Ask::get(SERVICE, "web.example.com", "/headers").from(&mesh.pod("caller")?.network)?;
    let status = answer.status.as_u16();
    Ok((status, if status == 200 { answer.json()? } else { Value::Null }))
}

fn wait_status(mesh: &Mesh, what: &str, wanted: u16) -> anyhow::Result<Value> {
    Mesh::wait(what, || {
        let (status, page) = call(mesh)?;
        ensure!(status == wanted, "{status}");
        Ok(page)
    })
}

/// The entry as istiod has it.
fn entry(mesh: &Mesh) -> anyhow::Result<Option<Value>> {
    let token = mesh.istiod.token("istio-system", "istiod")?;
    let page = Ask::get((ISTIOD, names::port::ISTIOD_MONITORING), "istiod", "/debug/configz")
        .header("authorization", &format!("Bearer {token}"))
        .from(&mesh.istiod.namespace)?
        .json()?;
    let mut all = page.as_array().context("configz")?.iter();
    let is_it = |one: &&Value| one["kind"] == "WorkloadEntry" && one["metadata"]["name"] == ENTRY;
    Ok(all.find(is_it).cloned())
}

fn make_well(mesh: &Mesh, is_well: bool) -> anyhow::Result<()> {
    let file = mesh.pod("machine")?.dir.join(WELL);
    if is_well {
        fs::write(&file, "").with_context(|| file.display().to_string())
    } else {
        fs::remove_file(&file).with_context(|| file.display().to_string())
    }
}

fn called(mesh: &mut Mesh) -> anyhow::Result<()> {
    make_well(mesh, true)?;
    mesh.pod_mut("machine")?.wait_ready()?;
    let page = wait_status(mesh, "an answer of the machine", 200)?.to_string();
    // It saw the certificate of its caller.
    ensure!(page.contains("spiffe://cluster.local/ns/default/sa/caller"), "{page}");
    let entry = entry(mesh)?.context("no entry")?;
    ensure!(entry["spec"]["address"] == "10.77.0.31" && entry["spec"]["serviceAccount"] == "web", "{entry}");
    ensure!(entry["metadata"]["annotations"]["istio.io/autoRegistrationGroup"] == "web", "{entry}");
    // Nobody reaches it without.
    let answer = Ask::get((MACHINE, 9080), "x", "/headers").from(&mesh.client);
    ensure!(answer.is_err(), "it answered {:?}", answer.map(|answer| answer.status));
    Ok(())
}

fn policies(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.write(
        "policy.yaml",
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: default}
spec: {selector: {matchLabels: {from: group}}, action: DENY, rules: [{}]}
",
    )?;
    wait_status(mesh, "refused", 403)?;
    fs::remove_file(mesh.objects.join("policy.yaml"))?;
    wait_status(mesh, "let in", 200).map(drop)
}

fn health(mesh: &mut Mesh) -> anyhow::Result<()> {
    make_well(mesh, false)?;
    wait_status(mesh, "no answer from what is not well", 503)?;
    ensure!(entry(mesh)?.is_some(), "its entry is gone");
    make_well(mesh, true)?;
    wait_status(mesh, "an answer from what is well again", 200).map(drop)
}

fn restart(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.istiod.stop()?;
    // What was known stays in force.
    ensure!(call(mesh)?.0 == 200, "{:?}", call(mesh)?);
    mesh.istiod.start()?;
    Mesh::wait("it registers again", || entry(mesh)?.context("no entry"))?;
    wait_status(mesh, "an answer", 200)?;
    mesh.wait_synced()
}

fn conflict(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.write(
        "entry.yaml",
        &format!(
            "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {ENTRY}, namespace: default}}
spec: {{address: 10.77.0.99, labels: {{app: web}}}}
"
        ),
    )?;
    let problem = Mesh::wait("a problem", || {
        let page = mesh.istiod.page("/debug/sourcez")?.to_string();
        ensure!(page.contains("registers itself under this name"), "{page}");
        Ok(page)
    })?;
    ensure!(problem.contains("entry.yaml"), "{problem}");
    Mesh::wait("the entry of the directory", || {
        let now = entry(mesh)?.context("no entry")?;
        ensure!(now["spec"]["address"] == "10.77.0.99", "{now}");
        Ok(())
    })?;
    fs::remove_file(mesh.objects.join("entry.yaml"))?;
    wait_status(mesh, "an answer of the machine", 200)?;
    Mesh::wait("no problem any more", || {
        let page = mesh.istiod.page("/debug/sourcez")?.to_string();
        ensure!(!page.contains("registers itself under this name"), "{page}");
        Ok(())
    })
}

fn ended(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut agent = mesh.pod_mut("machine")?.agent.take().context("no agent")?;
    agent.stop(istio_tests::mesh::PATIENCE)?;
    Mesh::wait("its entry goes", || {
        ensure!(entry(mesh)?.is_none(), "it is still there");
        Ok(())
    })?;
    wait_status(mesh, "nobody answers", 503)?;
    let output = mesh.istiod.output();
    ensure!(output.contains("its workload did not come back"), "{output}");
    Ok(())
}
