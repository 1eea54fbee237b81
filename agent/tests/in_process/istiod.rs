//! A control plane for tests: a real CA and an xDS server that answers each
//! request with its own names, over TLS and HTTP/2.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
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
use tokio_rustls::TlsAcceptor;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tower::ServiceExt as _;

/// Name in the certificate.
pub(crate) const NAME: &str = "istiod.istio-system.svc";
const DAY: Duration = Duration::from_secs(86_400);
const BACKLOG: u32 = 128;

type Headers = BTreeMap<String, String>;

/// What all services share.
#[derive(Clone)]
struct Shared {
    issuer: Arc<Issuer>,
    calls: Arc<Mutex<Vec<Headers>>>,
    streams: Arc<Mutex<Vec<Headers>>>,
    connections: Arc<AtomicUsize>,
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
            issuer: Arc::new(issuer),
            calls: Arc::default(),
            streams: Arc::default(),
            connections: Arc::default(),
        };
        Self::listen(shared, bound(([127, 0, 0, 1], 0).into()))
    }

    fn listen(shared: Shared, socket: TcpSocket) -> Self {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = Csr::of_key(&key).unwrap();
        let chain = shared.issuer.issue(&csr, &[San::Dns(NAME.into())], DAY, SystemTime::now()).unwrap();
        let config =
            pki::verify::server_config(&chain.concat(), &key, shared.issuer.root_pem(), &[b"h2"]).unwrap();
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
                    let service = hyper::service::service_fn(move |request| answer(shared.clone(), request));
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

    pub(crate) fn root_pem(&self) -> &str {
        self.shared.issuer.root_pem()
    }

    /// Headers of the requests for certificates.
    pub(crate) fn calls(&self) -> Vec<Headers> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Headers of the xDS streams.
    pub(crate) fn streams(&self) -> Vec<Headers> {
        self.shared.streams.lock().unwrap().clone()
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
        let known = headers.contains_key("authorization");
        self.calls.lock().unwrap().push(headers);
        if !known {
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let request = request.into_inner();
        let csr = Csr::parse(&request.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ttl = Duration::from_secs(request.validity_duration.try_into().unwrap());
        let id = San::Spiffe("spiffe://cluster.local/ns/default/sa/web".parse().unwrap());
        let cert_chain = self.issuer.issue(&csr, &[id], ttl, SystemTime::now()).unwrap();
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
        let responses = request.into_inner().map(|request| {
            let version_info = request?.resource_names.join(",");
            Ok(DiscoveryResponse { version_info, ..DiscoveryResponse::default() })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.streams.lock().unwrap().push(headers(request.metadata()));
        let responses = request.into_inner().map(|request| {
            let request = request?;
            let resources = request.resource_names_subscribe.into_iter().map(|name| Resource {
                resource: Some(Any {
                    type_url: request.type_url.clone(),
                    value: vec![7; name.len() * 2].into(),
                }),
                name,
                ..Resource::default()
            });
            let resources = resources.collect();
            Ok(DeltaDiscoveryResponse {
                resources,
                type_url: request.type_url,
                ..DeltaDiscoveryResponse::default()
            })
        });
        Ok(Response::new(Box::pin(responses)))
    }
}
