//! What is found out while the agent starts and goes into the bootstraps.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::bootstrap::late;
use super::module::Module;
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
    module: Option<Module>,
}

/// A search that is under way.
#[derive(Debug)]
pub struct Search(oneshot::Receiver<Found>);

impl Found {
    /// Begins to search, beside everything else; `envoy` is the program that will be run.
    pub fn search(late: Late, family: Family, envoy: Option<PathBuf>, tasks: &Tasks) -> Search {
        let (sender, receiver) = oneshot::channel();
        drop(tasks.spawn("search", async move {
            let Late { platform, statsd, module } = late;
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
            let module = usable(module, envoy);
            let (platform, statsd, module) =
                tokio::join!(platform.follow(family == Family::V6), statsd, module);
            // Nobody waits any more when the agent ends meanwhile.
            drop(sender.send(Self { platform, statsd, module }));
        }));
        Search(receiver)
    }

    /// The module, where Envoy takes it.
    #[must_use]
    pub fn module(&self) -> Option<&Module> {
        self.module.as_ref()
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
        if let Some(module) = &self.module {
            module.apply(&mut envoy);
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

/// The module, if Envoy takes it.
async fn usable(module: Option<Module>, envoy: Option<PathBuf>) -> Option<Module> {
    let (module, envoy) = (module?, envoy?);
    let path = module.file();
    match module.check(&envoy).await {
        Ok(()) => {
            info!(path = %path.display(), "Envoy counts Istio's metrics with the module");
            Some(module)
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "Envoy does not count Istio's metrics: the module is left out");
            None
        }
    }
}

impl Search {
    /// What was found; does not take long.
    pub async fn get(self) -> Found {
        self.0.await.unwrap_or_default()
    }
}
