//! A control plane that answers with what a real one did: the states of the set's
//! proxies, their recorded pages, and as configuration of a sidecar what its Envoy
//! was recorded to have.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use anyhow::Context as _;
use prost::Message as _;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::{Any, reflect};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _, once, pending};
use tonic::{Request, Response, Status, Streaming};

/// The proxy whose configuration is recorded.
const PROXY: &str = "web-0.bookinfo";

/// It, until it is dropped.
pub(super) struct Plane {
    address: SocketAddr,
    _runtime: Runtime,
}

/// What it answers.
#[derive(Clone, Debug, Default)]
struct Recorded {
    states: DiscoveryResponse,
    configuration: Vec<Any>,
    syncz: String,
}

impl Plane {
    /// Starts it with what a directory has.
    pub(super) fn start(dir: &Path) -> anyhow::Result<Self> {
        let recorded = Recorded::read(dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let service = AggregatedDiscoveryServiceServer::new(recorded);
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(Self { address, _runtime: runtime })
    }

    /// Where it listens, without TLS.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Recorded {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let printed = |name: &str| -> anyhow::Result<Option<String>> {
            let Ok(text) = fs::read_to_string(dir.join(name)) else { return Ok(None) };
            let case: Value = serde_json::from_str(&text).with_context(|| name.to_owned())?;
            Ok(case["stdout"].as_str().map(ToOwned::to_owned))
        };
        let mut recorded = Self::default();
        if let Some(text) = printed("ps-json.json")? {
            let bytes = reflect::from_json(
                "envoy.service.discovery.v3.DiscoveryResponse",
                serde_json::from_str(&text)?,
            )?;
            recorded.states = DiscoveryResponse::decode(bytes.as_slice())?;
        }
        recorded.syncz = printed("debug-syncz.json")?.unwrap_or_default();
        if let Ok(text) = fs::read_to_string(dir.join("files/web-config_dump.json")) {
            let dump: Value = serde_json::from_str(&text)?;
            for section in dump["configs"].as_array().into_iter().flatten() {
                let wanted = ["ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump"];
                let is_wanted = section["@type"]
                    .as_str()
                    .is_some_and(|name| wanted.iter().any(|end| name.ends_with(end)));
                if is_wanted {
                    let bytes = reflect::from_json("google.protobuf.Any", section.clone())?;
                    recorded.configuration.push(Any::decode(bytes.as_slice())?);
                }
            }
        }
        Ok(recorded)
    }

    fn answer(&self, request: &DiscoveryRequest) -> DiscoveryResponse {
        let resources = match request.type_url.as_str() {
            "istio.io/debug/syncz" => return self.states.clone(),
            "istio.io/debug/config_dump" if request.resource_names == [PROXY] => self.configuration.clone(),
            "istio.io/debug" => {
                vec![Any { type_url: request.type_url.clone(), value: self.syncz.clone().into() }]
            }
            _ => Vec::new(),
        };
        DiscoveryResponse {
            type_url: request.type_url.clone(),
            resources,
            control_plane: self.states.control_plane.clone(),
            ..DiscoveryResponse::default()
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Recorded {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let first = request.into_inner().message().await?;
        let answer = self.answer(&first.unwrap_or_default());
        Ok(Response::new(Box::pin(once(Ok(answer)).chain(pending()))))
    }

    async fn delta_aggregated_resources(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("not asked by istioctl"))
    }
}
