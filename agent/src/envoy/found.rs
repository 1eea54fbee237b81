//! What is found out while the agent starts and goes into the bootstraps.

use std::net::IpAddr;
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::sync::oneshot;
use tracing::warn;

use super::bootstrap::late;
use crate::config::node::{Family, Node};
use crate::config::platform::Known;
use crate::config::{Envoy, Late, Paths};
use crate::grpc_bootstrap::{self, Settings};

/// Longest time that the name of a server for statistics is looked up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    platform: Known,
    statsd: Option<(IpAddr, u16)>,
}

/// A search that is under way.
#[derive(Debug)]
pub struct Search(oneshot::Receiver<Found>);

impl Found {
    /// Begins to search, beside everything else.
    pub fn search(late: Late, family: Family, tasks: &Tasks) -> Search {
        let (sender, receiver) = oneshot::channel();
        drop(tasks.spawn("search", async move {
            let Late { platform, statsd } = late;
            let statsd = async {
                let address = statsd?;
                let name = (address.host.clone(), address.port);
                let looked_up = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(name)).await;
                let found = looked_up.ok().and_then(Result::ok).and_then(|mut all| all.next());
                if found.is_none() {
                    warn!(
                        host = address.host,
                        "statsdUdpAddress cannot be looked up: statistics are not sent"
                    );
                }
                found.map(|found| (found.ip(), found.port()))
            };
            let (platform, statsd) = tokio::join!(platform.follow(family == Family::V6), statsd);
            // Nobody waits any more when the agent ends meanwhile.
            drop(sender.send(Self { platform, statsd }));
        }));
        Search(receiver)
    }

    /// Writes into Envoy's bootstrap what was found.
    #[must_use]
    pub fn complete(&self, mut envoy: Envoy) -> Envoy {
        if let Some(bootstrap) = &mut envoy.bootstrap {
            late::platform(&mut bootstrap["node"], &self.platform.locality, &self.platform.metadata);
            if let Some((ip, port)) = self.statsd {
                late::add_statsd(bootstrap, ip, port);
            }
        }
        envoy
    }

    /// Writes the bootstrap of gRPC's own xDS client.
    ///
    /// # Errors
    /// When somebody asked for it and it cannot be written.
    pub fn write_grpc(
        &self,
        settings: &Settings,
        node: &Node,
        paths: &Paths,
    ) -> Result<(), grpc_bootstrap::Error> {
        // Other processes have another working directory.
        let socket = std::path::absolute(&paths.ads_socket).unwrap_or_else(|_| paths.ads_socket.clone());
        let mut bootstrap = grpc_bootstrap::build(node, &socket, settings.certificates.as_deref());
        late::platform(&mut bootstrap["node"], &self.platform.locality, &self.platform.metadata);
        match grpc_bootstrap::write(&settings.path, &bootstrap) {
            Err(error) if !settings.is_told => {
                warn!(%error, "gRPC without a proxy is not possible");
                Ok(())
            }
            result => result,
        }
    }
}

impl Search {
    /// What was found; does not take long.
    pub async fn get(self) -> Found {
        self.0.await.unwrap_or_default()
    }
}
