//! The server on a real socket, asked as Envoy does.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, Format, PrivateKey};
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use runtime::tasks::Tasks;
use runtime::watch::files::Files;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::server::Server;
use super::source::Secrets;
use crate::config::sds::Sds;
use crate::identity::Identity;
use crate::identity::files::Store;
use crate::metrics::Metrics;
use crate::unix::{self, Access};

const PATIENCE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
const REVOKED: &str = include_str!("../../../crates/pki/testdata/crl.pem");
/// Who has revoked them.
const REVOKING: &str = include_str!("../../../crates/pki/testdata/p521-cert.pem");

struct World {
    dir: tempfile::TempDir,
    issuer: Issuer,
    identity: watch::Sender<Option<Arc<Identity>>>,
    tasks: Tasks,
}

impl World {
    async fn start() -> Self {
        Self::with(true).await
    }

    async fn with(has_identity: bool) -> Self {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let at = |name: &str| dir.path().join(name);
        let settings = Sds {
            workload: at("socket"),
            is_renamed: false,
            files: at("files"),
            credentials: at("credentials"),
            access: Access::Proxy,
            debounce: Duration::from_millis(10),
            revoked: Some(at("crl.pem")),
            key_provider: None,
        };
        let files = Files::start(&tasks, |path, error| panic!("{}: {error}", path.display()));
        let store = Store::new(files.clone(), settings.debounce, tasks.clone(), Metrics::default().files);
        let (identity, current) = watch::channel(None);
        let secrets = Secrets::new(&settings, has_identity.then_some(current), store);
        let socket = unix::listen(&settings.workload, settings.access).await.unwrap();
        let service = SecretDiscoveryServiceServer::new(Server::new(secrets));
        unix::serve(&tasks, "sds", socket, &files, TowerToHyperService::new(service));
        let issuer = Issuer::self_signed("cluster.local", 24 * HOUR, SystemTime::now()).unwrap().0;
        Self { dir, issuer, identity, tasks }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file in place as a whole.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.at("draft"), text).unwrap();
        fs::rename(self.at("draft"), self.at(name)).unwrap();
    }

    fn issue(&self) -> (PrivateKey, Vec<String>) {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let san = San::Spiffe("spiffe://cluster.local/ns/a/sa/b".parse().unwrap());
        let csr = Csr::of_key(&key).unwrap();
        let chain = self.issuer.issue(&csr, &[san], HOUR, SystemTime::now()).unwrap();
        (key, chain)
    }

    /// A new certificate of the workload; returns its chain.
    fn renew(&self) -> String {
        let (key, chain) = self.issue();
        let identity = Identity::new(&key, Format::Traditional, &chain, SystemTime::now()).unwrap();
        let pem = identity.chain_pem.clone();
        self.identity.send_replace(Some(Arc::new(identity)));
        pem
    }

    /// A new certificate in files; returns its chain.
    fn write_pair(&self) -> String {
        let (key, chain) = self.issue();
        let chain = pki::certificate::join_pem(&chain);
        self.write("chain.pem", &chain);
        self.write("key.pem", &key.to_pkcs8_pem());
        chain
    }

    fn pair(&self) -> String {
        format!("file-cert:{}~{}", self.at("chain.pem").display(), self.at("key.pem").display())
    }

    fn roots(&self) -> String {
        format!("file-root:{}", self.at("roots.pem").display())
    }

    async fn client(&self) -> SecretDiscoveryServiceClient<Client> {
        let stream = UnixStream::connect(self.at("socket")).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        drop(self.tasks.spawn("client", connection));
        let origin = http::Uri::from_static("http://agent/");
        SecretDiscoveryServiceClient::with_origin(Client(sender), origin)
    }

    async fn sotw(&self) -> Exchange<DiscoveryRequest, DiscoveryResponse> {
        let mut client = self.client().await;
        let (requests, rx) = mpsc::channel(16);
        let head = async move { client.stream_secrets(ReceiverStream::new(rx)).await };
        Exchange { requests, responses: soon("a stream", head).await.unwrap().into_inner() }
    }

    async fn delta(&self) -> Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse> {
        let mut client = self.client().await;
        let (requests, rx) = mpsc::channel(16);
        let head = async move { client.delta_secrets(ReceiverStream::new(rx)).await };
        Exchange { requests, responses: soon("a stream", head).await.unwrap().into_inner() }
    }

    async fn fetch(&self, names: &[&str]) -> Result<DiscoveryResponse, Status> {
        let request = sotw(names, "");
        Ok(self.client().await.fetch_secrets(request).await?.into_inner())
    }
}

/// What speaks HTTP/2 to the socket.
#[derive(Clone)]
struct Client(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Client {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

struct Exchange<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
}

impl<Q: std::fmt::Debug, R> Exchange<Q, R> {
    async fn send(&self, request: Q) {
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<R, Status> {
        let next = soon("an answer", self.responses.message()).await?;
        Ok(next.unwrap_or_else(|| panic!("the stream has ended")))
    }

    /// Nothing comes for a while.
    async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_millis(200), self.responses.message()).await.is_err()
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}"))
}

