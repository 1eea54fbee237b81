//! What a Sidecar lets through and serves, and routes of connections.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use istio_tests::app::{ECHO_PORT, PORT};
use istio_tests::client::Ask;
use istio_tests::mesh::pod::Pod;
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("a_sidecar_limits_what_is_known_and_what_may_be_called", egress),
    ("connections_are_split_by_weight_and_source", split),
    ("tls_is_routed_by_its_server_name", names),
    ("an_ingress_listener_leads_to_another_port", ingress),
];

const FILE: &str = "sidecar.yaml";
const REVIEWS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 14)), PORT);
const ECHO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 50)), ECHO_PORT);
/// The same by a port that speaks TLS.
const SECURE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 50)), 9443);
const OTHER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 51)), 8000);

/// Runs a case with further objects.
fn with(
    mesh: &mut Mesh,
    objects: &str,
    case: impl FnOnce(&Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    mesh.write(FILE, objects)?;
    let done = case(mesh);
    fs::remove_file(mesh.objects.join(FILE)).context(FILE)?;
    mesh.wait_synced()?;
    done
}

/// Whether a server returns what it is sent.
fn echoes(pod: &Pod, address: SocketAddr, bytes: &[u8]) -> anyhow::Result<bool> {
    netns::within(&pod.network, || async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        if stream.write_all(bytes).await.is_err() {
            return Ok(false);
        }
        let mut answer = vec![0; bytes.len()];
        let read = timeout(istio_tests::client::LIMIT, stream.read_exact(&mut answer)).await;
        Ok(read.is_ok_and(|read| read.is_ok()) && answer == bytes)
    })
}

const EGRESS: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: details, namespace: default}
spec:
  workloadSelector: {labels: {app: details}}
  egress: [{hosts: ['./ratings.default.svc.cluster.local']}]
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
";

fn egress(mesh: &mut Mesh) -> anyhow::Result<()> {
    with(mesh, EGRESS, |mesh| {
        let details = mesh.pod("details-v1")?;
        let ask = |host: &str| Ask::get(REVIEWS, host, "/reviews/0").from(&details.network);
        Mesh::wait("the Sidecar", || {
            let answer = ask("reviews:9080")?;
            ensure!(answer.status == 502, "{}: {}", answer.status, answer.body);
            Ok(())
        })?;
        // What it names may be called.
        let ratings = Ask::get(([10, 96, 0, 13], PORT), "ratings:9080", "/ratings/0");
        let answer = ratings.from(&details.network)?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        // Connections that no listener knows end.
        ensure!(!echoes(details, (CLIENT, 7777).into(), b"x")?, "an unknown destination answers");
        let clusters = details.admin("/clusters")?;
        ensure!(clusters.contains("outbound|9080||ratings.default"), "{clusters}");
        for other in ["reviews", "productpage"] {
            ensure!(!clusters.contains(&format!("||{other}.default")), "{other} is known: {clusters}");
        }
        // Others see what they saw.
        let answer = mesh.productpage(None)?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        Ok(())
    })?;
    let details = mesh.pod("details-v1")?;
    Mesh::wait("all again", || {
        let answer = Ask::get(REVIEWS, "reviews:9080", "/reviews/0").from(&details.network)?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        Ok(())
    })
}

/// A service in front of all pods of reviews, with subsets by version.
fn echo(routes: &str) -> String {
    let endpoints = ["v1", "v2", "v3"].iter().zip(21..).map(|(version, last)| {
        format!(
            "- {{addresses: [10.77.0.{last}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: reviews-{version}, namespace: default}}}}\n"
        )
    });
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: echo, namespace: default}}
spec:
  clusterIP: 10.96.0.50
  selector: {{app: reviews}}
  ports: [{{name: tcp, port: 9000}}, {{name: tls, port: 9443, targetPort: 9000}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: echo-1, namespace: default, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{name: tcp, port: 9000, protocol: TCP}}, {{name: tls, port: 9000, protocol: TCP}}]
endpoints:
{}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: default}}
spec:
  host: echo
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}, {{name: v3, labels: {{version: v3}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: default}}
spec:
  hosts: [echo]
{routes}",
        endpoints.collect::<String>()
    )
}

/// Connections that productpage's proxy has made to a subset. Envoy shows no
/// counter before the first.
fn made(mesh: &Mesh, port: u16, subset: &str) -> anyhow::Result<u64> {
    let name = format!("cluster.outbound|{port}|{subset}|echo.default.svc.cluster.local;.upstream_cx_total");
    let page = mesh.pod("productpage-v1")?.admin("/stats?filter=echo.default.*upstream_cx_total")?;
    let count = page.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(": "));
    count.map_or(Ok(0), |count| count.trim().parse().with_context(|| page.clone()))
}

