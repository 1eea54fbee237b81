//! Changes webhook configurations, tries the validator, makes Events.

use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::timeout;
use tracing::debug;

use super::Settings;
use super::seen::Seen;

/// Owns the roots.
const BUNDLE_MANAGER: &str = "istiod-ca-bundle";
/// Owns the failurePolicy.
const POLICY_MANAGER: &str = "istiod-failure-policy";
/// Time for the API server to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// What the API server says when a webhook has refused an object.
const DENIED: &str = "denied the request";

/// Whether the validator is called.
pub(super) enum Check {
    /// It is.
    Called,
    /// It is not, as far as is known.
    NotCalled(String),
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server does not want it, or cannot be reached.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// It did not answer.
    #[error("the API server does not answer")]
    Silent,
    /// A request could not be made.
    #[error("{0}")]
    Http(#[from] http::Error),
}

/// Writes to the API server.
pub(super) struct Writer {
    client: Client,
    revision: String,
    namespace: String,
    pod: String,
}

impl Writer {
    pub(super) fn new(client: Client, settings: &Settings) -> Self {
        let Settings { revision, namespace, pod, .. } = settings.clone();
        let revision = if revision.is_empty() { "default".to_owned() } else { revision };
        Self { client, revision, namespace, pod }
    }

    /// Sets the roots of all our webhooks of a configuration.
    pub(super) async fn set_bundle(&self, seen: &Seen, bundle: &str) -> Result<(), Error> {
        self.apply(seen, BUNDLE_MANAGER, &json!({"clientConfig": {"caBundle": bundle}})).await
    }

    /// Lets the API server refuse what it could not ask about.
    pub(super) async fn refuse_unchecked(&self, seen: &Seen) -> Result<(), Error> {
        self.apply(seen, POLICY_MANAGER, &json!({"failurePolicy": "Fail"})).await
    }

    async fn apply(&self, seen: &Seen, manager: &str, fields: &Value) -> Result<(), Error> {
        let hooks: Vec<Value> = seen
            .hooks
            .iter()
            .map(|hook| {
                let mut one = fields.clone();
                one["name"] = hook.name.as_str().into();
                one
            })
            .collect();
        let wanted = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": seen.form.kind(),
            "metadata": {"name": seen.name},
            "webhooks": hooks,
        });
        let path = format!("{}/{}?fieldManager={manager}&force=true", seen.form.path(), seen.name);
        self.ask(Method::PATCH, &path, "application/apply-patch+yaml", &wanted).await.map(drop)
    }

    /// Asks the API server to store a Gateway that the validator refuses, with
    /// a dry run: nothing is stored, whatever the answer is.
    pub(super) async fn is_called(&self) -> Check {
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {
                "name": "invalid-gateway",
                "namespace": self.namespace,
                "labels": {"istio.io/rev": self.revision},
                "annotations": {"istio.io/always-reject": "true"},
            },
            "spec": {},
        });
        let path = format!("/apis/networking.istio.io/v1/namespaces/{}/gateways?dryRun=All", self.namespace);
        match self.ask(Method::POST, &path, "application/json", &gateway).await {
            Ok(_) => Check::NotCalled("a Gateway that is wrong was not refused".to_owned()),
            Err(Error::Kube(kube::Error::Api(status))) if status.message.contains(DENIED) => Check::Called,
            // Without its kind there is nothing wrong that could be stored.
            Err(Error::Kube(kube::Error::Api(status))) if status.code == 404 => Check::Called,
            Err(error) => Check::NotCalled(error.to_string()),
        }
    }

    /// Makes an Event about our pod.
    pub(super) async fn event(&self, reason: &str, message: &str) {
        let now =
            OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or_else(|_| OffsetDateTime::now_utc());
        let now = now.format(&Rfc3339).unwrap_or_default();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": "istiod-webhook-", "namespace": self.namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": self.pod, "namespace": self.namespace},
            "reason": reason,
            "message": message,
            "type": "Warning",
            "source": {"component": "istiod"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let path = format!("/api/v1/namespaces/{}/events", self.namespace);
        if let Err(error) = self.ask(Method::POST, &path, "application/json", &event).await {
            debug!(target: "webhook", %error, "an Event cannot be made");
        }
    }

    async fn ask(&self, method: Method, path: &str, media_type: &str, body: &Value) -> Result<Value, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, media_type)
            .body(body.to_string().into_bytes())?;
        Ok(timeout(ANSWER, self.client.request(request)).await.map_err(|_| Error::Silent)??)
    }
}
