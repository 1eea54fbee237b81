//! A control plane for tests: a real CA and an xDS server that answers each
//! request with its own names, over TLS and HTTP/2.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::certificate::Certificate;
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, Format, PrivateKey};
use proto::Any;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use runtime::tasks::Tasks;
use tokio::net::TcpSocket;
use tokio::sync::broadcast;
use tokio_rustls::TlsAcceptor;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt as _;

/// Name in the certificate.
pub(crate) const NAME: &str = "istiod.istio-system.svc";
const DAY: Duration = Duration::from_secs(86_400);
const BACKLOG: u32 = 128;
/// Pushes that wait to be sent.
const PUSHES: usize = 64;

type Headers = BTreeMap<String, String>;

/// What all services share.
#[derive(Clone)]
struct Shared {
    /// Signs; may be replaced while it runs.
    issuer: Arc<Mutex<Arc<Issuer>>>,
    /// What requests for certificates are refused with.
    refusal: Arc<Mutex<Option<tonic::Code>>>,
    /// Identities that clients have shown in TLS, for each call.
    shown: Arc<Mutex<Vec<Vec<String>>>>,
    calls: Arc<Mutex<Vec<Headers>>>,
    streams: Arc<Mutex<Vec<Headers>>>,
    connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Asked>>>,
    refusals: Arc<Mutex<VecDeque<Status>>>,
    open: Arc<AtomicUsize>,
    sotw: broadcast::Sender<DiscoveryResponse>,
    delta: broadcast::Sender<DeltaDiscoveryResponse>,
}

/// What a request on an xDS stream said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) type_url: String,
    pub(crate) version: String,
    pub(crate) nonce: String,
    pub(crate) error: Option<String>,
    pub(crate) has_node: bool,
}

/// Identities of the client's certificate.
#[derive(Clone)]
struct Shown(Vec<String>);

impl Shared {
    fn issuer(&self) -> Arc<Issuer> {
        self.issuer.lock().unwrap().clone()
    }
}

/// A running control plane; it ends when dropped.
pub(crate) struct Istiod {
    shared: Shared,
    address: SocketAddr,
    tasks: Tasks,
    /// Bound to the same address but not listening: nobody else can take the
    /// port while istiod is down, and connections are refused meanwhile.
    next: TcpSocket,
}

impl Istiod {
    /// Starts on a free port.
    pub(crate) async fn start() -> Self {
        let (issuer, _) = Issuer::self_signed("cluster.local", DAY, SystemTime::now()).unwrap();
        let shared = Shared {
            issuer: Arc::new(Mutex::new(Arc::new(issuer))),
            refusal: Arc::default(),
            shown: Arc::default(),
            calls: Arc::default(),
            streams: Arc::default(),
            connections: Arc::default(),
            asked: Arc::default(),
            refusals: Arc::default(),
            open: Arc::default(),
            sotw: broadcast::channel(PUSHES).0,
            delta: broadcast::channel(PUSHES).0,
        };
        Self::listen(shared, bound(([127, 0, 0, 1], 0).into()))
    }

    fn listen(shared: Shared, socket: TcpSocket) -> Self {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = Csr::of_key(&key).unwrap();
        let issuer = shared.issuer();
        let chain = issuer.issue(&csr, &[San::Dns(NAME.into())], DAY, SystemTime::now()).unwrap();
        let config = pki::verify::server_config(&chain.concat(), &key, issuer.root_pem(), &[b"h2"]).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = socket.local_addr().unwrap();
        let (listener, next) = (socket.listen(BACKLOG).unwrap(), bound(address));
        let tasks = Tasks::new();
        let (set, serving) = (tasks.clone(), shared.clone());
        drop(tasks.spawn("accept", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, shared) = (acceptor.clone(), serving.clone());
                drop(set.spawn("connection", async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    shared.connections.fetch_add(1, Ordering::Relaxed);
                    let client = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let client = client.map(|der| Certificate::from_der(der).unwrap().uris);
                    let service = hyper::service::service_fn(move |mut request: http::Request<_>| {
                        request.extensions_mut().insert(Shown(client.clone().unwrap_or_default()));
                        answer(shared.clone(), request)
                    });
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                        .ok();
                }));
            }
        }));
        Self { shared, address, tasks, next }
    }

    /// Ends it as a crash would; nothing listens at its address afterwards.
    pub(crate) async fn stop(&self) {
        assert!(self.tasks.stop(Duration::from_secs(60)).await, "a connection does not end");
    }

    /// The same control plane again, at the same address.
    pub(crate) fn restart(self) -> Self {
        Self::listen(self.shared, self.next)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn root_pem(&self) -> String {
        self.shared.issuer().root_pem().to_owned()
    }

    /// Signs with another root from now on; its own certificate stays that of the old one.
    pub(crate) fn replace_root(&self) {
        let (issuer, _) = Issuer::self_signed("cluster.local", DAY, SystemTime::now()).unwrap();
        *self.shared.issuer.lock().unwrap() = Arc::new(issuer);
    }

    /// Refuses requests for certificates, or no longer.
    pub(crate) fn refuse(&self, code: Option<tonic::Code>) {
        *self.shared.refusal.lock().unwrap() = code;
    }

    /// A certificate of that identity, and its key, PEM.
    pub(crate) fn issue(&self, id: &str) -> (String, String) {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let (csr, id) = (Csr::of_key(&key).unwrap(), San::Spiffe(id.parse().unwrap()));
        let chain = self.shared.issuer().issue(&csr, &[id], DAY, SystemTime::now()).unwrap();
        (chain.concat(), key.to_pem(Format::Traditional).to_string())
    }

    /// Identities that were shown in TLS with each request for a certificate.
    pub(crate) fn shown(&self) -> Vec<Vec<String>> {
        self.shared.shown.lock().unwrap().clone()
    }

    /// Headers of the requests for certificates.
    pub(crate) fn calls(&self) -> Vec<Headers> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Headers of the xDS streams.
    pub(crate) fn streams(&self) -> Vec<Headers> {
        self.shared.streams.lock().unwrap().clone()
    }

    /// Requests on xDS streams so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Ends the next streams with that status, one each.
    pub(crate) fn refuse_streams(&self, statuses: impl IntoIterator<Item = Status>) {
        self.shared.refusals.lock().unwrap().extend(statuses);
    }

    /// xDS streams that are open.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Sends a response on every incremental stream.
    pub(crate) fn push(&self, response: DeltaDiscoveryResponse) {
        self.shared.delta.send(response).unwrap();
    }

    /// Sends a response on every stream of the other variant.
    pub(crate) fn push_sotw(&self, response: DiscoveryResponse) {
        self.shared.sotw.send(response).unwrap();
    }

    /// TLS connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

/// A socket with that address that does not listen yet.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn answer(
    shared: Shared,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<tonic::body::Body>, Infallible> {
    if request.uri().path().starts_with("/istio.v1.auth.") {
        IstioCertificateServiceServer::new(shared).oneshot(request).await
    } else {
        AggregatedDiscoveryServiceServer::new(shared)
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20)
            .oneshot(request)
            .await
    }
}

