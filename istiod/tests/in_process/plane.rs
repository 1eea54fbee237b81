//! An istiod in process and a client of its port: real TLS, real gRPC.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use istiod::app::{self, Running};
use istiod::auth::local::Issuer;
use istiod::config::args::{Cli, Command};
use istiod::config::env;
use istiod::state_dir::StateDir;
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use runtime::tasks::Tasks;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

/// A running istiod with directories of its own.
pub(crate) struct Plane {
    pub(crate) running: Running,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) door: Door,
}

/// The way in for clients of gRPC.
#[derive(Clone)]
pub(crate) struct Door {
    address: SocketAddr,
    roots: String,
    tasks: Tasks,
}

impl Plane {
    /// Starts one on free ports, with the objects of bookinfo.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    /// Starts one with that environment.
    pub(crate) async fn start_with(environment: impl Fn(&str) -> Option<String>) -> Self {
        Self::start_as(&[], environment).await
    }

    /// The same with further flags.
    pub(crate) async fn start_as(flags: &[&str], environment: impl Fn(&str) -> Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("objects");
        fs::create_dir(&objects).unwrap();
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/bookinfo");
        for entry in fs::read_dir(samples).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, objects.join(path.file_name().unwrap())).unwrap();
        }
        let (objects, state) =
            (objects.display().to_string(), dir.path().join("state").display().to_string());
        let free = "127.0.0.1:0";
        let args = ["istiod", "discovery", "--config-dir", &objects, "--state-dir", &state];
        let ports =
            ["--secureGRPCAddr", free, "--grpcAddr", free, "--monitoringAddr", free, "--httpAddr", free];
        let all = args.into_iter().chain(ports).chain(flags.iter().copied());
        let cli = Cli::try_parse_from(all).unwrap();
        let Command::Discovery(args) = cli.command else { panic!() };
        let running = app::build(env::resolve(&args, environment).unwrap()).await.unwrap();
        let door = Door { address: running.secure_grpc, roots: running.roots.clone(), tasks: Tasks::new() };
        let plane = Self { running, dir, door };
        while plane.page(plane.running.http, "/ready").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        plane
    }

    /// Replaces a file of the objects.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let draft = self.dir.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, self.dir.path().join("objects").join(name)).unwrap();
    }

    /// Waits until the objects of a file are in force.
    pub(crate) async fn settled(&self, name: &str) {
        while !self.page(self.running.monitoring, "/debug/sourcez").await.1.contains(name) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A file of the objects.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("objects").join(name)).unwrap()
    }

    /// What signs its tokens.
    pub(crate) fn tokens(&self) -> Issuer {
        Issuer::open(&StateDir::open(&self.dir.path().join("state")).unwrap()).unwrap()
    }

    /// A page of one of its HTTP ports.
    pub(crate) async fn page(&self, address: SocketAddr, path: &str) -> (u16, String) {
        page(address, path).await
    }

    /// What a call of any gRPC method ends with, when it ends at once.
    pub(crate) async fn call(&self, token: Option<&str>, path: &'static str) -> Status {
        self.door.call(token, path).await
    }

    /// Asks for a certificate.
    pub(crate) async fn certificate(
        &self,
        token: Option<&str>,
        csr: &str,
        ttl: i64,
    ) -> Result<IstioCertificateResponse, Status> {
        self.door.certificate(token, csr, ttl).await
    }

    /// Opens a stream of the state of the world.
    pub(crate) async fn sotw(&self, token: Option<&str>) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        self.door.sotw(token).await
    }

    /// Opens an incremental stream.
    pub(crate) async fn delta(
        &self,
        token: Option<&str>,
    ) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        self.door.delta_over(self.door.connect().await, token)
    }

    /// The same at the plaintext port, which asks for no credentials.
    pub(crate) async fn plain_delta(&self) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let stream = TcpStream::connect(self.running.plain_grpc.unwrap()).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        self.door.tasks.spawn("client", connection);
        self.door.delta_over(sender, None)
    }
}

