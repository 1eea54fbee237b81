//! gRPC as an Envoy speaks it: over a Unix socket to the agent, or over TLS to
//! istiod.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::istio::v1::auth::IstioCertificateRequest;
use proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::{Request, Status, Streaming};

/// Name in istiod's certificate.
const ISTIOD: &str = "istiod.istio-system.svc";
/// Requests of a stream that may wait.
const QUEUE: usize = 16;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthQuestion {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HealthAnswer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Channel(SendRequest<Body>);

impl Channel {
    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn unix(path: &Path) -> anyhow::Result<Self> {
        Self::over(UnixStream::connect(path).await.with_context(|| path.display().to_string())?).await
    }

    /// Connects to istiod, which must have a certificate of these roots.
    ///
    /// # Errors
    /// When nobody listens, or somebody else.
    pub async fn tls(address: SocketAddr, roots: &str) -> anyhow::Result<Self> {
        let config = pki::verify::client_config(roots, None, &[b"h2"])?;
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        Self::over(TlsConnector::from(Arc::new(config)).connect(ISTIOD.try_into()?, stream).await?).await
    }

    /// Connects without encryption.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn plain(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        Self::over(stream).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> anyhow::Result<Self> {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Asks gRPC's health service for the status of a service.
    ///
    /// # Errors
    /// What it answers instead.
    pub async fn health(&self, service: &str) -> anyhow::Result<i32> {
        let mut sender = self.0.clone();
        let caller = tower::service_fn(move |request| sender.send_request(request));
        let origin = http::Uri::from_static("http://localhost");
        let mut client = tonic::client::Grpc::with_origin(caller, origin);
        client.ready().await?;
        let codec = tonic_prost::ProstCodec::<HealthQuestion, HealthAnswer>::default();
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let question = Request::new(HealthQuestion { service: service.to_owned() });
        Ok(client.unary(question, path, codec).await?.into_inner().status)
    }

    /// Opens an incremental xDS stream and sends the first request.
    ///
    /// # Errors
    /// When the stream is refused.
    pub async fn delta(
        &self,
        token: Option<&str>,
        first: DeltaDiscoveryRequest,
    ) -> anyhow::Result<Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>> {
        let mut sender = self.0.clone();
        let service = tower::service_fn(move |request| sender.send_request(request));
        let mut client =
            AggregatedDiscoveryServiceClient::with_origin(service, http::Uri::from_static("https://istiod"))
                .max_decoding_message_size(usize::MAX);
        let (requests, rx) = mpsc::channel(QUEUE);
        requests.send(first).await?;
        let mut request = Request::new(ReceiverStream::new(rx));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
        }
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Exchange { requests, responses })
    }

    /// Asks the CA for a certificate; `clusterid` goes with it if it is not empty.
    ///
    /// # Errors
    /// What the CA answers instead.
    pub async fn certificate(
        &self,
        token: Option<&str>,
        cluster: &str,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let mut sender = self.0.clone();
        let service = tower::service_fn(move |request| sender.send_request(request));
        let mut client =
            IstioCertificateServiceClient::with_origin(service, http::Uri::from_static("https://istiod"));
        let mut request = Request::new(request);
        let value = |text: &str| text.parse().map_err(|_| Status::internal("no header value"));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", value(&format!("Bearer {token}"))?);
        }
        if !cluster.is_empty() {
            request.metadata_mut().insert("clusterid", value(cluster)?);
        }
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    /// Opens a stream of secrets and sends the first request.
    ///
    /// # Errors
    /// When the stream is refused.
    pub async fn secrets(
        &self,
        first: DiscoveryRequest,
    ) -> anyhow::Result<Exchange<DiscoveryRequest, DiscoveryResponse>> {
        let mut sender = self.0.clone();
        let service = tower::service_fn(move |request| sender.send_request(request));
        let mut client =
            SecretDiscoveryServiceClient::with_origin(service, http::Uri::from_static("http://agent"));
        let (requests, rx) = mpsc::channel(QUEUE);
        requests.send(first).await?;
        let responses = client.stream_secrets(Request::new(ReceiverStream::new(rx))).await?.into_inner();
        Ok(Exchange { requests, responses })
    }
}

/// A stream both ways.
#[derive(Debug)]
pub struct Exchange<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
}

impl<Q: Send + Sync + 'static, R> Exchange<Q, R> {
    /// Sends a request.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn send(&self, request: Q) -> anyhow::Result<()> {
        Ok(self.requests.send(request).await?)
    }

    /// The next response.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn next(&mut self) -> anyhow::Result<R> {
        match self.responses.message().await? {
            Some(response) => Ok(response),
            None => bail!("end of stream"),
        }
    }
}
