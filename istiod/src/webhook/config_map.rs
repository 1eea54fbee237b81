//! The injector's settings in a cluster: the ConfigMap
//! `istio-sidecar-injector[-REVISION]`, followed.

use std::sync::Arc;

use runtime::tasks::Tasks;
use source::kubernetes::{self, ConfigMap};
use tokio::sync::watch;

use super::files::{self, Current, Known};
use crate::kube::{Connection, of_revision};

/// Name of the ConfigMap of the default revision.
const MAP: &str = "istio-sidecar-injector";

/// Follows the ConfigMap. It is waited for until the API server has said whether
/// it is there; one that comes later is taken when it comes.
pub async fn watch(tasks: &Tasks, connection: &Connection, namespace: &str, known: Known) -> Current {
    let name = of_revision(MAP, &known.revision);
    let Connection { client, health, .. } = connection;
    let mut map = kubernetes::config_map(tasks, client, health, namespace, &name);
    map.wait_for(|map| *map != ConfigMap::Unknown).await.ok();
    let (publish, current) = watch::channel(None);
    read(&map.borrow_and_update().clone(), &name, &known, &publish);
    tasks.spawn("injector settings", async move {
        while map.changed().await.is_ok() {
            let now = map.borrow_and_update().clone();
            read(&now, &name, &known, &publish);
        }
    });
    current
}

/// Puts in force what the ConfigMap says.
fn read(map: &ConfigMap, name: &str, known: &Known, publish: &watch::Sender<Option<Arc<inject::Settings>>>) {
    let text = |key: &str| map.get(key).map(str::to_owned).ok_or_else(|| format!("has no key {key}"));
    let texts = match map {
        ConfigMap::Unknown => return,
        ConfigMap::Missing => Err("is not there: no pod gets a sidecar without it".to_owned()),
        ConfigMap::Data(_) => text(files::CONFIG).and_then(|config| Ok((config, text(files::VALUES)?))),
    };
    files::put(texts, &format!("ConfigMap {name}"), known, publish);
}