fn split(mesh: &mut Mesh) -> anyhow::Result<()> {
    let routes = "
  tcp:
  - match: [{port: 9000, sourceLabels: {app: productpage}}]
    route:
    - {destination: {host: echo, subset: v1}, weight: 80}
    - {destination: {host: echo, subset: v2}, weight: 20}
  - match: [{port: 9000}]
    route: [{destination: {host: echo, subset: v3}}]
";
    with(mesh, &echo(routes), |mesh| {
        let productpage = mesh.pod("productpage-v1")?;
        Mesh::wait("the service", || {
            ensure!(echoes(productpage, ECHO, b"x")?, "no echo");
            ensure!(made(mesh, ECHO_PORT, "v1")? + made(mesh, ECHO_PORT, "v2")? > 0, "nothing is counted");
            Ok(())
        })?;
        let before = [made(mesh, ECHO_PORT, "v1")?, made(mesh, ECHO_PORT, "v2")?];
        const COUNT: u64 = 200;
        for _ in 0..COUNT {
            ensure!(echoes(productpage, ECHO, b"x")?, "no echo");
        }
        let v1 = made(mesh, ECHO_PORT, "v1")? - before[0];
        let v2 = made(mesh, ECHO_PORT, "v2")? - before[1];
        ensure!(v1 + v2 == COUNT, "{v1} and {v2}");
        // 160 are expected; six standard deviations are 34.
        ensure!((126..=194).contains(&v1), "{v1} of {COUNT} went to v1");
        ensure!(made(mesh, ECHO_PORT, "v3")? == 0, "v3 is for others");
        Ok(())
    })
}

fn names(mesh: &mut Mesh) -> anyhow::Result<()> {
    let routes = "
  tls:
  - match: [{port: 9443, sniHosts: [one.example.com]}]
    route: [{destination: {host: echo, subset: v1}}]
  - match: [{port: 9443, sniHosts: ['*.two.example.com']}]
    route: [{destination: {host: echo, subset: v2}}]
";
    // A server name has to be among the hosts.
    let objects =
        echo(routes).replace("hosts: [echo]", "hosts: [echo, one.example.com, '*.two.example.com']");
    with(mesh, &objects, |mesh| {
        let productpage = mesh.pod("productpage-v1")?;
        Mesh::wait("the service", || {
            ensure!(echoes(productpage, SECURE, &greeting("one.example.com"))?, "no echo");
            ensure!(made(mesh, SECURE.port(), "v1")? > 0, "nothing is counted");
            Ok(())
        })?;
        let seen = || anyhow::Ok((made(mesh, SECURE.port(), "v1")?, made(mesh, SECURE.port(), "v2")?));
        let (v1, v2) = seen()?;
        ensure!(echoes(productpage, SECURE, &greeting("one.example.com"))?, "no echo");
        ensure!(seen()? == (v1 + 1, v2), "{:?}", seen()?);
        ensure!(echoes(productpage, SECURE, &greeting("a.two.example.com"))?, "no echo");
        ensure!(seen()? == (v1 + 1, v2 + 1), "{:?}", seen()?);
        // Another name goes to the address as it is, where nobody is.
        let other = netns::within(&productpage.network, || async {
            let mut stream = TcpStream::connect(SECURE).await.context("connect")?;
            stream.write_all(&greeting("three.example.com")).await?;
            let mut byte = [0];
            let read = timeout(Duration::from_secs(2), stream.read_exact(&mut byte)).await;
            Ok(read.is_ok_and(|read| read.is_ok()))
        })?;
        ensure!(!other, "a name without a route is answered");
        ensure!(seen()? == (v1 + 1, v2 + 1), "{:?}", seen()?);
        Ok(())
    })
}

/// The first message of TLS, with a server name and little else (RFC 8446, 4.1.2).
fn greeting(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes()[..], bytes].concat();
    let name = [&[0], &sized(name.as_bytes())[..]].concat();
    let server_name = [&[0, 0], &sized(&sized(&name))[..]].concat();
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0);
    hello.extend(sized(&[0x13, 0x01, 0xc0, 0x2f]));
    hello.extend([1, 0]);
    hello.extend(sized(&server_name));
    let message = [&[1, 0], &sized(&hello)[..]].concat();
    [&[22, 3, 1], &sized(&message)[..]].concat()
}

const INGRESS: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: details, namespace: default}
spec:
  workloadSelector: {labels: {app: details}}
  ingress:
  - {port: {number: 9080, protocol: HTTP, name: http}}
  - {port: {number: 8000, protocol: HTTP, name: other}, defaultEndpoint: '127.0.0.1:9080'}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec:
  clusterIP: 10.96.0.51
  selector: {app: details}
  ports: [{name: http, port: 8000}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, namespace: default, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{name: http, port: 8000, protocol: TCP}]
endpoints:
- {addresses: [10.77.0.12], conditions: {ready: true}, targetRef: {kind: Pod, name: details-v1, namespace: default}}
";

fn ingress(mesh: &mut Mesh) -> anyhow::Result<()> {
    with(mesh, INGRESS, |mesh| {
        let productpage = mesh.pod("productpage-v1")?;
        let ask = |path: &str| Ask::get(OTHER, "other:8000", path).from(&productpage.network);
        // Nobody listens on port 8000 of the workload.
        Mesh::wait("the ingress listener", || {
            let answer = ask("/details/0")?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
            ensure!(answer.json()?["author"] == "William Shakespeare", "{}", answer.body);
            Ok(())
        })?;
        let headers = ask("/headers")?.json()?;
        let caller = headers["headers"]["x-forwarded-client-cert"].to_string();
        ensure!(caller.contains("sa/bookinfo-productpage"), "{headers}");
        // The other port serves as before.
        let answer = mesh.productpage(None)?;
        ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        Ok(())
    })
}
