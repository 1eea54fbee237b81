//! One ConfigMap, followed by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use runtime::tasks::Tasks;
use serde_json::Value;
use tokio::sync::watch;

use super::Health;
use super::list_watch::{self, Event, Resource};

/// What is known of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ConfigMap {
    /// The API server has not answered yet.
    #[default]
    Unknown,
    /// It is not there.
    Missing,
    /// Its values.
    Data(Arc<BTreeMap<String, String>>),
}

impl ConfigMap {
    /// A value, if it has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        if let Self::Data(data) = self { data.get(key).map(String::as_str) } else { None }
    }
}

/// Follows the ConfigMap of that name; who holds the receiver is woken only
/// when it says something else.
#[must_use]
pub fn follow(
    tasks: &Tasks,
    client: &Client,
    health: &Health,
    namespace: &str,
    name: &str,
) -> watch::Receiver<ConfigMap> {
    let (tell, seen) = watch::channel(ConfigMap::Unknown);
    let resource = Resource {
        name: "ConfigMap",
        paths: vec![format!("/api/v1/namespaces/{namespace}/configmaps")],
        fields: Some(format!("metadata.name={name}")),
        only_metadata: false,
        defined: None,
    };
    let follow = list_watch::follow(
        client.clone(),
        health.clone(),
        resource,
        |object| data(&object),
        move |event| {
            let now = match event {
                Event::Listed(all) => all.into_iter().next().unwrap_or(ConfigMap::Missing),
                Event::Set(now) => now,
                Event::Gone(_) => ConfigMap::Missing,
            };
            tell.send_if_modified(|before| {
                let is_other = *before != now;
                *before = now;
                is_other
            });
            std::future::ready(!tell.is_closed())
        },
    );
    tasks.spawn("ConfigMap", follow);
    seen
}

fn data(object: &Value) -> ConfigMap {
    let data = object["data"].as_object().into_iter().flatten();
    let text = data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    ConfigMap::Data(Arc::new(text.collect()))
}