fn sotw(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        type_url: names::TypeUrl::Secret.as_str().to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn text(source: Option<proto::envoy::config::core::v3::DataSource>) -> String {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        None => String::new(),
        other => panic!("{other:?}"),
    }
}

/// Name of a secret, its chain or roots, and its key or revoked certificates.
fn open(any: &proto::Any) -> (String, String, String) {
    let secret: Secret = any.unpack().unwrap();
    match secret.r#type.unwrap() {
        Type::TlsCertificate(pair) => (secret.name, text(pair.certificate_chain), text(pair.private_key)),
        Type::ValidationContext(context) => (secret.name, text(context.trusted_ca), text(context.crl)),
        other => panic!("{other:?}"),
    }
}

fn names_of(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| open(any).0).collect()
}

#[tokio::test]
async fn a_stream_gets_everything_it_asks_for_and_what_changes_of_it() {
    let world = World::start().await;
    let first = world.renew();
    let in_files = world.write_pair();
    world.write("roots.pem", world.issuer.root_pem());
    let (pair, roots) = (world.pair(), world.roots());
    let all = ["default", "ROOTCA", &pair, &roots, "default"];
    let mut stream = world.sotw().await;
    stream.send(sotw(&all, "")).await;
    let response = stream.next().await.unwrap();
    assert_eq!(names_of(&response), all[..4], "in one response, each once");
    assert_eq!(open(&response.resources[0]).1, first);
    assert_eq!(open(&response.resources[1]).1, world.issuer.root_pem());
    assert_eq!(open(&response.resources[2]).1, in_files);
    assert!(open(&response.resources[2]).2.contains("PRIVATE KEY"));
    assert_eq!(open(&response.resources[3]).1, world.issuer.root_pem());
    let nonce = response.nonce.clone();
    stream.send(sotw(&all, &nonce)).await;
    assert!(stream.is_quiet().await, "an acknowledgement is not answered");

    // Renewal: roots that are the same are not sent again.
    let second = world.renew();
    let response = stream.next().await.unwrap();
    assert_eq!((names_of(&response), open(&response.resources[0]).1), (vec!["default".to_owned()], second));
    assert_ne!(response.version_info.split_once('/').unwrap().1, "1");
    stream.send(sotw(&all, &nonce)).await;
    assert!(stream.is_quiet().await, "an old nonce is ignored");
    stream.send(sotw(&all, &response.nonce)).await;
    // A change of files.
    let renewed = world.write_pair();
    let response = stream.next().await.unwrap();
    assert_eq!((names_of(&response), open(&response.resources[0]).1), (vec![pair.clone()], renewed));
    // Only what is asked for in addition is sent.
    stream.send(sotw(&["default"], &response.nonce)).await;
    stream.send(sotw(&["default", &roots], &response.nonce)).await;
    let response = stream.next().await.unwrap();
    assert_eq!(names_of(&response), [roots]);
    // Nothing is asked for any more.
    stream.send(sotw(&[], &response.nonce)).await;
    assert!(stream.is_quiet().await);
    world.renew();
    assert!(stream.is_quiet().await);
    // Somebody who comes with the nonce of another server is answered.
    stream.send(sotw(&["ROOTCA"], "another")).await;
    assert_eq!(names_of(&stream.next().await.unwrap()), ["ROOTCA"]);
}

#[tokio::test]
async fn a_refusal_is_not_answered_and_the_next_change_is_sent() {
    let world = World::start().await;
    let mut stream = world.sotw().await;
    stream.send(sotw(&["default"], "")).await;
    assert!(stream.is_quiet().await, "there is none yet");
    world.renew();
    let response = stream.next().await.unwrap();
    let refusal = DiscoveryRequest {
        error_detail: Some(proto::google::rpc::Status {
            code: 13,
            message: "bad".into(),
            ..Default::default()
        }),
        ..sotw(&["default"], &response.nonce)
    };
    stream.send(refusal).await;
    assert!(stream.is_quiet().await);
    let second = world.renew();
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).1, second);
}

#[tokio::test]
async fn what_there_is_not_ends_the_stream_with_the_reason() {
    let world = World::start().await;
    for (request, code, part) in [
        (sotw(&["default", "kubernetes://x"], ""), Code::NotFound, "no secret \"kubernetes://x\""),
        (sotw(&["file-cert:a"], ""), Code::NotFound, "expected file-cert:CHAIN~KEY"),
        (
            DiscoveryRequest { type_url: "type.googleapis.com/x".into(), ..sotw(&["default"], "") },
            Code::InvalidArgument,
            "type.googleapis.com/x",
        ),
        (sotw(&vec!["default"; 1001], ""), Code::ResourceExhausted, "at most 1000"),
    ] {
        let mut stream = world.sotw().await;
        stream.send(request).await;
        let status = stream.next().await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    }
    let mut stream = world.delta().await;
    stream.send(subscribe(&["nothing"])).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::NotFound);

    let other = World::with(false).await;
    let mut stream = other.sotw().await;
    stream.send(sotw(&["default"], "")).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("another server of this pod serves it"), "{status:?}");
    other.write_pair();
    let pair = other.pair();
    assert_eq!(names_of(&other.fetch(&[&pair]).await.unwrap()), [pair]);
}

