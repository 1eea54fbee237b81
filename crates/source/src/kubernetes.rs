//! A Kubernetes API server as the source of objects.
//!
//! Each kind is listed and then watched by a task of its own; what they see
//! comes together in `cluster`, which tells only what is different from
//! before: a list that had to be read again says mostly the same.

mod cluster;
mod config_map;
mod definitions;
mod health;
mod item;
mod kinds;
mod list_watch;
mod object;
mod selectors;

use std::sync::Arc;

use config::Kind;
use kube::Client;
use runtime::tasks::Tasks;
use tokio::sync::{mpsc, watch};

use crate::Update;

pub use config_map::{ConfigMap, follow as config_map};
pub use health::Health;
pub use list_watch::{Event, Resource, follow, reason};
pub use selectors::{Operator, Requirement, Selector, Selectors};

/// What of a cluster is followed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The revision of the control plane: objects of Istio's kinds with the
    /// label of another one are not for it. Empty: all are.
    pub revision: String,
    /// The name of the cluster, which stands before problems of objects.
    pub cluster: Arc<str>,
    /// The only namespace whose objects are followed, besides what is in none; all without it.
    pub namespace: Option<String>,
}

/// Updates that wait for their reader; later ones are gathered meanwhile.
const QUEUE: usize = 1;
/// What tasks of kinds have seen and nobody has taken yet.
const SEEN: usize = 64;

/// Follows the objects of a cluster, those of namespaces that `selectors`
/// choose. The first update comes when all kinds were listed, and is whole.
#[must_use]
pub fn watch(
    tasks: &Tasks,
    client: &Client,
    health: &Health,
    options: Options,
    selectors: watch::Receiver<Selectors>,
) -> mpsc::Receiver<Update> {
    let (tell, seen) = mpsc::channel(SEEN);
    let (tx, rx) = mpsc::channel(QUEUE);
    let options = Arc::new(options);
    let defined = definitions::watch(tasks, client, health);
    for kind in kinds::followed() {
        let resource = kinds::resource(kind, options.namespace.as_deref(), &defined);
        let (tell, options) = (tell.clone(), options.clone());
        let decode = move |value| object::decode(kind, value, &options);
        let task = follow(client.clone(), health.clone(), resource, decode, move |event| {
            let tell = tell.clone();
            async move { tell.send((kind, event)).await.is_ok() }
        });
        tasks.spawn("objects of a kind", task);
    }
    let kinds: Vec<Kind> = kinds::followed().collect();
    tasks.spawn("objects of the cluster", cluster::run(kinds, seen, selectors, tx));
    rx
}
