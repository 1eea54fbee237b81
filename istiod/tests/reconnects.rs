//! What is left of proxies that have come and gone: nothing. In a process of its
//! own, whose memory and descriptors are looked at.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// Connections that come and go, in all.
const RECONNECTS: usize = 10_000;
/// Of them those after which memory is looked at first: caches are full then.
const WARM: usize = 2_000;
/// Clients at once.
const CLIENTS: usize = 8;
/// Growth of memory that may be chance, in kB.
const CHANCE: u64 = 5 * 1024;
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The program, ended with the test.
struct Istiod(Child);

impl Drop for Istiod {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Istiod {
    /// Resident memory, in kB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn page(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}: not in time");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// One proxy that asks for its clusters, gets them, and is gone.
async fn come_and_go(address: SocketAddr, number: usize) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let exchange = async {
        let ask = DeltaDiscoveryRequest {
            node: Some(Node {
                id: format!("sidecar~10.77.0.21~reviews-{number}.default~default.svc.cluster.local"),
                ..Node::default()
            }),
            type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".into(),
            ..DeltaDiscoveryRequest::default()
        };
        let request = http::Request::post(format!("http://{address}{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::<Bytes>::new(xds::frame::framed(&ask)))
            .unwrap();
        let mut response = sender.send_request(request).await.unwrap().into_body();
        let first = response.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!first.is_empty());
    };
    // What is not finished when this ends breaks off, as with a proxy that is killed.
    tokio::select! {
        () = exchange => {}
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

async fn many(address: SocketAddr, range: std::ops::Range<usize>) {
    let clients = (0..CLIENTS).map(|client| {
        let numbers = range.clone().skip(client).step_by(CLIENTS);
        async move {
            for number in numbers {
                come_and_go(address, number).await;
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[test]
fn ten_thousand_reconnects_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let objects = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/bookinfo");
    let [secure, plain, monitoring, http] = [free(), free(), free(), free()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_istiod"));
    command.arg("discovery").arg("--configDir").arg(objects);
    command.arg("--state-dir").arg(dir.path().join("state")).current_dir(dir.path());
    for (flag, address) in
        [("secureGRPCAddr", secure), ("grpcAddr", plain), ("monitoringAddr", monitoring), ("httpAddr", http)]
    {
        command.arg(format!("--{flag}")).arg(address.to_string());
    }
    // Otherwise the allocator has a heap for each thread, which grow by chance.
    command.env("MALLOC_ARENA_MAX", "1");
    command.arg("--log_output_level=default:warn").stdout(Stdio::null()).stderr(Stdio::null());
    let istiod = Istiod(command.spawn().unwrap());
    wait("istiod ready", || page(http, "/ready"));
    let descriptors = istiod.descriptors();

    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gone = || {
        wait("nobody connected", || {
            let page = page(monitoring, "/debug/adsz")?;
            (!page.contains("connectionId")).then_some(())
        });
    };
    clients.block_on(many(plain, 0..WARM));
    gone();
    let before = istiod.memory();
    clients.block_on(many(plain, WARM..RECONNECTS));
    gone();
    let after = istiod.memory();
    assert!(after < before + CHANCE, "{before} kB after {WARM} reconnects, {after} kB after {RECONNECTS}");
    // The descriptor of the connection that asks is gone a moment later.
    wait("descriptors", || (istiod.descriptors() <= descriptors).then_some(()));
    let metrics = page(monitoring, "/metrics").unwrap();
    assert!(!metrics.contains("\npilot_xds{"), "{metrics}");
}
