//! A pod's directory with an agent in it, seen as Envoy sees it.

use bytes::Bytes;
use clap::Parser as _;
use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use istio_agent::app;
use istio_agent::config::args::{Args, Command};
use istio_agent::config::{Config, Envoy, Inputs, resolve};
use istio_agent::envoy::admin::Local;
use istio_agent::identity::{Current, Identity};
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use runtime::tasks::Tasks;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::PATIENCE;
use crate::istiod::{Istiod, NAME};

/// Kind of the frame that begins an answer.
pub(crate) const HEADERS: u8 = 1;

fn origin() -> http::Uri {
    http::Uri::from_static("http://envoy/")
}

/// An agent that is not running yet.
pub(crate) struct Prepared {
    dir: tempfile::TempDir,
    config: Config,
}

/// A running agent.
pub(crate) struct Pod {
    dir: tempfile::TempDir,
    identity: Current,
    port: u16,
    code: tokio::task::JoinHandle<Option<u8>>,
    signals: mpsc::Sender<()>,
    tasks: Tasks,
}

fn write(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

impl Pod {
    /// Runs an agent without Envoy against that control plane.
    pub(crate) async fn start(istiod: &Istiod, env: &[(&str, &str)]) -> Self {
        Self::prepare(istiod, env).run().await
    }

    /// Makes the directory and the configuration.
    pub(crate) fn prepare(istiod: &Istiod, env: &[(&str, &str)]) -> Prepared {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), names::path::ISTIOD_ROOT_CERT, &istiod.root_pem());
        write(dir.path(), names::path::TOKEN, "first\n");
        // The admin port is one that nobody listens on.
        let proxy = format!("{{discoveryAddress: '{}', statusPort: 0, proxyAdminPort: 1}}", istiod.address());
        let mut all: BTreeMap<String, String> = [
            ("PROXY_CONFIG", proxy.as_str()),
            ("ISTIOD_SAN", NAME),
            ("INSTANCE_IP", "127.0.0.1"),
            ("SERVICE_ACCOUNT", "web"),
            ("DISABLE_ENVOY", "true"),
        ]
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let Command::Proxy(args) = Args::try_parse_from(["istio-agent", "proxy"]).unwrap().command else {
            panic!()
        };
        let none = BTreeMap::new();
        let inputs = Inputs {
            args: &args,
            env: &all,
            labels: &none,
            annotations: &none,
            mesh_config: None,
            addresses: &[],
            root: dir.path(),
            module_dirs: &[],
            log_as_json: false,
        };
        let (config, _) = resolve(&inputs).unwrap();
        Prepared { dir, config }
    }

    pub(crate) fn write_token(&self, text: &str) {
        write(self.dir.path(), names::path::TOKEN, text);
    }

    pub(crate) fn write_root(&self, text: &str) {
        write(self.dir.path(), names::path::ISTIOD_ROOT_CERT, text);
    }

    /// A file in its directory, once it is there.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(path)).ok()
    }

    /// A file in its directory.
    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    /// The identity in force.
    pub(crate) fn identity(&self) -> Option<std::sync::Arc<Identity>> {
        self.identity.borrow().clone()
    }

    /// Ends the agent as a signal does.
    pub(crate) async fn stop(self) {
        self.signals.send(()).await.unwrap();
        assert_eq!(self.ended().await, 0);
    }

    /// Sends a signal and waits until the agent has seen it.
    pub(crate) async fn signal(&self) {
        self.signals.send(()).await.unwrap();
        drop(self.signals.reserve().await.unwrap());
    }

    /// Makes an empty file in its directory.
    pub(crate) fn touch(&self, name: &str) {
        write(self.dir.path(), name, "");
    }

    /// Its status port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the exit code.
    pub(crate) async fn ended(self) -> u8 {
        self.code.await.unwrap().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.call(Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> (u16, String) {
        self.call(Method::POST, path).await
    }

    /// A counter of the agent.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let (_, metrics) = self.get("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} in\n{metrics}")).parse().unwrap()
    }

    async fn call(&self, method: Method, path: &str) -> (u16, String) {
        let server = Local { port: self.port, tasks: self.tasks.clone() };
        let (code, body) = server.call(method, path, Bytes::new(), PATIENCE).await.unwrap();
        (code.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    /// A stream of secrets.
    pub(crate) async fn secrets(&self) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        self.secrets_at(names::path::SDS_SOCKET).await
    }

    /// A stream of secrets of another socket.
    pub(crate) async fn secrets_at(&self, socket: &str) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        let mut sender = self.connect(socket).await;
        let mut client = SecretDiscoveryServiceClient::with_origin(
            tower::service_fn(move |request| sender.send_request(request)),
            origin(),
        );
        let (tx, rx) = mpsc::channel(16);
        Exchange::new(
            tx,
            self.tasks.spawn("stream", async move { client.stream_secrets(ReceiverStream::new(rx)).await }),
        )
    }

    /// Opens a stream of secrets with an authority that no library here would
    /// send, its name encoded like that; returns the kinds of the frames up to the first of the stream.
    pub(crate) async fn raw_secret_stream(&self, name: &[u8], authority: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.dir.path().join(names::path::SDS_SOCKET)).await.unwrap();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
        let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
        // POST and http from the static table, then literals with names from it.
        let mut fields = vec![0x83, 0x86];
        for (name, value) in [(&[0x04][..], path), (name, authority), (&[0x5f], "application/grpc")] {
            fields.extend(name);
            fields.push(u8::try_from(value.len()).unwrap());
            fields.extend(value.bytes());
        }
        bytes.extend([0, 0, u8::try_from(fields.len()).unwrap(), HEADERS, 4, 0, 0, 0, 1]);
        bytes.extend(fields);
        stream.write_all(&bytes).await.unwrap();
        let mut kinds = Vec::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let [high, middle, low, kind, _, id @ ..] = head;
            let length = u32::from_be_bytes([0, high, middle, low]);
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            kinds.push(kind);
            if id == [0, 0, 0, 1] {
                return kinds;
            }
        }
    }

    /// An incremental xDS stream.
    pub(crate) async fn delta(&self) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let mut client = self.ads().await;
        let (tx, rx) = mpsc::channel(16);
        Exchange::new(
            tx,
            self.tasks.spawn("stream", async move {
                client.delta_aggregated_resources(ReceiverStream::new(rx)).await
            }),
        )
    }

    /// A state-of-the-world xDS stream.
    pub(crate) async fn sotw(&self) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        let mut client = self.ads().await;
        let (tx, rx) = mpsc::channel(16);
        Exchange::new(
            tx,
            self.tasks.spawn("stream", async move {
                client.stream_aggregated_resources(ReceiverStream::new(rx)).await
            }),
        )
    }

    async fn ads(
        &self,
    ) -> AggregatedDiscoveryServiceClient<
        impl tonic::client::GrpcService<
            tonic::body::Body,
            ResponseBody = hyper::body::Incoming,
            Error = hyper::Error,
            Future: Send,
        > + Send
        + use<>,
    > {
        let mut sender = self.connect("./etc/istio/proxy/XDS").await;
        AggregatedDiscoveryServiceClient::with_origin(
            tower::service_fn(move |request| sender.send_request(request)),
            origin(),
        )
        .max_decoding_message_size(64 << 20)
        .max_encoding_message_size(64 << 20)
    }

    async fn connect(&self, path: &str) -> hyper::client::conn::http2::SendRequest<tonic::body::Body> {
        let stream = UnixStream::connect(self.dir.path().join(path)).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        drop(self.tasks.spawn("client", connection));
        sender
    }
}

