//! A stream of secrets, incremental: only what is new to Envoy is sent, also
//! after it has come back. Nothing is ever told as removed: a secret whose
//! files are gone stays in force.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt as _};
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use tonic::Status;
use tracing::{debug, info, warn};

use super::server::{check_count, check_type, nonce};
use super::source::{Followed, Secrets, any_changed};

/// One stream of Envoy.
pub(super) struct Subscription<R> {
    secrets: Secrets,
    requests: R,
    watched: Vec<Followed>,
    count: u64,
}

impl<R> Subscription<R>
where
    R: Stream<Item = Result<DeltaDiscoveryRequest, Status>> + Unpin,
{
    pub(super) fn new(secrets: Secrets, requests: R) -> Self {
        Self { secrets, requests, watched: Vec::new(), count: 0 }
    }

    /// Waits for the next thing to tell; `None` when Envoy has left.
    pub(super) async fn next_response(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        loop {
            if let Some(response) = self.respond() {
                return Ok(Some(response));
            }
            tokio::select! {
                biased;
                request = self.requests.next() => match request {
                    None => return Ok(None),
                    Some(request) => self.take(&request?)?,
                },
                changed = any_changed(&mut self.watched) => changed?,
            }
        }
    }

    fn take(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            warn!(target: "sds", nonce = request.response_nonce, error = error.message, "Envoy refused a secret and keeps what it had");
        } else if !request.response_nonce.is_empty() {
            debug!(target: "sds", nonce = request.response_nonce, "accepted");
        }
        self.watched.retain(|followed| !request.resource_names_unsubscribe.contains(&followed.name.text));
        check_count(self.watched.len() + request.resource_names_subscribe.len())?;
        for name in &request.resource_names_subscribe {
            self.subscribe(name, &request.initial_resource_versions)?;
        }
        Ok(())
    }

    /// Who subscribes again is sent the secret again.
    fn subscribe(&mut self, name: &str, has: &BTreeMap<String, String>) -> Result<(), Status> {
        if name == "*" {
            return Err(Status::invalid_argument("secrets are asked for by name, not by \"*\""));
        }
        let mut followed = self.secrets.follow(name)?;
        followed.sent = has.get(name).cloned();
        self.watched.retain(|before| before.name.text != name);
        self.watched.push(followed);
        Ok(())
    }

    /// All that Envoy watches and has not got in its newest form.
    fn respond(&mut self) -> Option<DeltaDiscoveryResponse> {
        let mut resources = Vec::new();
        for followed in &mut self.watched {
            let Some((version, packed)) = followed.news().and_then(|_| followed.pack()) else { continue };
            info!(target: "sds", resource = followed.name.text, version, serial = followed.serial(), "push");
            let name = followed.name.text.clone();
            resources.push(Resource { name, version, resource: Some(packed), ..Resource::default() });
        }
        if resources.is_empty() {
            return None;
        }
        self.count += 1;
        Some(DeltaDiscoveryResponse {
            system_version_info: self.count.to_string(),
            resources,
            type_url: names::TypeUrl::Secret.as_str().to_owned(),
            nonce: nonce(self.count),
            ..DeltaDiscoveryResponse::default()
        })
    }
}