fn headers(metadata: &MetadataMap) -> Headers {
    let headers = metadata.clone().into_headers();
    let pairs = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    pairs.collect()
}

#[tonic::async_trait]
impl IstioCertificateService for Shared {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let headers = headers(request.metadata());
        let shown = request.extensions().get::<Shown>().unwrap().0.clone();
        let known = headers.contains_key("authorization") || !shown.is_empty();
        self.calls.lock().unwrap().push(headers);
        self.shown.lock().unwrap().push(shown);
        let refusal = *self.refusal.lock().unwrap();
        if let Some(code) = refusal {
            return Err(Status::new(code, "not now"));
        }
        if !known {
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let request = request.into_inner();
        let csr = Csr::parse(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ttl = Duration::from_secs(request.validity_duration.try_into().unwrap());
        let id = San::Spiffe("spiffe://cluster.local/ns/default/sa/web".parse().unwrap());
        let cert_chain = self.issuer().issue(&csr, &[id], ttl, SystemTime::now()).unwrap();
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Shared {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.begin(request.metadata())?;
        let shared = self.clone();
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request.map(|request| {
                shared.note(Asked {
                    type_url: request.type_url.clone(),
                    version: request.version_info,
                    nonce: request.response_nonce.clone(),
                    error: request.error_detail.map(|status| status.message),
                    has_node: request.node.is_some(),
                });
                is_answered(&request.type_url, &request.response_nonce).then(|| DiscoveryResponse {
                    version_info: request.resource_names.join(","),
                    type_url: request.type_url,
                    ..DiscoveryResponse::default()
                })
            });
            std::future::ready(answer.transpose())
        });
        Ok(Response::new(with_pushes(answers, &self.sotw, Open::new(&self.open))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.begin(request.metadata())?;
        let shared = self.clone();
        let answers = request.into_inner().filter_map(move |request| {
            let answer = request.map(|request| {
                shared.note(Asked {
                    type_url: request.type_url.clone(),
                    version: String::new(),
                    nonce: request.response_nonce.clone(),
                    error: request.error_detail.map(|status| status.message),
                    has_node: request.node.is_some(),
                });
                let resources = request.resource_names_subscribe.into_iter().map(|name| Resource {
                    resource: Some(Any {
                        type_url: request.type_url.clone(),
                        value: vec![7; name.len() * 2].into(),
                    }),
                    name,
                    ..Resource::default()
                });
                is_answered(&request.type_url, &request.response_nonce).then(|| DeltaDiscoveryResponse {
                    resources: resources.collect(),
                    type_url: request.type_url.clone(),
                    ..DeltaDiscoveryResponse::default()
                })
            });
            std::future::ready(answer.transpose())
        });
        Ok(Response::new(with_pushes(answers, &self.delta, Open::new(&self.open))))
    }
}

impl Shared {
    fn begin(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.streams.lock().unwrap().push(headers(metadata));
        self.refusals.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }
}

/// ACKs are not answered, and what the agent asks for itself only by a push.
fn is_answered(type_url: &str, nonce: &str) -> bool {
    nonce.is_empty() && type_url.starts_with("type.googleapis.com/envoy.")
}

/// An open stream.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn with_pushes<T: Clone + Send + 'static>(
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    pushes: &broadcast::Sender<T>,
    open: Open,
) -> Responses<T> {
    let pushes = tokio_stream::wrappers::BroadcastStream::new(pushes.subscribe());
    let pushes = pushes.map(move |push| {
        // Counted as long as the stream is there.
        let Open(_) = &open;
        push.map_err(|error| Status::internal(error.to_string()))
    });
    Box::pin(futures_util::stream::select(answers, pushes))
}
