//! The xDS protocol core with nothing of the mesh around it, for a conformance
//! suite: what is served, and under which versions, is said by the suite
//! through an adapter service.

mod adapter;
mod state;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use self::adapter::wire::adapter_server::AdapterServer;
use self::state::State;

/// Where the two services listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// xDS.
    pub xds: SocketAddr,
    /// The adapter.
    pub adapter: SocketAddr,
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addresses: Addresses,
    tasks: Tasks,
}

/// Starts both services.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn start(addresses: Addresses) -> anyhow::Result<Running> {
    let tasks = Tasks::new();
    let (publish, state) = watch::channel(Arc::new(State::default()));
    let xds = TcpListener::bind(addresses.xds).await.with_context(|| addresses.xds.to_string())?;
    let adapter =
        TcpListener::bind(addresses.adapter).await.with_context(|| addresses.adapter.to_string())?;
    let addresses = Addresses { xds: xds.local_addr()?, adapter: adapter.local_addr()? };
    let service = AggregatedDiscoveryServiceServer::new(stream::Service::new(state, tasks.clone()));
    let router = Server::builder().add_service(service);
    tasks.spawn("xds", router.serve_with_incoming(TcpListenerStream::new(xds)));
    let router = Server::builder().add_service(AdapterServer::new(adapter::Service::new(publish)));
    tasks.spawn("adapter", router.serve_with_incoming(TcpListenerStream::new(adapter)));
    Ok(Running { addresses, tasks })
}

impl Running {
    /// Serves until the process ends.
    pub async fn wait(&self) {
        self.tasks.stopped().await;
    }
}

#[cfg(test)]
mod tests;
