//! Tokens of a cluster's service accounts: the API server says whose they are
//! (`TokenReview`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{
    TokenReview as Review, TokenReviewSpec, TokenReviewStatus, UserInfo,
};
use kube::Client;
use kube::api::{Api, PostParams};
use names::{Namespace, ServiceAccount, SpiffeId};
use sha2::{Digest as _, Sha256};
use source::kubernetes::{Health, reason};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Authenticator, Caller, Credentials, Pod, Refusal};
use crate::kube::Connection;
use crate::kube::mesh::Mesh;

/// Time for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a verdict is good for. An agent asks for a certificate and opens a
/// stream at the same time; an account that is deleted must be nobody at once.
const KEPT: Duration = Duration::from_millis(250);
/// Verdicts that are kept at most.
const MAX_KEPT: usize = 1024;
/// The group that all service accounts are of, and no people.
const GROUP: &str = "system:serviceaccounts";
/// What the user name of a service account begins with.
const USER: &str = "system:serviceaccount:";

/// What the API server adds to a token that was made for a pod.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

type Verdict = Result<(Namespace, ServiceAccount, Option<Pod>), String>;

/// Asks the API server about tokens.
pub struct TokenReview {
    client: Client,
    health: Health,
    audiences: Vec<String>,
    /// Name of the cluster.
    cluster: String,
    /// Has the trust domain of identities, which may change.
    mesh: watch::Receiver<Mesh>,
    /// Verdicts of the last moment, by the token's hash.
    kept: Mutex<HashMap<[u8; 32], (Instant, Verdict)>>,
}

impl std::fmt::Debug for TokenReview {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReview").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl TokenReview {
    /// Asks the API server of that connection about tokens for `audiences`.
    #[must_use]
    pub fn new(
        connection: &Connection,
        audiences: Vec<String>,
        cluster: String,
        mesh: watch::Receiver<Mesh>,
    ) -> Self {
        let Connection { reviews, health, .. } = connection;
        Self {
            client: reviews.clone(),
            health: health.clone(),
            audiences,
            cluster,
            mesh,
            kept: Mutex::default(),
        }
    }

    async fn verdict(&self, token: &str) -> Result<Verdict, Refusal> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.known(&hash) {
            return Ok(verdict);
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(self.audiences.clone()) };
        let review = Review { spec, ..Review::default() };
        let api: Api<Review> = Api::all(self.client.clone());
        let status = match timeout(ANSWER, api.create(&PostParams::default(), &review)).await {
            Ok(Ok(answer)) => answer.status.unwrap_or_default(),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                return Err(Refusal::Unavailable(format!(
                    "istiod may not ask the API server about tokens: {} (the ClusterRole of its service account must \
                     allow create on tokenreviews.authentication.k8s.io)",
                    status.message
                )));
            }
            Ok(Err(error)) => return Err(self.unreachable(&reason(&error))),
            Err(_) => return Err(self.unreachable(&format!("no answer within {ANSWER:?}"))),
        };
        let verdict = judge(status, &self.audiences);
        self.keep(hash, verdict.clone());
        Ok(verdict)
    }

    fn unreachable(&self, why: &str) -> Refusal {
        self.health.suspect();
        Refusal::Unavailable(format!("cannot reach the API server to check the token: {why}"))
    }

    fn known(&self, hash: &[u8; 32]) -> Option<Verdict> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(hash).filter(|(since, _)| since.elapsed() < KEPT).map(|(_, verdict)| verdict.clone())
    }

    fn keep(&self, hash: [u8; 32], verdict: Verdict) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (since, _)| since.elapsed() < KEPT);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(hash, (Instant::now(), verdict));
        }
    }
}

#[tonic::async_trait]
impl Authenticator for TokenReview {
    fn name(&self) -> &'static str {
        "token"
    }

    async fn authenticate(&self, credentials: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
        let token = credentials.bearer?;
        if let Some(other) = credentials.cluster.filter(|name| !name.is_empty() && *name != self.cluster) {
            let why = format!(
                "is of cluster {other:?}, whose API server istiod does not know (its own is {:?})",
                self.cluster
            );
            return Some(Err(Refusal::Unproven(why)));
        }
        let (namespace, service_account, pod) = match self.verdict(token).await {
            Ok(Ok(account)) => account,
            Ok(Err(why)) => return Some(Err(Refusal::Unproven(why))),
            Err(refusal) => return Some(Err(refusal)),
        };
        let trust_domain = self.mesh.borrow().config.trust_domain().parse().unwrap_or_default();
        let id = SpiffeId { trust_domain, namespace, service_account };
        Some(Ok(Caller { identities: vec![id], by: self.name(), pod }))
    }
}

