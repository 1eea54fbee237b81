//! What DestinationRules do to requests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use istio_tests::app::PORT;
use istio_tests::client::{Ask, LIMIT};
use istio_tests::mesh::{CLIENT, Mesh};
use istio_tests::netns;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("requests_with_one_header_go_to_one_server", hashing),
    ("a_server_that_fails_gets_no_more_requests", outlier),
    ("what_is_too_much_for_the_pool_gets_503", pending),
    ("a_connection_serves_no_more_requests_than_allowed", requests_per_connection),
    ("plain_requests_leave_as_tls_for_a_known_server_only", origination),
];

/// File of the objects of these cases.
const FILE: &str = "destinations.yaml";
/// Address of the service in [`service`].
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 51);
/// Name of the outside server in [`outside`].
const OUTSIDE: &str = "outside.example";

/// A service `spread` with these servers, and one more object.
fn service(addresses: &[&str], more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: spread, namespace: default}}
spec:
  clusterIP: {VIP}
  ports: [{{name: http, port: {PORT}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: spread-1, namespace: default, labels: {{kubernetes.io/service-name: spread}}}}
addressType: IPv4
endpoints: [{{addresses: [{}]}}]
ports: [{{name: http, port: {PORT}}}]
---
{more}",
        addresses.join("]}, {addresses: [")
    )
}

/// The policy of `host`.
fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: destinations, namespace: default}}
spec: {{host: {host}, trafficPolicy: {{{policy}}}}}
"
    )
}

/// A server at a port of the client without a sidecar, outside of the mesh.
fn outside(port: u16, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: outside, namespace: default}}
spec:
  hosts: [{OUTSIDE}]
  addresses: [{VIP}]
  resolution: STATIC
  ports: [{{name: http, number: {PORT}, protocol: HTTP, targetPort: {port}}}]
  endpoints: [{{address: {CLIENT}}}]
---
{}",
        rule(OUTSIDE, policy)
    )
}

/// Runs a case with more objects.
fn with(
    mesh: &mut Mesh,
    objects: &str,
    case: impl FnOnce(&mut Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    mesh.write(FILE, objects)?;
    let result = case(mesh);
    fs::remove_file(mesh.objects.join(FILE))?;
    result
}

fn ask(host: &str, path: &str) -> Ask {
    Ask::get((VIP, PORT), host, path)
}

fn stat(mesh: &Mesh, host: &str, name: &str) -> anyhow::Result<u64> {
    mesh.pod("productpage-v1")?.stat(&format!("cluster.outbound|{PORT}||{host};.{name}"))
}

const SPREAD: &str = "spread.default.svc.cluster.local";
const REVIEWS: [&str; 3] = ["10.77.0.21", "10.77.0.22", "10.77.0.23"];

fn hashing(mesh: &mut Mesh) -> anyhow::Result<()> {
    let policy = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}";
    with(mesh, &service(&REVIEWS, &rule("spread", policy)), |mesh| {
        let network = mesh.pod("productpage-v1")?.network.clone();
        Mesh::wait("one server for each user", || {
            let mut servers = std::collections::BTreeSet::new();
            for user in 0..12 {
                let ask = ask("spread", "/headers").header("x-user", &user.to_string());
                let version = || -> anyhow::Result<String> {
                    let answer = ask.from(&network)?;
                    ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
                    Ok(answer.json()?["version"].to_string())
                };
                let first = version()?;
                for _ in 0..5 {
                    let next = version()?;
                    ensure!(next == first, "user {user} got {first} and {next}");
                }
                servers.insert(first);
            }
            ensure!(servers.len() > 1, "all users got {servers:?}");
            Ok(())
        })
    })
}

fn outlier(mesh: &mut Mesh) -> anyhow::Result<()> {
    // Nobody listens at the client's port, and a failed request is not tried again.
    let policy =
        "outlierDetection: {consecutive5xxErrors: 1, baseEjectionTime: 300s, maxEjectionPercent: 100}";
    let client = CLIENT.to_string();
    let route = "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: destinations, namespace: default}
spec: {hosts: [spread], http: [{retries: {attempts: 0}, route: [{destination: {host: spread}}]}]}
";
    let objects = service(&[REVIEWS[0], &client], &(rule("spread", policy) + route));
    with(mesh, &objects, |mesh| {
        let network = mesh.pod("productpage-v1")?.network.clone();
        let ask = ask("spread", "/headers");
        Mesh::wait("the ejection", || {
            ask.from(&network)?;
            let ejected = stat(mesh, SPREAD, "outlier_detection.ejections_active")?;
            ensure!(ejected == 1, "{ejected} ejected");
            Ok(())
        })?;
        let before = stat(mesh, SPREAD, "upstream_cx_connect_fail")?;
        for _ in 0..30 {
            let answer = ask.from(&network)?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
        }
        let after = stat(mesh, SPREAD, "upstream_cx_connect_fail")?;
        ensure!(after == before, "the server that fails was tried {} times", after - before);
        Ok(())
    })
}

