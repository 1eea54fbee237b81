//! CertificateSigningRequests of the cluster: made, approved, waited for, taken back.

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use source::kubernetes::{Health, reason};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use crate::kube::Connection;

/// Time for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(10);
/// Time for a signer.
const SIGNER: Duration = Duration::from_secs(60);
/// Between two looks, when the API server tells nothing.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest lifetime that the API server takes.
const MIN_TTL: Duration = Duration::from_secs(600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do as asked.
    #[error("{action} a CertificateSigningRequest: {why}")]
    Api {
        /// What was asked.
        action: &'static str,
        /// What was answered.
        why: String,
        /// Whether the same may work later.
        may_change: bool,
    },
    /// The signer, or somebody else, does not want to.
    #[error("signer {signer} does not sign: {why}")]
    Refused {
        /// The signer.
        signer: String,
        /// Its reason.
        why: String,
    },
    /// Nobody has signed.
    #[error("signer {0} has not signed within {SIGNER:?}: is there one of that name?")]
    Silent(String),
    /// istiod ends.
    #[error("istiod ends")]
    Ended,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The request, PEM.
    pub csr: String,
    /// The signer.
    pub signer: String,
    /// What the certificate is for.
    pub usages: &'static [&'static str],
    /// Its lifetime.
    pub ttl: Duration,
}

/// Asks the signers of one cluster.
#[derive(Clone)]
pub struct Requests {
    client: Client,
    health: Health,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

type Csr = CertificateSigningRequest;

impl Requests {
    /// Asks by that connection.
    #[must_use]
    pub fn new(connection: &Connection) -> Self {
        Self { client: connection.reviews.clone(), health: connection.health.clone() }
    }

    /// A certificate with what the signer puts behind it, PEM.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn sign(&self, wanted: Wanted) -> Result<String, Error> {
        let api: Api<Csr> = Api::all(self.client.clone());
        let seconds = i32::try_from(wanted.ttl.max(MIN_TTL).as_secs()).unwrap_or(i32::MAX);
        let request = Csr {
            metadata: ObjectMeta { generate_name: Some("csr-workload-".into()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(wanted.csr.into_bytes()),
                signer_name: wanted.signer.clone(),
                usages: Some(wanted.usages.iter().map(|&usage| usage.to_owned()).collect()),
                expiration_seconds: Some(seconds),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let params = PostParams::default();
        let made = self.answer("create", api.create(&params, &request)).await?;
        let name = made.metadata.name.clone().unwrap_or_default();
        debug!(target: "ca", name, signer = wanted.signer, "certificate requested");
        let signed = self.approve_and_wait(&api, made, &wanted.signer).await;
        if let Err(error) = self.answer("delete", api.delete(&name, &DeleteParams::default())).await {
            warn!(target: "ca", name, "{error}: it stays until the cluster removes it");
        }
        signed
    }

    async fn approve_and_wait(&self, api: &Api<Csr>, mut made: Csr, signer: &str) -> Result<String, Error> {
        let name = made.metadata.name.clone().unwrap_or_default();
        let condition = CertificateSigningRequestCondition {
            type_: "Approved".into(),
            status: "True".into(),
            reason: Some("IstiodApproved".into()),
            message: Some("istiod has checked who asks".into()),
            ..CertificateSigningRequestCondition::default()
        };
        made.status =
            Some(CertificateSigningRequestStatus { conditions: Some(vec![condition]), ..Default::default() });
        let params = PostParams::default();
        let approved = api.replace_subresource("approval", &name, &params, &made);
        let mut seen: Csr = self.answer("approve", approved).await?;
        let end = Instant::now() + SIGNER;
        loop {
            if let Some(verdict) = verdict(&seen, signer) {
                return verdict;
            }
            let version = seen.metadata.resource_version.clone().unwrap_or_default();
            match timeout_at(end, self.next(api, &name, &version)).await {
                Ok(next) => seen = next?,
                Err(_) => return Err(Error::Silent(signer.to_owned())),
            }
        }
    }

    /// What becomes of a request after that version of it.
    async fn next(&self, api: &Api<Csr>, name: &str, version: &str) -> Result<Csr, Error> {
        let params = WatchParams::default().fields(&format!("metadata.name={name}"));
        if let Ok(stream) = api.watch(&params, version).await {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(WatchEvent::Added(seen) | WatchEvent::Modified(seen)) => return Ok(seen),
                    Ok(WatchEvent::Bookmark(_)) => {}
                    Ok(WatchEvent::Deleted(_) | WatchEvent::Error(_)) | Err(_) => break,
                }
            }
        }
        tokio::time::sleep(LOOK).await;
        self.answer("read", api.get(name)).await
    }

    async fn answer<T>(
        &self,
        action: &'static str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match timeout(ANSWER, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let may_change = match &error {
                    kube::Error::Api(status) => !matches!(status.code, 400 | 401 | 403 | 404 | 422),
                    _ => {
                        self.health.suspect();
                        true
                    }
                };
                Err(Error::Api { action, why: reason(&error), may_change })
            }
            Err(_) => {
                self.health.suspect();
                Err(Error::Api { action, why: format!("no answer within {ANSWER:?}"), may_change: true })
            }
        }
    }
}

/// What has become of a request; `None` as long as that is open.
fn verdict(seen: &Csr, signer: &str) -> Option<Result<String, Error>> {
    let refused = |why: String| Error::Refused { signer: signer.to_owned(), why };
    let status = seen.status.as_ref()?;
    if let Some(certificate) = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty()) {
        let text = String::from_utf8(certificate.0.clone());
        return Some(text.map_err(|_| refused("its answer is no text".to_owned())));
    }
    let against =
        status.conditions.iter().flatten().find(|one| matches!(one.type_.as_str(), "Denied" | "Failed"))?;
    let why = [&against.reason, &against.message].into_iter().flatten();
    let why: Vec<&str> = std::iter::once(against.type_.as_str()).chain(why.map(String::as_str)).collect();
    Some(Err(refused(why.join(": "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &serde_json::Value) -> Option<Result<String, String>> {
        let spec = serde_json::json!({"request": "", "signerName": "a.example/b"});
        let object = serde_json::json!({"spec": spec, "status": status});
        let verdict = verdict(&serde_json::from_value(object).unwrap(), "a.example/b");
        verdict.map(|verdict| verdict.map_err(|error| error.to_string()))
    }

    #[test]
    fn a_request_is_open_until_it_is_signed_or_refused() {
        let approved = serde_json::json!({"type": "Approved", "status": "True"});
        assert!(seen(&serde_json::json!({"conditions": [approved]})).is_none());
        assert_eq!(seen(&serde_json::json!({"certificate": "YQ=="})), Some(Ok("a".into())));
        let failed =
            serde_json::json!({"type": "Failed", "status": "True", "reason": "Policy", "message": "no"});
        let error = seen(&serde_json::json!({"conditions": [approved, failed]})).unwrap().unwrap_err();
        assert_eq!(error, "signer a.example/b does not sign: Failed: Policy: no");
    }
}
