//! Definitions of kinds: that one of Istio's has come or gone is seen at once.

use kube::Client;
use runtime::tasks::Tasks;
use serde_json::Value;
use tokio::sync::watch;

use super::Health;
use super::kinds::path;
use super::list_watch::{self, Event, Resource};

/// Counts changes of definitions of Istio's kinds.
pub(super) fn watch(tasks: &Tasks, client: &Client, health: &Health) -> watch::Receiver<u64> {
    let (tell, seen) = watch::channel(0);
    let resource = Resource {
        name: "CustomResourceDefinition",
        paths: vec![path("apiextensions.k8s.io", "v1", "customresourcedefinitions")],
        fields: None,
        only_metadata: true,
        defined: None,
    };
    let follow = list_watch::follow(
        client.clone(),
        health.clone(),
        resource,
        |one| is_istio(&one),
        move |event| {
            let concerns = match event {
                Event::Listed(all) => all.into_iter().any(|is_istio| is_istio),
                Event::Set(is_istio) | Event::Gone(is_istio) => is_istio,
            };
            if concerns {
                tell.send_modify(|count| *count += 1);
            }
            std::future::ready(true)
        },
    );
    tasks.spawn("definitions of kinds", follow);
    seen
}

fn is_istio(definition: &Value) -> bool {
    definition["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(".istio.io"))
}
