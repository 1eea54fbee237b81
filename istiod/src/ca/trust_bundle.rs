//! The ClusterTrustBundle `istio.io:istiod-ca:root-cert`, from which workloads of
//! all namespaces can be given the roots of the mesh
//! (`ENABLE_CLUSTER_TRUST_BUNDLE_API`).
//!
//! The istiod that leads writes it, and mends it when somebody changes it.

use std::time::Duration;

use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use source::kubernetes::{self, Event, Health, Resource, reason};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::kube::Connection;

/// Its name.
const NAME: &str = "istio.io:istiod-ca:root-cert";
/// The signer whose roots it has.
const SIGNER: &str = "istio.io/istiod-ca";
/// Waits after failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Writes it for as long as this istiod leads; without an election, always.
pub fn start(
    tasks: &Tasks,
    connection: &Connection,
    roots: watch::Receiver<String>,
    leads: Option<watch::Receiver<bool>>,
) {
    let connection = connection.clone();
    tasks.spawn("ClusterTrustBundle", async move {
        let Some(mut leads) = leads else { return write(&connection, roots).await };
        while leads.wait_for(|leads| *leads).await.is_ok() {
            tokio::select! {
                () = write(&connection, roots.clone()) => {}
                ended = leads.wait_for(|leads| !*leads) => if ended.is_err() { return },
            }
        }
    });
}

async fn write(connection: &Connection, roots: watch::Receiver<String>) {
    let Connection { client, health, .. } = connection;
    // What it holds; nothing as long as that is not known, or there is none.
    let (tell, seen) = watch::channel(None);
    let resource = Resource {
        name: "ClusterTrustBundle",
        paths: vec!["/apis/certificates.k8s.io/v1beta1/clustertrustbundles".into()],
        fields: Some(format!("metadata.name={NAME}")),
        only_metadata: false,
        defined: None,
    };
    let decode =
        |object: serde_json::Value| object["spec"]["trustBundle"].as_str().unwrap_or_default().to_owned();
    let follow = kubernetes::follow(client.clone(), health.clone(), resource, decode, move |event| {
        let now = match event {
            Event::Listed(all) => all.into_iter().next(),
            Event::Set(roots) => Some(roots),
            Event::Gone(_) => None,
        };
        tell.send_replace(now);
        std::future::ready(!tell.is_closed())
    });
    let writer = Writer { client: client.clone(), health: health.clone(), said: String::new() };
    tokio::join!(follow, writer.run(seen, roots));
}

struct Writer {
    client: Client,
    health: Health,
    /// The last failure, which is told once.
    said: String,
}

impl Writer {
    async fn run(mut self, mut seen: watch::Receiver<Option<String>>, mut roots: watch::Receiver<String>) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let wanted = roots.borrow_and_update().clone();
            let is_right = seen.borrow_and_update().as_deref() == Some(&wanted);
            let mut is_well = true;
            if !is_right && !wanted.is_empty() {
                is_well = self.put(&wanted).await;
            }
            if is_well {
                backoff.reset();
            }
            let mut health = self.health.clone();
            let again = async {
                if is_well {
                    std::future::pending::<()>().await;
                }
                timeout(backoff.next_wait(), health.returned()).await.ok();
            };
            tokio::select! {
                changed = seen.changed() => if changed.is_err() { return },
                changed = roots.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Writes the roots; whether that went well.
    async fn put(&mut self, roots: &str) -> bool {
        let why = match timeout(ANSWER, put(&self.client, roots)).await {
            Ok(Ok(is_new)) => {
                if is_new || !self.said.is_empty() {
                    info!(target: "ca", "ClusterTrustBundle {NAME} is written");
                }
                self.said.clear();
                return true;
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                "the API server does not serve certificates.k8s.io/v1beta1 clustertrustbundles (feature gate \
                 ClusterTrustBundle, --runtime-config)"
                    .to_owned()
            }
            Ok(Err(error)) => reason(&error),
            Err(_) => format!("no answer within {ANSWER:?}"),
        };
        self.health.suspect();
        if self.health.is_up() && self.said != why {
            warn!(target: "ca", "ClusterTrustBundle {NAME}: {why}: trying again");
            self.said = why;
        }
        false
    }
}

/// Makes it, or puts the roots into the one that is there; whether something was written.
async fn put(client: &Client, roots: &str) -> Result<bool, kube::Error> {
    let api: Api<ClusterTrustBundle> = Api::all(client.clone());
    let params = PostParams::default();
    let Some(mut bundle) = api.get_opt(NAME).await? else {
        let spec =
            ClusterTrustBundleSpec { signer_name: Some(SIGNER.into()), trust_bundle: roots.to_owned() };
        let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
        return api.create(&params, &ClusterTrustBundle { metadata, spec }).await.map(|_| true);
    };
    if bundle.spec.trust_bundle == roots {
        return Ok(false);
    }
    roots.clone_into(&mut bundle.spec.trust_bundle);
    api.replace(NAME, &params, &bundle).await.map(|_| true)
}