/// The service account that a token is of, by what the API server says.
fn judge(status: TokenReviewStatus, audiences: &[String]) -> Verdict {
    if let Some(error) = status.error.filter(|error| !error.is_empty()) {
        return Err(format!("is refused by the API server: {error}"));
    }
    if status.authenticated != Some(true) {
        return Err("is refused by the API server".into());
    }
    // An API server that knows nothing of audiences has checked it for itself.
    let accepted = status.audiences.unwrap_or_default();
    if !accepted.iter().any(|audience| audiences.contains(audience)) {
        return Err(format!("is for another audience; accepted: {}", audiences.join(", ")));
    }
    let UserInfo { username, groups, extra, .. } = status.user.unwrap_or_default();
    let username = username.unwrap_or_default();
    if !groups.unwrap_or_default().iter().any(|group| group == GROUP) {
        return Err(format!("is of {username:?}, which is no service account"));
    }
    let account = username.strip_prefix(USER).and_then(|rest| rest.split_once(':'));
    let account = account.filter(|(_, name)| !name.contains(':'));
    let parsed = account.and_then(|(namespace, name)| Some((namespace.parse().ok()?, name.parse().ok()?)));
    let extra = extra.unwrap_or_default();
    let first = |key: &str| extra.get(key)?.first().cloned();
    let pod = first(POD_NAME).zip(first(POD_UID)).map(|(name, uid)| Pod { name, uid });
    let parsed = parsed.map(|(namespace, name)| (namespace, name, pod));
    parsed.ok_or_else(|| format!("is of {username:?}, which is no name of a service account"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(username: &str, groups: &[&str], audiences: &[&str]) -> TokenReviewStatus {
        let all = |items: &[&str]| Some(items.iter().map(|&item| item.to_owned()).collect());
        let user = UserInfo { username: Some(username.into()), groups: all(groups), ..UserInfo::default() };
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: all(audiences),
            user: Some(user),
            error: None,
        }
    }

    fn verdict(status: TokenReviewStatus) -> Verdict {
        judge(status, &["istio-ca".into(), "other".into()])
    }

    #[test]
    fn a_service_account_is_who_the_api_server_says() {
        let groups = ["system:authenticated", GROUP];
        let good = status("system:serviceaccount:bookinfo:reviews", &groups, &["other"]);
        let (namespace, account, pod) = verdict(good.clone()).unwrap();
        assert_eq!((namespace.as_str(), account.as_str(), pod), ("bookinfo", "reviews", None));
        let mut bound = good;
        let extra = [(POD_NAME, "reviews-1"), (POD_UID, "7")];
        let extra = extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        bound.user.as_mut().unwrap().extra = Some(extra.into());
        let pod = verdict(bound).unwrap().2.unwrap();
        assert_eq!((pod.name.as_str(), pod.uid.as_str()), ("reviews-1", "7"));
    }

    #[test]
    fn everybody_else_is_refused_with_the_reason() {
        let name = "system:serviceaccount:bookinfo:reviews";
        let error = TokenReviewStatus { error: Some("expired".into()), ..status(name, &[GROUP], &["other"]) };
        let silent = TokenReviewStatus { authenticated: None, ..status(name, &[GROUP], &["other"]) };
        for (status, want) in [
            (error, "expired"),
            (silent, "refused by the API server"),
            (status(name, &[GROUP], &[]), "another audience; accepted: istio-ca, other"),
            (status(name, &[GROUP], &["api"]), "another audience"),
            (status(name, &["system:authenticated"], &["other"]), "no service account"),
            (status("system:node:a", &["system:nodes"], &["other"]), "no service account"),
            (status("system:serviceaccount:bookinfo", &[GROUP], &["other"]), "no name"),
            (status("system:serviceaccount:a:b:c", &[GROUP], &["other"]), "no name"),
            (status("a:b:c:d", &[GROUP], &["other"]), "no name"),
            (status("system:serviceaccount::", &[GROUP], &["other"]), "no name"),
        ] {
            let error = verdict(status).unwrap_err();
            assert!(error.contains(want), "{error} / {want}");
        }
    }
}
