//! Services that are not of Kubernetes, and endpoints by their place.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context as _, ensure};
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::client::Ask;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns::{self, within};
use istio_tests::process::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_workload_entry_is_reached_by_the_address_of_its_service", workload_entry),
    ("hosts_of_service_entries_are_let_out_and_no_others", registry_only),
    ("another_region_serves_when_the_near_endpoint_fails", failover),
    ("regions_get_their_shares", shares),
];

/// File of the objects of a case.
const FILE: &str = "services.yaml";
/// Address of the service of each case.
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 1);

/// Runs a case with objects that are removed afterwards.
fn with(
    mesh: &mut Mesh,
    objects: &str,
    case: impl FnOnce(&mut Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    mesh.write(FILE, objects)?;
    let done = case(mesh);
    fs::remove_file(mesh.objects.join(FILE)).context(FILE)?;
    done
}

/// Addresses of two versions of reviews.
fn reviews(mesh: &Mesh) -> anyhow::Result<[Ipv4Addr; 2]> {
    Ok([mesh.pod("reviews-v1")?.workload.address, mesh.pod("reviews-v2")?.workload.address])
}

/// The version of reviews that answers.
fn version(mesh: &Mesh, ask: &Ask) -> anyhow::Result<String> {
    let answer = ask.from(&mesh.pod("details-v1")?.network)?;
    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
    Ok(answer.json()?["version"].as_str().context("version")?.to_owned())
}

fn workload_entry(mesh: &mut Mesh) -> anyhow::Result<()> {
    let [address, _] = reviews(mesh)?;
    let objects = format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: vm, namespace: default}}
spec:
  hosts: [vm.example.com]
  addresses: [{VIP}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}
  - {{number: 81, name: tcp, protocol: TCP, targetPort: {ECHO_PORT}}}
  workloadSelector: {{labels: {{app: vm}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: vm, namespace: default}}
spec: {{address: {address}, labels: {{app: vm}}, serviceAccount: bookinfo-reviews}}
"
    );
    with(mesh, &objects, |mesh| {
        let details = mesh.pod("details-v1")?;
        let ask = Ask::get((VIP, 80), "vm.example.com", "/reviews/0");
        Mesh::wait("an answer by the address", || {
            let answer = ask.from(&details.network)?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
            // It came by mutual TLS: the server takes nothing else, and knows its caller.
            let caller = answer.json()?["caller"]["identity"].clone();
            ensure!(caller == "spiffe://cluster.local/ns/default/sa/bookinfo-details", "{}", answer.body);
            Ok(())
        })?;
        Mesh::wait("an echo by the address", || {
            within(&details.network, || async {
                let mut stream = TcpStream::connect((VIP, 81)).await?;
                stream.write_all(b"hello").await?;
                let mut back = [0; 5];
                tokio::time::timeout(istio_tests::client::LIMIT, stream.read_exact(&mut back)).await??;
                ensure!(&back == b"hello", "{back:?}");
                Ok(())
            })
        })
    })
}

fn registry_only(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut command: Command = netns::command(&mesh.client, &mesh.programs().harness);
    command.args(["app", "outside", "v1"]);
    let _outside = Process::start(command, &mesh.dir.join("log/outside.log"))?;
    let objects = format!(
        "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: strict, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: details}}}}
  outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}
  egress: [{{hosts: ['*/*']}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside, namespace: default}}
spec:
  hosts: [outside.example]
  ports: [{{number: {PORT}, name: http, protocol: HTTP}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: resolved, namespace: default}}
spec:
  hosts: [resolved.example]
  resolution: DNS
  ports: [{{number: {PORT}, name: http, protocol: HTTP}}]
  endpoints: [{{address: {CLIENT}}}]
"
    );
    with(mesh, &objects, |mesh| {
        let details = mesh.pod("details-v1")?;
        let status = |host: &str| -> anyhow::Result<u16> {
            let answer = Ask::get((CLIENT, PORT), host, "/headers").from(&details.network)?;
            Ok(answer.status.as_u16())
        };
        Mesh::wait("other hosts to be kept in", || {
            let [outside, resolved, other] =
                [status("outside.example")?, status("resolved.example")?, status("other.example")?];
            ensure!((outside, resolved, other) == (200, 200, 502), "{outside} {resolved} {other}");
            Ok(())
        })
    })?;
    let details = mesh.pod("details-v1")?;
    Mesh::wait("other hosts to be let out again", || {
        let answer = Ask::get((CLIENT, PORT), "other.example", "/headers").from(&details.network)?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        Ok(())
    })
}

/// A service of two endpoints: reviews v1 at `port` and `near`, v2 in another region.
fn spread(mesh: &Mesh, port: u16, near: &str, policy: &str) -> anyhow::Result<String> {
    let [first, second] = reviews(mesh)?;
    Ok(format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: spread, namespace: default}}
spec:
  hosts: [spread.example.com]
  addresses: [{VIP}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {PORT}}}]
  endpoints:
  - {{address: {first}, serviceAccount: bookinfo-reviews, ports: {{http: {port}}}, locality: '{near}'}}
  - {{address: {second}, serviceAccount: bookinfo-reviews, locality: far/z1}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: spread, namespace: default}}
spec: {{host: spread.example.com, trafficPolicy: {policy}}}
"
    ))
}

fn failover(mesh: &mut Mesh) -> anyhow::Result<()> {
    let policy = "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, \
                  maxEjectionPercent: 100}}";
    let ask = Ask::get((VIP, 80), "spread.example.com", "/headers");
    // The proxies do not say where they are: an endpoint without a place is near.
    let good = spread(mesh, PORT, "", policy)?;
    let broken = spread(mesh, 1, "", policy)?;
    with(mesh, &good, |mesh| {
        Mesh::wait("the near endpoint", || {
            let version = version(mesh, &ask)?;
            ensure!(version == "v1", "{version}");
            Ok(())
        })?;
        for _ in 0..20 {
            let version = version(mesh, &ask)?;
            ensure!(version == "v1", "{version} answers while the near one is well");
        }
        mesh.write(FILE, &broken)?;
        Mesh::wait("the other region", || {
            for _ in 0..10 {
                let version = version(mesh, &ask)?;
                ensure!(version == "v2", "{version}");
            }
            Ok(())
        })
    })
}

fn shares(mesh: &mut Mesh) -> anyhow::Result<()> {
    let policy = "{loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {near: 80, far: 20}}]}}}";
    let objects = spread(mesh, PORT, "near/z1", policy)?;
    let ask = Ask::get((VIP, 80), "spread.example.com", "/headers");
    with(mesh, &objects, |mesh| {
        Mesh::wait("an answer by the address", || version(mesh, &ask))?;
        // The first answers may come before the shares are in force.
        Mesh::wait("the shares", || {
            let mut far = 0;
            for _ in 0..300 {
                far += u32::from(version(mesh, &ask)? == "v2");
            }
            // 60 are expected; the bounds are four standard deviations away.
            ensure!((32..=88).contains(&far), "{far} of 300 went far");
            Ok(())
        })
    })
}
