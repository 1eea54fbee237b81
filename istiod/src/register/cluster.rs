//! Entries of a cluster: read and written at the API server, each time as they are
//! there now.

use std::time::Duration;

use config::{Key, Kind};
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions};
use pilot::register::API_VERSION;
use serde_json::Value;
use source::kubernetes::{Health, reason};
use tokio::time::timeout;

use super::store::{Failure, version};
use crate::kube::Connection;

/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Entries of a cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    client: Client,
    health: Health,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

impl Cluster {
    pub(super) fn new(connection: &Connection) -> Self {
        Self { client: connection.client.clone(), health: connection.health.clone() }
    }

    fn api(&self, namespace: &str, kind: Kind) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: kind.group().to_owned(),
            version: API_VERSION.rsplit('/').next().unwrap_or_default().to_owned(),
            api_version: API_VERSION.to_owned(),
            kind: kind.as_str().to_owned(),
            plural: kind.plural().to_owned(),
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    async fn ask<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
        if !self.health.is_up() {
            return Err(Failure::Away("the API server does not answer".into()));
        }
        let error = match timeout(ANSWER, request).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                self.health.suspect();
                return Err(Failure::Away(format!("the API server gave no answer within {ANSWER:?}")));
            }
        };
        let why = reason(&error);
        Err(match &error {
            kube::Error::Api(status) if status.code == 409 => Failure::Changed,
            kube::Error::Api(status) if status.code == 404 => Failure::Missing(why),
            kube::Error::Api(status) if status.code == 403 => Failure::Refused(format!(
                "{why} (the ClusterRole of istiod's service account must allow create, update and delete on \
                 workloadentries, and update on workloadentries/status)"
            )),
            kube::Error::Api(status) if status.code < 500 && status.code != 429 => Failure::Refused(why),
            _ => {
                self.health.suspect();
                Failure::Away(why)
            }
        })
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Value>, Failure> {
        let api = self.api(&key.namespace, Kind::WorkloadEntry);
        let found = self.ask(api.get_opt(&key.name)).await?;
        found.map(|entry| serde_json::to_value(entry).map_err(|error| unreadable(key, &error))).transpose()
    }

    /// Makes an entry that the group owns, and that goes with it.
    pub(super) async fn create(&self, key: &Key, group: &str, mut entry: Value) -> Result<(), Failure> {
        let groups = self.api(&key.namespace, Kind::WorkloadGroup);
        let owner = self.ask(groups.get(group)).await?;
        let uid = owner.metadata.uid.unwrap_or_default();
        if let Some(reference) = entry.pointer_mut("/metadata/ownerReferences/0") {
            reference["uid"] = uid.into();
        }
        let api = self.api(&key.namespace, Kind::WorkloadEntry);
        self.ask(api.create(&PostParams::default(), &object(key, entry)?)).await?;
        Ok(())
    }

    pub(super) async fn replace(&self, key: &Key, entry: Value) -> Result<(), Failure> {
        let api = self.api(&key.namespace, Kind::WorkloadEntry);
        self.ask(api.replace(&key.name, &PostParams::default(), &object(key, entry)?)).await?;
        Ok(())
    }

    pub(super) async fn replace_status(&self, key: &Key, entry: Value) -> Result<(), Failure> {
        let api = self.api(&key.namespace, Kind::WorkloadEntry);
        self.ask(api.replace_status(&key.name, &PostParams::default(), &object(key, entry)?)).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, key: &Key, entry: &Value) -> Result<(), Failure> {
        let uid = entry["metadata"]["uid"].as_str().map(str::to_owned);
        let resource_version = version(entry).map(str::to_owned);
        let params = DeleteParams::default().preconditions(Preconditions { resource_version, uid });
        let api = self.api(&key.namespace, Kind::WorkloadEntry);
        match self.ask(api.delete(&key.name, &params)).await {
            Ok(_) | Err(Failure::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn returned(&self) {
        self.health.clone().returned().await;
    }
}

fn object(key: &Key, entry: Value) -> Result<DynamicObject, Failure> {
    serde_json::from_value(entry).map_err(|error| unreadable(key, &error))
}

fn unreadable(key: &Key, error: &serde_json::Error) -> Failure {
    Failure::Refused(format!("{key}: {error}"))
}
