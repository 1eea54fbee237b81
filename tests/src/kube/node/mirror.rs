//! The objects that the node follows, as they are now.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::DynamicObject;
use kube::core::{ObjectList, Request};
use runtime::tasks::Tasks;
use serde_json::Value;
use tokio_stream::StreamExt as _;

/// Wait after an API server that is away.
const AGAIN: Duration = Duration::from_millis(200);
/// Seconds after which a watch begins anew.
const WATCH: u32 = 240;

/// Objects by namespace and name.
pub(super) type Objects = BTreeMap<(String, String), Arc<Value>>;

/// A kind, and where its objects are.
const KINDS: &[(&str, &str)] = &[
    ("Namespace", "/api/v1/namespaces"),
    ("Pod", "/api/v1/pods"),
    ("Service", "/api/v1/services"),
    ("ConfigMap", "/api/v1/configmaps"),
    ("Secret", "/api/v1/secrets"),
    ("ServiceAccount", "/api/v1/serviceaccounts"),
    ("Deployment", "/apis/apps/v1/deployments"),
    ("ReplicaSet", "/apis/apps/v1/replicasets"),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
];

/// All that is known.
#[derive(Default)]
pub(super) struct Mirror {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    kinds: BTreeMap<&'static str, Objects>,
    version: u64,
}

impl Mirror {
    /// Follows everything until the tasks are stopped.
    pub(super) fn follow(self: &Arc<Self>, tasks: &Tasks, client: &Client) {
        for &(kind, path) in KINDS {
            let (mirror, client) = (self.clone(), client.clone());
            tasks.spawn("mirror", async move {
                loop {
                    // Whatever went wrong: all of it anew.
                    mirror.once(&client, kind, path).await.ok();
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }

    async fn once(&self, client: &Client, kind: &'static str, path: &str) -> anyhow::Result<()> {
        let request = Request::new(path);
        let list: ObjectList<DynamicObject> = client.request(request.list(&ListParams::default())?).await?;
        let mut version = list.metadata.resource_version.unwrap_or_default();
        let mut objects = Objects::new();
        for object in list.items {
            let object = serde_json::to_value(object)?;
            objects.insert(key(&object), Arc::new(object));
        }
        self.change(|state| {
            state.kinds.insert(kind, objects);
        });
        loop {
            let params = WatchParams::default().timeout(WATCH);
            let stream = client.request_events::<Value>(request.watch(&params, &version)?).await?;
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                let (object, is_gone) = match event? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                    WatchEvent::Deleted(object) => (object, true),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
                };
                version = text(&object["metadata"]["resourceVersion"]).to_owned();
                self.change(|state| {
                    let objects = state.kinds.entry(kind).or_default();
                    if is_gone {
                        objects.remove(&key(&object));
                    } else {
                        objects.insert(key(&object), Arc::new(object));
                    }
                });
            }
        }
    }

    fn change(&self, what: impl FnOnce(&mut State)) {
        let mut state = self.state();
        what(&mut state);
        state.version += 1;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every kind has been listed.
    pub(super) fn is_complete(&self) -> bool {
        self.state().kinds.len() == KINDS.len()
    }

    /// All objects of a kind.
    pub(super) fn all(&self, kind: &str) -> Objects {
        self.state().kinds.get(kind).cloned().unwrap_or_default()
    }

    /// One object.
    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.state().kinds.get(kind)?.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Waits for another state than that one, a moment at most, and returns which it is.
    pub(super) fn wait(&self, seen: u64, longest: Duration) -> u64 {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, longest, |state| state.version == seen);
        waited.unwrap_or_else(PoisonError::into_inner).0.version
    }
}

/// Namespace and name of an object.
pub(super) fn key(object: &Value) -> (String, String) {
    let metadata = &object["metadata"];
    (text(&metadata["namespace"]).to_owned(), text(&metadata["name"]).to_owned())
}

/// A text, empty when it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list, none when it is none.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether labels have all of these.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object().filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether a condition of an object's status is true.
pub(super) fn is_true(object: &Value, condition: &str) -> bool {
    items(&object["status"]["conditions"]).any(|one| one["type"] == condition && one["status"] == "True")
}
