//! The way to the API server.

use std::path::PathBuf;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use runtime::tasks::Tasks;
use source::kubernetes::Health;

use super::limit::Limit;

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// How the API server is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// A kubeconfig file; without it, what every pod of the cluster is given.
    pub kubeconfig: Option<PathBuf>,
    /// Requests a second, on average; 0: as many as there are.
    pub qps: f64,
    /// Requests at once after a quiet time.
    pub burst: u32,
}

/// The API server cannot be reached as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig file cannot be used.
    #[error("--kubeconfig {path}: {source}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// This is no pod of a cluster.
    #[error(
        "{0}: outside a cluster give --kubeconfig FILE, or --configDir DIR for a mesh without Kubernetes"
    )]
    NotInCluster(Box<InClusterError>),
    /// The credentials cannot be used.
    #[error("client of the API server: {0}")]
    Client(Box<kube::Error>),
}

/// The client of the API server, and whether that answers.
#[derive(Clone)]
pub struct Connection {
    /// Asks it for anything, within the limits.
    pub client: Client,
    /// Asks it about callers. Their limits are of their own: however many call,
    /// nothing else waits for them.
    pub reviews: Client,
    /// Whether it answers; wakes who waits when it does again.
    pub health: Health,
}

/// Makes the client. The API server need not answer yet.
///
/// # Errors
/// When nothing says where it is, or the credentials cannot be used.
pub async fn connect(tasks: &Tasks, settings: &Settings) -> Result<Connection, Error> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let failed = |source| Error::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|error| Error::NotInCluster(Box::new(error)))?,
    };
    config.connect_timeout = Some(CONNECT);
    // Everybody who asks repeats it where that is of use, and is woken when it is.
    config.default_retry = false;
    let failed = |error| Error::Client(Box::new(error));
    let builder = ClientBuilder::try_from(config.clone()).map_err(failed)?;
    let client = builder.with_layer(&Limit::layer(settings.qps, settings.burst)).build();
    let builder = ClientBuilder::try_from(config.clone()).map_err(failed)?;
    let reviews = builder.with_layer(&Limit::layer(settings.qps, settings.burst)).build();
    // Whether it answers is asked without waiting for anybody else's turn.
    let own = ClientBuilder::try_from(config).map_err(failed)?.build();
    Ok(Connection { client, reviews, health: Health::new(tasks, &own) })
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("health", &self.health).finish_non_exhaustive()
    }
}
