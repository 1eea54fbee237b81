//! Objects by their paths, as a kubelet and controllers read and write them.

use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// Longest wait for an answer: an API server that is away may not stop a pod.
const LIMIT: Duration = Duration::from_secs(5);
/// Who writes, as the API server notes it.
const MANAGER: &str = "kubelet";

/// A client for threads without a runtime.
#[derive(Clone)]
pub(super) struct Rest {
    client: Client,
    handle: Handle,
}

impl Rest {
    pub(super) fn new(client: Client, handle: Handle) -> Self {
        Self { client, handle }
    }

    /// Waits for a future.
    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    fn send(&self, method: &Method, path: &str, kind: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body)?;
        self.run(async {
            let answer = tokio::time::timeout(LIMIT, self.client.request::<Value>(request)).await;
            answer.context("no answer")?.with_context(|| format!("{method} {path}"))
        })
    }

    /// Reads an object.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(&Method::GET, path, "application/json", &Value::Null)
    }

    /// Makes an object.
    pub(super) fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        self.send(&Method::POST, path, "application/json", object)
    }

    /// Sets an object, which may be there already.
    pub(super) fn apply(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let path = format!("{path}?fieldManager={MANAGER}&force=true");
        self.send(&Method::PATCH, &path, "application/apply-patch+yaml", object)
    }

    /// Changes some fields.
    pub(super) fn merge(&self, path: &str, fields: &Value) -> anyhow::Result<Value> {
        self.send(&Method::PATCH, path, "application/merge-patch+json", fields)
    }

    /// Deletes an object, if it is the one of that uid; without a time it ends in its own.
    pub(super) fn delete(&self, path: &str, uid: &str, grace: Option<u32>) -> anyhow::Result<()> {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = grace.into();
        }
        self.send(&Method::DELETE, path, "application/json", &options)?;
        Ok(())
    }
}
