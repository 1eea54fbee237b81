//! The ConfigMaps from which workloads of each namespace learn the roots of the
//! mesh (`istio-ca-root-cert`) and revocation lists (`istio-ca-crl`).
//!
//! The istiod that leads writes them, and mends those that somebody changes.

mod state;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use serde_json::Value;
use source::kubernetes::{self, Event, Health, Resource, Selectors, reason};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use self::state::{Namespace, Seen, State};
use crate::kube::Connection;

/// The label of what the control plane has written.
const LABEL: (&str, &str) = ("istio.io/config", "true");
/// Events that wait.
const QUEUE: usize = 64;
/// ConfigMaps that are written at the same time.
const AT_ONCE: usize = 8;
/// Waits after failures.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// One kind of ConfigMap: the same in every namespace.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name.
    pub name: String,
    /// The key that it has.
    pub key: &'static str,
    /// The value; where it is empty, no ConfigMap is made.
    pub value: watch::Receiver<String>,
    /// The only namespace that has it; all without it.
    pub namespace: Option<String>,
}

/// Writes ConfigMaps for as long as this istiod leads; without an election, always.
pub fn start(
    tasks: &Tasks,
    connection: &Connection,
    kind: Kind,
    selectors: watch::Receiver<Selectors>,
    leads: Option<watch::Receiver<bool>>,
) {
    let connection = connection.clone();
    tasks.spawn("ConfigMaps of roots", async move {
        let Some(mut leads) = leads else { return write(&connection, kind, selectors).await };
        while leads.wait_for(|leads| *leads).await.is_ok() {
            let write = write(&connection, kind.clone(), selectors.clone());
            tokio::select! {
                () = write => {}
                ended = leads.wait_for(|leads| !*leads) => if ended.is_err() { return },
            }
        }
    });
}

/// What was seen of the cluster.
enum Sight {
    Namespaces(Event<(String, Namespace)>),
    Maps(Event<(String, Seen)>),
}

async fn write(connection: &Connection, kind: Kind, selectors: watch::Receiver<Selectors>) {
    let Connection { client, health, .. } = connection;
    let (tell, seen) = mpsc::channel(QUEUE);
    let namespaces = Resource {
        name: "Namespace",
        paths: vec!["/api/v1/namespaces".into()],
        fields: kind.namespace.as_ref().map(|name| format!("metadata.name={name}")),
        only_metadata: false,
        defined: None,
    };
    let maps = Resource {
        name: "ConfigMap of roots",
        paths: vec![match &kind.namespace {
            Some(name) => format!("/api/v1/namespaces/{name}/configmaps"),
            None => "/api/v1/configmaps".into(),
        }],
        fields: Some(format!("metadata.name={}", kind.name)),
        only_metadata: false,
        defined: None,
    };
    let key = kind.key;
    let (to, from_maps) = (tell.clone(), tell);
    let namespaces = kubernetes::follow(
        client.clone(),
        health.clone(),
        namespaces,
        |object| namespace(&object),
        move |event| {
            let to = to.clone();
            async move { to.send(Sight::Namespaces(event)).await.is_ok() }
        },
    );
    let maps = kubernetes::follow(
        client.clone(),
        health.clone(),
        maps,
        move |object| map(&object, key),
        move |event| {
            let to = from_maps.clone();
            async move { to.send(Sight::Maps(event)).await.is_ok() }
        },
    );
    let writer = Writer { client: client.clone(), health: health.clone(), kind, backoff: BTreeMap::new() };
    tokio::join!(namespaces, maps, writer.run(seen, selectors));
}

struct Writer {
    client: Client,
    health: Health,
    kind: Kind,
    /// Namespaces where it has failed, with the failure.
    backoff: BTreeMap<String, String>,
}

impl Writer {
    async fn run(mut self, mut seen: mpsc::Receiver<Sight>, mut selectors: watch::Receiver<Selectors>) {
        let mut state = State::default();
        let mut value = self.kind.value.clone();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let wanted = value.borrow_and_update().clone();
            let todo = {
                let selectors = selectors.borrow_and_update();
                state.todo(&wanted, &selectors)
            };
            let is_well = self.write_all(todo, &wanted, &mut state).await;
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
                sight = seen.recv() => {
                    let Some(sight) = sight else { return };
                    state.see(sight);
                    // What has come meanwhile is looked at in one go.
                    while let Ok(sight) = seen.try_recv() {
                        state.see(sight);
                    }
                }
                changed = value.changed() => if changed.is_err() { return },
                changed = selectors.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Writes to all these namespaces; whether all went well.
    async fn write_all(&mut self, todo: Vec<String>, value: &str, state: &mut State) -> bool {
        let writes = todo.into_iter().map(|namespace| {
            let (client, kind, value) = (self.client.clone(), self.kind.clone(), value.to_owned());
            async move {
                let done = match timeout(ANSWER, write_one(&client, &kind, &namespace, &value)).await {
                    Ok(done) => done,
                    Err(_) => Err(format!("no answer within {ANSWER:?}")),
                };
                (namespace, done)
            }
        });
        let done: Vec<_> = futures_util::stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
        let mut is_well = true;
        for (namespace, done) in done {
            match done {
                Ok(()) => {
                    if self.backoff.remove(&namespace).is_some() {
                        info!(target: "ca", "ConfigMap {namespace}/{} is written now", self.kind.name);
                    }
                    state.wrote(&namespace, value);
                }
                Err(why) => {
                    is_well = false;
                    self.health.suspect();
                    if self.health.is_up() && self.backoff.get(&namespace) != Some(&why) {
                        warn!(target: "ca", "ConfigMap {namespace}/{}: {why}: trying again", self.kind.name);
                        self.backoff.insert(namespace, why);
                    }
                }
            }
        }
        is_well
    }
}

/// Makes the ConfigMap, or puts the value into the one that is there.
async fn write_one(client: &Client, kind: &Kind, namespace: &str, value: &str) -> Result<(), String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let params = PostParams::default();
    let failed = |error: kube::Error| reason(&error);
    let Some(mut map) = api.get_opt(&kind.name).await.map_err(failed)? else {
        if value.is_empty() {
            return Ok(());
        }
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(kind.name.clone()),
                namespace: Some(namespace.to_owned()),
                labels: Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(kind.key.to_owned(), value.to_owned())].into()),
            ..ConfigMap::default()
        };
        return match api.create(&params, &map).await {
            Ok(_) => Ok(()),
            // The namespace is being deleted, or is gone already.
            Err(kube::Error::Api(status)) if status.code == 404 || is_ending(&status) => Ok(()),
            Err(error) => Err(failed(error)),
        };
    };
    map.metadata.labels.get_or_insert_default().insert(LABEL.0.into(), LABEL.1.into());
    map.data.get_or_insert_default().insert(kind.key.into(), value.into());
    match api.replace(&kind.name, &params, &map).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn is_ending(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

fn namespace(object: &Value) -> (String, Namespace) {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let is_ending = object["metadata"]["deletionTimestamp"].is_string();
    (text(&object["metadata"]["name"]), Namespace { labels: labels.collect(), is_ending })
}

fn map(object: &Value, key: &str) -> (String, Seen) {
    let seen = Seen {
        value: object["data"][key].as_str().map(str::to_owned),
        has_label: object["metadata"]["labels"][LABEL.0] == LABEL.1,
    };
    (text(&object["metadata"]["namespace"]), seen)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
