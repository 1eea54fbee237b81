//! Proxies of a whole node ask for certificates of the workloads on it: those, and
//! no others.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use names::SpiffeId;
use source::kubernetes::{Health, reason};
use tokio::time::timeout;

use crate::auth::{Caller, Refusal};
use crate::kube::Connection;

/// Time for all answers of the API server.
const ANSWER: Duration = Duration::from_secs(5);

/// Decides on who may ask in whose name.
#[derive(Clone)]
pub struct Nodes {
    client: Client,
    health: Health,
    /// Namespaces and names of the service accounts of such proxies.
    trusted: BTreeSet<(String, String)>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

impl Nodes {
    /// Trusts the proxies of those service accounts.
    #[must_use]
    pub fn new(connection: &Connection, trusted: BTreeSet<(String, String)>) -> Self {
        let Connection { reviews, health, .. } = connection;
        Self { client: reviews.clone(), health: health.clone(), trusted }
    }

    /// Whether a caller may ask for a certificate of `wanted`: its own pod is on a node
    /// where a pod of that account runs.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self, caller: &Caller, wanted: &SpiffeId) -> Result<(), Refusal> {
        let own = caller.identities.iter().find(|id| {
            let account = (id.namespace.as_str().to_owned(), id.service_account.as_str().to_owned());
            self.trusted.contains(&account)
        });
        let own = own.ok_or_else(|| {
            let ids: Vec<String> = caller.identities.iter().map(ToString::to_string).collect();
            Refusal::Unproven(format!("{} may ask for nobody else (CA_TRUSTED_NODE_ACCOUNTS)", ids.join(" ")))
        })?;
        if own.trust_domain != wanted.trust_domain {
            return Err(format!("{wanted} is of another trust domain than {own}").into());
        }
        match timeout(ANSWER, self.share_a_node(caller, own, wanted)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(&format!("no answer within {ANSWER:?}"))),
        }
    }

    async fn share_a_node(&self, caller: &Caller, own: &SpiffeId, wanted: &SpiffeId) -> Result<(), Refusal> {
        let proven = caller.pod.as_ref().ok_or("the token of the caller names no pod")?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), own.namespace.as_str());
        let pod = pods.get_opt(&proven.name).await.map_err(|error| self.unreachable(&reason(&error)))?;
        let pod = pod.ok_or_else(|| format!("there is no pod {}/{}", own.namespace, proven.name))?;
        if pod.metadata.uid.as_deref() != Some(proven.uid.as_str()) {
            return Err(format!("pod {}/{} is another one by now", own.namespace, proven.name).into());
        }
        let spec = pod.spec.unwrap_or_default();
        if spec.service_account_name.as_deref() != Some(own.service_account.as_str()) {
            return Err(format!("pod {}/{} is not of {own}", own.namespace, proven.name).into());
        }
        let node = spec.node_name.filter(|name| !name.is_empty());
        let node = node.ok_or_else(|| format!("pod {}/{} is on no node", own.namespace, proven.name))?;
        let there: Api<Pod> = Api::namespaced(self.client.clone(), wanted.namespace.as_str());
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node},status.phase!=Failed"));
        let there = there.list(&on_node).await.map_err(|error| self.unreachable(&reason(&error)))?;
        let is_one = there.items.iter().any(|pod| {
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
            account == Some(wanted.service_account.as_str())
        });
        if is_one {
            return Ok(());
        }
        let (namespace, account) = (&wanted.namespace, &wanted.service_account);
        Err(format!("no pod of service account {namespace}/{account} is on node {node}").into())
    }

    fn unreachable(&self, why: &str) -> Refusal {
        self.health.suspect();
        Refusal::Unavailable(format!("cannot ask the API server for pods: {why}"))
    }
}