/// A page of one of the HTTP ports.
pub(crate) async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Door {
    /// A connection.
    pub(crate) async fn connect(&self) -> SendRequest<tonic::body::Body> {
        self.connect_with(None).await
    }

    /// A connection below HTTP/2.
    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        let config = pki::verify::client_config(&self.roots, None, &[b"h2"]).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = "istiod.istio-system.svc".try_into().unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// The tasks of its clients.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// A connection on which so many bytes of a stream may come unread.
    pub(crate) async fn connect_with(&self, window: Option<u32>) -> SendRequest<tonic::body::Body> {
        let stream = self.tls().await;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn("client", connection);
        sender
    }

    /// What a call of any gRPC method ends with, when it ends at once.
    pub(crate) async fn call(&self, token: Option<&str>, path: &'static str) -> Status {
        let mut sender = self.connect().await;
        let request = http::Request::post(format!("https://istiod.istio-system.svc{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", token.unwrap_or_default()))
            .body(tonic::body::Body::empty())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        Status::from_header_map(response.headers()).unwrap_or_else(|| Status::ok("no status"))
    }

    /// Asks for a certificate.
    pub(crate) async fn certificate(
        &self,
        token: Option<&str>,
        csr: &str,
        ttl: i64,
    ) -> Result<IstioCertificateResponse, Status> {
        let mut sender = self.connect().await;
        let mut client = IstioCertificateServiceClient::with_origin(
            tower::service_fn(move |request| sender.send_request(request)),
            http::Uri::from_static("https://istiod.istio-system.svc"),
        );
        let csr = csr.to_owned();
        let request =
            IstioCertificateRequest { csr, validity_duration: ttl, ..IstioCertificateRequest::default() };
        client.create_certificate(with_token(request, token)).await.map(tonic::Response::into_inner)
    }

    /// Opens a stream of the state of the world.
    pub(crate) async fn sotw(&self, token: Option<&str>) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        let mut sender = self.connect().await;
        let mut client = AggregatedDiscoveryServiceClient::with_origin(
            tower::service_fn(move |request| sender.send_request(request)),
            http::Uri::from_static("https://istiod.istio-system.svc"),
        )
        .max_decoding_message_size(64 << 20);
        let (tx, rx) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(rx), token);
        let head = self.tasks.spawn("stream", async move {
            client.stream_aggregated_resources(request).await.map(tonic::Response::into_inner)
        });
        Exchange { requests: tx, head: Some(head), responses: None }
    }

    /// Opens an incremental stream on a connection.
    pub(crate) fn delta_over(
        &self,
        mut sender: SendRequest<tonic::body::Body>,
        token: Option<&str>,
    ) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let mut client = AggregatedDiscoveryServiceClient::with_origin(
            tower::service_fn(move |request| sender.send_request(request)),
            http::Uri::from_static("https://istiod.istio-system.svc"),
        )
        .max_decoding_message_size(64 << 20);
        let (tx, rx) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(rx), token);
        let head = self.tasks.spawn("stream", async move {
            client.delta_aggregated_resources(request).await.map(tonic::Response::into_inner)
        });
        Exchange { requests: tx, head: Some(head), responses: None }
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// The node of a pod of bookinfo.
pub(crate) fn node(pod: &str, address: &str) -> Option<Node> {
    Some(Node { id: format!("sidecar~{address}~{pod}.default~default.svc.cluster.local"), ..Node::default() })
}

type Head<R> = tokio::task::JoinHandle<Option<Result<Streaming<R>, Status>>>;

/// One stream. The answer's head may come long after the first requests.
pub(crate) struct Exchange<Q, R> {
    requests: mpsc::Sender<Q>,
    head: Option<Head<R>>,
    responses: Option<Streaming<R>>,
}

impl<Q, R> Exchange<Q, R> {
    pub(crate) async fn send(&mut self, request: Q) {
        // The end of the stream is seen by who waits for a response.
        self.requests.send(request).await.ok();
    }

    /// The next response, or why there is none.
    pub(crate) async fn next(&mut self) -> Result<R, Status> {
        if let Some(head) = &mut self.head {
            let head = head.await.unwrap().unwrap();
            self.head = None;
            self.responses = Some(head?);
        }
        let responses = self.responses.as_mut().ok_or_else(|| Status::aborted("no stream"))?;
        responses.message().await?.ok_or_else(|| Status::unavailable("end of stream"))
    }
}