#[tokio::test]
async fn incremental_streams_get_what_is_new_to_them() {
    let world = World::start().await;
    let first = world.renew();
    let mut stream = world.delta().await;
    stream.send(subscribe(&["default", "ROOTCA"])).await;
    let response = stream.next().await.unwrap();
    assert_eq!(response.resources.len(), 2);
    assert_eq!(open(response.resources[0].resource.as_ref().unwrap()).1, first);
    let has: std::collections::BTreeMap<String, String> =
        response.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    let ack = DeltaDiscoveryRequest { response_nonce: response.nonce, ..DeltaDiscoveryRequest::default() };
    stream.send(ack).await;
    assert!(stream.is_quiet().await);

    // Who comes back with the same is sent nothing.
    let mut again = world.delta().await;
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: has.clone(), ..subscribe(&["default", "ROOTCA"]) };
    again.send(request).await;
    assert!(again.is_quiet().await);
    // Who subscribes again is sent it again.
    again.send(subscribe(&["ROOTCA"])).await;
    assert_eq!(again.next().await.unwrap().resources[0].version, has["ROOTCA"]);
    // A renewal reaches both, and only the certificate has changed.
    let second = world.renew();
    for stream in [&mut stream, &mut again] {
        let response = stream.next().await.unwrap();
        assert_eq!(response.resources.len(), 1);
        assert_eq!(open(response.resources[0].resource.as_ref().unwrap()).1, second);
        assert_ne!(response.resources[0].version, has["default"]);
        assert!(response.removed_resources.is_empty());
    }
    let request = DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["default".into()],
        ..DeltaDiscoveryRequest::default()
    };
    stream.send(request).await;
    assert!(stream.is_quiet().await);
    world.renew();
    assert!(stream.is_quiet().await, "it is not asked for any more");
    assert_eq!(again.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn files_that_go_are_never_told_as_removed() {
    let world = World::start().await;
    let first = world.write_pair();
    let pair = world.pair();
    let mut stream = world.delta().await;
    stream.send(subscribe(&[&pair])).await;
    let response = stream.next().await.unwrap();
    assert_eq!(open(response.resources[0].resource.as_ref().unwrap()).1, first);
    fs::remove_file(world.at("chain.pem")).unwrap();
    fs::remove_file(world.at("key.pem")).unwrap();
    assert!(stream.is_quiet().await);
    assert_eq!(open(&world.fetch(&[&pair]).await.unwrap().resources[0]).1, first);
    let second = world.write_pair();
    let response = stream.next().await.unwrap();
    assert_eq!(open(response.resources[0].resource.as_ref().unwrap()).1, second);
    assert!(response.removed_resources.is_empty());
}

#[tokio::test]
async fn lists_of_revoked_certificates_go_along_with_roots() {
    let world = World::start().await;
    world.renew();
    let mut stream = world.sotw().await;
    stream.send(sotw(&["ROOTCA"], "")).await;
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).2, "");
    world.write("crl.pem", REVOKED);
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).2, REVOKED);
    world.write("crl.pem", "garbage");
    assert!(stream.is_quiet().await, "the last good list stays");
    let twice = format!("{REVOKED}{REVOKED}");
    world.write("crl.pem", &twice);
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).2, twice);
    fs::remove_file(world.at("crl.pem")).unwrap();
    assert!(stream.is_quiet().await);
    world.write("crl.pem", REVOKED);
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).2, REVOKED);

    // Roots in files have lists only when they are theirs.
    let roots = world.roots();
    for (pem, list) in [(REVOKING, REVOKED), (world.issuer.root_pem(), "")] {
        world.write("roots.pem", pem);
        let response = world.fetch(&[&roots]).await.unwrap();
        assert_eq!(open(&response.resources[0]), (roots.clone(), pem.to_owned(), list.to_owned()));
    }

    // Where the list cannot be read from the start, there are no roots without it.
    let world = World::start().await;
    world.write("crl.pem", "garbage");
    world.renew();
    let mut stream = world.sotw().await;
    stream.send(sotw(&["ROOTCA"], "")).await;
    assert!(stream.is_quiet().await);
    world.write("crl.pem", REVOKED);
    assert_eq!(open(&stream.next().await.unwrap().resources[0]).2, REVOKED);
}

#[tokio::test]
async fn single_answers_wait_a_while_for_what_is_not_there_yet() {
    let world = World::start().await;
    let pair = world.pair();
    let late = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (world.renew(), world.write_pair())
    };
    let names = ["default", &pair];
    let (response, (chain, in_files)) = tokio::join!(world.fetch(&names), late);
    let response = response.unwrap();
    assert_eq!(open(&response.resources[0]).1, chain);
    assert_eq!(open(&response.resources[1]).1, in_files);
    assert_eq!(world.fetch(&[]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.fetch(&["x"]).await.unwrap_err().code(), Code::NotFound);
    tokio::time::pause();
    let missing = world.roots();
    let status = world.fetch(&[&missing]).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("roots.pem: No such file"), "{status:?}");
}
