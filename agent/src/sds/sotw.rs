//! A stream of secrets, state of the world: requests and changes turned into
//! responses. It waits for what is not there yet rather than failing, so that
//! Envoy, the CA and writers of files may start in any order.

use futures_util::{Stream, StreamExt as _};
use proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;
use tracing::{debug, info, warn};

use super::server::{check_count, check_type, nonce};
use super::source::{Followed, Secrets, any_changed};

/// One stream of Envoy.
pub(super) struct Subscription<R> {
    secrets: Secrets,
    requests: R,
    watched: Vec<Followed>,
    nonce: String,
    count: u64,
}

impl<R> Subscription<R>
where
    R: Stream<Item = Result<DiscoveryRequest, Status>> + Unpin,
{
    pub(super) fn new(secrets: Secrets, requests: R) -> Self {
        Self { secrets, requests, watched: Vec::new(), nonce: String::new(), count: 0 }
    }

    /// Waits for the next thing to tell; `None` when Envoy has left.
    pub(super) async fn next_response(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
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

    fn take(&mut self, request: &DiscoveryRequest) -> Result<(), Status> {
        let names = request.resource_names.join(",");
        check_type(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            warn!(target: "sds", names, error = error.message, "Envoy refused a secret and keeps what it had");
            return Ok(());
        }
        if request.resource_names.is_empty() {
            self.watched.clear();
            return Ok(());
        }
        check_count(request.resource_names.len())?;
        // Somebody who comes from another server brings a nonce that nobody here has sent.
        let is_first = request.response_nonce.is_empty() || self.watched.is_empty();
        if !is_first && request.response_nonce != self.nonce {
            // An answer to a response that has been overtaken.
            return Ok(());
        }
        if !is_first {
            debug!(target: "sds", names, nonce = self.nonce, "accepted");
        }
        let mut before = std::mem::take(&mut self.watched);
        for name in &request.resource_names {
            if self.watched.iter().any(|followed| followed.name.text == *name) {
                continue;
            }
            let known = before.iter().position(|followed| followed.name.text == *name);
            self.watched.push(match known {
                Some(index) if !is_first => before.swap_remove(index),
                _ => self.secrets.follow(name)?,
            });
        }
        Ok(())
    }

    /// All that Envoy watches and has not got in its newest form.
    fn respond(&mut self) -> Option<DiscoveryResponse> {
        let mut resources = Vec::new();
        for followed in &mut self.watched {
            let Some((version, packed)) = followed.news().and_then(|_| followed.pack()) else { continue };
            info!(target: "sds", resource = followed.name.text, version, serial = followed.serial(), "push");
            resources.push(packed);
        }
        if resources.is_empty() {
            return None;
        }
        self.count += 1;
        self.nonce = nonce(self.count);
        Some(response(resources, self.count, self.nonce.clone()))
    }
}

/// A response with secrets.
pub(super) fn response(resources: Vec<proto::Any>, count: u64, nonce: String) -> DiscoveryResponse {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    DiscoveryResponse {
        version_info: format!("{now}/{count}"),
        resources,
        type_url: names::TypeUrl::Secret.as_str().to_owned(),
        nonce,
        ..DiscoveryResponse::default()
    }
}
