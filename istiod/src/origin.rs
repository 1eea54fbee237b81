//! Where objects and the mesh configuration come from: a directory, or a cluster.

use std::sync::Arc;

use runtime::tasks::Tasks;
use source::Update;
use source::kubernetes::Options;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::config::{Objects, Settings};
use crate::kube::mesh::{self, Mesh};
use crate::kube::{self, Connection};

/// Where objects and the mesh configuration come from.
#[derive(Debug)]
pub struct Origin {
    /// The mesh configuration, which changes while istiod runs.
    pub mesh: watch::Receiver<Mesh>,
    /// The API server, when there is one.
    pub connection: Option<Connection>,
}

impl Origin {
    /// Connects, and reads the mesh configuration into `settings`: much that
    /// starts afterwards depends on it. A cluster that does not answer is
    /// waited for.
    ///
    /// # Errors
    /// When nothing says where the cluster is.
    pub async fn open(tasks: &Tasks, settings: &mut Settings) -> anyhow::Result<Self> {
        let Objects::Kubernetes { api, mesh: places } = &settings.objects else {
            let mesh = Mesh {
                config: Arc::new(settings.mesh.clone()),
                networks: Arc::new(settings.networks.clone()),
                variables: Arc::new(settings.provider_variables.clone()),
            };
            return Ok(Self { mesh: watch::channel(mesh).1, connection: None });
        };
        let connection = kube::connect(tasks, api).await?;
        info!(target: "kube", cluster = settings.cluster_id, namespace = settings.namespace, "asking the API server for the mesh configuration");
        let mesh = mesh::follow(tasks, &connection, &settings.namespace, places.clone()).await;
        let now = mesh.borrow().clone();
        settings.mesh = Arc::unwrap_or_clone(now.config);
        settings.networks = Arc::unwrap_or_clone(now.networks);
        settings.provider_variables = Arc::unwrap_or_clone(now.variables);
        Ok(Self { mesh, connection: Some(connection) })
    }

    /// Follows the objects.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn updates(&self, tasks: &Tasks, settings: &Settings) -> anyhow::Result<mpsc::Receiver<Update>> {
        let (places, connection) = match (&settings.objects, &self.connection) {
            (Objects::Kubernetes { mesh, .. }, Some(connection)) => (mesh, connection),
            (Objects::Directory(dir), _) => return Ok(source::directory::watch(tasks, dir)?),
            (Objects::Kubernetes { .. }, None) => anyhow::bail!("there is no connection to the API server"),
        };
        let mut mesh = self.mesh.clone();
        let (tell, selectors) = watch::channel(mesh::selectors(&mesh.borrow_and_update().config));
        tasks.spawn("namespaces of the mesh", async move {
            while mesh.changed().await.is_ok() {
                tell.send_replace(mesh::selectors(&mesh.borrow_and_update().config));
            }
        });
        let options = Options {
            revision: places.revision.clone(),
            cluster: settings.cluster_id.as_str().into(),
            namespace: settings.watched.clone(),
        };
        let Connection { client, health, .. } = connection;
        Ok(source::kubernetes::watch(tasks, client, health, options, selectors))
    }
}