/// A listener at the client without a sidecar.
fn listen(mesh: &Mesh) -> anyhow::Result<(TcpListener, u16)> {
    let listener = netns::within(&mesh.client, || async { Ok(TcpListener::bind((CLIENT, 0))?) })?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Begins a request and does not wait for the answer.
fn begin(network: &str) -> anyhow::Result<TcpStream> {
    let mut stream =
        netns::within(network, || async { Ok(TcpStream::connect(SocketAddr::from((VIP, PORT)))?) })?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {OUTSIDE}\r\n\r\n")?;
    Ok(stream)
}

fn pending(mesh: &mut Mesh) -> anyhow::Result<()> {
    // It takes connections and never answers.
    let (_listener, port) = listen(mesh)?;
    let policy = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    with(mesh, &outside(port, policy), |mesh| {
        let network = mesh.pod("productpage-v1")?.network.clone();
        let productpage = mesh.pod("productpage-v1")?;
        Mesh::wait("the cluster and its route", || {
            let (clusters, all) = (productpage.admin("/clusters")?, productpage.config_dump()?.to_string());
            ensure!(clusters.contains(&format!("outbound|{PORT}||{OUTSIDE}")), "no cluster");
            ensure!(all.contains(&format!("\"{OUTSIDE}:{PORT}\"")), "no route");
            Ok(())
        })?;
        // Each of Envoy's threads may have a connection, whatever the limit; one
        // request more may wait, and what comes then is refused.
        let mut begun = Vec::new();
        let answer = Mesh::wait("a refused request", || {
            let stream = begin(&network)?;
            stream.set_nonblocking(true)?;
            begun.push(stream);
            let mut answer = [0; 512];
            let answered = begun.iter_mut().find_map(|stream| stream.read(&mut answer).ok());
            let count = answered.context("all requests wait")?;
            Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
        })?;
        ensure!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        ensure!(answer.contains("x-envoy-overloaded: true"), "{answer}");
        let refused = stat(mesh, OUTSIDE, "upstream_rq_pending_overflow")?;
        ensure!(refused >= 1, "{refused} refused");
        Ok(())
    })
}

fn requests_per_connection(mesh: &mut Mesh) -> anyhow::Result<()> {
    let policy = "connectionPool: {http: {maxRequestsPerConnection: 1}}";
    with(mesh, &service(&REVIEWS[..1], &rule("spread", policy)), |mesh| {
        let network = mesh.pod("productpage-v1")?.network.clone();
        Mesh::wait("a connection for each request", || {
            let count = || stat(mesh, SPREAD, "upstream_cx_total");
            let request = || -> anyhow::Result<()> {
                let answer = ask("spread", "/headers").from(&network)?;
                ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
                Ok(())
            };
            // A cluster counts from its first request on.
            request()?;
            let before = count()?;
            for _ in 0..5 {
                request()?;
            }
            let made = count()? - before;
            ensure!(made >= 5, "{made} connections");
            Ok(())
        })
    })
}

/// A server of TLS that answers each request with the name it was asked for;
/// it ends when the sender goes.
fn serve_tls(
    listener: TcpListener,
    name: &str,
) -> anyhow::Result<(String, oneshot::Sender<()>, thread::JoinHandle<anyhow::Result<()>>)> {
    let now = SystemTime::now();
    let (issuer, _) = Issuer::self_signed("outside", Duration::from_secs(3600), now)?;
    let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
    let names = [San::Dns(name.to_owned())];
    let chain = issuer.issue(&Csr::of_key(&key)?, &names, Duration::from_secs(3600), now)?;
    let roots = issuer.root_pem().to_owned();
    let config = pki::verify::server_config(&chain[..chain.len() - 1].concat(), &key, &roots, &[])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (sender, mut end) = oneshot::channel();
    let serve = async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted?.0,
                _ = &mut end => return Ok(()),
            };
            // One after the other, and each connection for one request: a client
            // that minds the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 2048];
            if !matches!(stream.read(&mut head).await, Ok(count) if count > 0) {
                continue;
            }
            let asked = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
            let length = asked.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{asked}");
            stream.write_all(answer.as_bytes()).await.ok();
            stream.shutdown().await.ok();
        }
    };
    let server = thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve)
    });
    Ok((roots, sender, server))
}

fn origination(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (listener, port) = listen(mesh)?;
    let (roots, sender, server) = serve_tls(listener, "real.example")?;
    let path = mesh.dir.join("outside-roots.pem");
    fs::write(&path, roots)?;
    let objects = |name: &str| {
        let path = path.display();
        outside(
            port,
            &format!(
                "tls: {{mode: SIMPLE, sni: real.example, subjectAltNames: [{name}], caCertificates: {path}}}"
            ),
        )
    };
    let result = with(mesh, &objects("real.example"), |mesh| {
        let network = mesh.pod("productpage-v1")?.network.clone();
        Mesh::wait("an answer over TLS", || {
            let answer = ask(OUTSIDE, "/").from(&network)?;
            ensure!(answer.status.is_success(), "{}: {}", answer.status, answer.body);
            ensure!(answer.body == "real.example", "asked for {:?}", answer.body);
            Ok(())
        })?;
        mesh.write(FILE, &objects("other.example"))?;
        Mesh::wait("no answer from a server of another name", || {
            let answer = ask(OUTSIDE, "/").from(&network)?;
            ensure!(answer.status == http::StatusCode::SERVICE_UNAVAILABLE, "{}", answer.status);
            let refused = stat(mesh, OUTSIDE, "ssl.fail_verify_san")?;
            ensure!(refused > 0, "{}", answer.body);
            Ok(())
        })
    });
    drop(sender);
    server.join().ok().context("the server failed")??;
    result
}