impl Prepared {
    pub(crate) fn remove_token(&self) {
        fs::remove_file(self.dir.path().join(names::path::TOKEN)).unwrap();
    }

    pub(crate) fn write_root(&self, text: &str) {
        write(self.dir.path(), names::path::ISTIOD_ROOT_CERT, text);
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        write(self.dir.path(), path, text);
    }

    /// Where a file of its directory is.
    pub(crate) fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    /// Gives it a shell script as its Envoy; `$0` is its directory.
    pub(crate) fn set_envoy(&mut self, script: &str) {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let args = vec!["-c".into(), script.into(), dir];
        self.config.envoy = Some(Envoy { binary: "/bin/sh".into(), args, env: Vec::new(), bootstrap: None });
        (self.config.status.runs_envoy, self.config.status.merge.envoy) = (true, true);
    }

    /// Its Envoy's admin port, and the longest drain.
    pub(crate) fn set_drain(&mut self, admin_port: u16, limit: std::time::Duration) {
        (self.config.status.admin_port, self.config.drain.admin_port) = (admin_port, admin_port);
        (self.config.drain.minimum, self.config.drain.limit) = (limit, Some(limit));
    }

    /// Runs the agent.
    pub(crate) async fn run(self) -> Pod {
        let running = app::build(self.config).await.unwrap();
        let (identity, port) = (running.identity.clone(), running.status.port());
        let (signals, rx) = mpsc::channel(1);
        let tasks = Tasks::new();
        let code = tasks.spawn("agent", running.run(rx));
        Pod { dir: self.dir, identity, port, code, signals, tasks }
    }
}

type Answer<R> = Result<Response<Streaming<R>>, Status>;

/// One stream: requests one way, responses the other. The answer's head may
/// come long after the first requests.
pub(crate) struct Exchange<Q, R> {
    requests: mpsc::Sender<Q>,
    head: Option<tokio::task::JoinHandle<Option<Answer<R>>>>,
    responses: Option<Streaming<R>>,
}

impl<Q, R> Exchange<Q, R> {
    pub(crate) fn new(requests: mpsc::Sender<Q>, head: tokio::task::JoinHandle<Option<Answer<R>>>) -> Self {
        Self { requests, head: Some(head), responses: None }
    }

    pub(crate) async fn send(&mut self, request: Q) {
        self.requests.send(request).await.ok();
    }

    /// The next response, or why there is none. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<R, Status> {
        if let Some(head) = &mut self.head {
            let answer = head.await.unwrap().unwrap();
            self.head = None;
            self.responses = Some(answer?.into_inner());
        }
        let responses = self.responses.as_mut().ok_or_else(|| Status::aborted("no stream"))?;
        responses.message().await?.ok_or_else(|| Status::unavailable("end of stream"))
    }
}

/// What a secret holds.
pub(crate) enum Secret {
    Certificate { chain: String, key: String },
    Roots(String),
}

/// Asks for one secret as Envoy does.
pub(crate) async fn secret(pod: &Pod, name: &str) -> Secret {
    let mut stream = pod.secrets().await;
    let request = DiscoveryRequest { resource_names: vec![name.into()], ..DiscoveryRequest::default() };
    stream.send(request).await;
    let response = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap().unwrap();
    let secret: tls::Secret = response.resources[0].unpack().unwrap();
    assert_eq!(secret.name, name);
    let text = |source: Option<proto::envoy::config::core::v3::DataSource>| match source.unwrap().specifier {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    match secret.r#type.unwrap() {
        Type::TlsCertificate(pair) => {
            Secret::Certificate { chain: text(pair.certificate_chain), key: text(pair.private_key) }
        }
        Type::ValidationContext(context) => Secret::Roots(text(context.trusted_ca)),
        other => panic!("{other:?}"),
    }
}
