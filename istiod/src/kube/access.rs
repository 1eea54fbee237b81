//! Whether a service account may read the Secrets of its namespace: a proxy is
//! given none that its account could not read by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use runtime::tasks::Tasks;
use source::kubernetes::{Health, reason};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::Connection;

/// How long an answer is good for.
const KEPT: Duration = Duration::from_secs(60);
/// Between two looks at who was refused just now: somebody may have allowed it.
const RETRY: Duration = Duration::from_secs(2);
/// The same when that has lasted.
const LONGEST: Duration = Duration::from_secs(30);
/// Who has not asked for so long is forgotten; longer than connections last.
const IDLE: Duration = Duration::from_secs(3600);
/// Time for an answer of the API server.
const ANSWER: Duration = Duration::from_secs(5);

/// Namespace and name of a service account.
type Account = (String, String);

/// What is known of accounts; clones are the same.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    client: Client,
    health: Health,
    tasks: Tasks,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    accounts: BTreeMap<Account, Entry>,
    /// Those about which the API server is being asked.
    asked: BTreeSet<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    is_allowed: bool,
    /// When the API server said so; never, as long as it has said nothing.
    checked: Option<Instant>,
    used: Instant,
    /// When and how long after that it is asked again, as long as it is refused.
    next: Instant,
    wait: Duration,
}

impl Entry {
    /// Nothing is known yet.
    fn new(now: Instant) -> Self {
        Self { is_allowed: false, checked: None, used: now, next: now + RETRY, wait: RETRY }
    }

    /// Whether it was allowed, and that is long ago. Those who are refused are asked
    /// about again and again anyway.
    fn is_old(&self, now: Instant) -> bool {
        self.is_allowed && self.checked.is_none_or(|at| now.duration_since(at) >= KEPT)
    }

    /// The time to ask again is put off, longer each time.
    fn put_off(&mut self, now: Instant) {
        self.wait = (self.wait * 2).min(LONGEST);
        self.next = now + self.wait;
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Asks the API server of that connection.
    #[must_use]
    pub fn new(tasks: &Tasks, connection: &Connection) -> Self {
        let Connection { reviews, health, .. } = connection;
        let inner = Inner {
            client: reviews.clone(),
            health: health.clone(),
            tasks: tasks.clone(),
            known: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        let access = Self(Arc::new(inner));
        let own = access.clone();
        tasks.spawn("access to Secrets", async move { own.ask_again().await });
        access
    }

    /// Tells that the API server has said something new about somebody.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Whether a service account may list the Secrets of its namespace, as the API
    /// server said within the last minute, or last if it cannot be asked; `None`
    /// until that is known. Nobody waits for it: it is told by [`Self::changes`].
    #[must_use]
    pub fn may_list(&self, namespace: &str, name: &str) -> Option<bool> {
        let account = (namespace.to_owned(), name.to_owned());
        let now = Instant::now();
        let mut known = self.known();
        let entry = known.accounts.get_mut(&account).map(|entry| {
            entry.used = now;
            *entry
        });
        let entry = entry.filter(|entry| !entry.is_old(now));
        if entry.is_none() && known.asked.insert(account.clone()) {
            let own = self.clone();
            self.0.tasks.spawn("access to Secrets", async move {
                if own.check(&account).await {
                    own.0.changes.send_modify(|count| *count += 1);
                }
            });
        }
        entry.map(|entry| entry.is_allowed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks and remembers; says whether that is something new.
    async fn check(&self, account: &Account) -> bool {
        let answer = match timeout(ANSWER, self.ask(account)).await {
            Ok(Ok(is_allowed)) => Some(is_allowed),
            Ok(Err(error)) => {
                self.0.health.suspect();
                if let kube::Error::Api(status) = &error
                    && status.code == 403
                {
                    warn!(
                        target: "kube",
                        "istiod may not ask who may read Secrets: {} (the ClusterRole of its service account must \
                         allow create on subjectaccessreviews.authorization.k8s.io)",
                        reason(&error)
                    );
                }
                None
            }
            Err(_) => {
                self.0.health.suspect();
                None
            }
        };
        let now = Instant::now();
        let mut known = self.known();
        known.asked.remove(account);
        let before = known.accounts.get(account).filter(|entry| !entry.is_old(now));
        let before = before.map(|entry| entry.is_allowed);
        let entry = known.accounts.entry(account.clone()).or_insert_with(|| Entry::new(now));
        if let Some(is_allowed) = answer {
            if entry.is_allowed && !is_allowed {
                (entry.next, entry.wait) = (now + RETRY, RETRY);
            }
            (entry.is_allowed, entry.checked) = (is_allowed, Some(now));
        } else if entry.is_old(now) {
            // What was said last holds until it can be asked again.
            entry.checked = now.checked_sub(KEPT - RETRY);
        }
        before != Some(entry.is_allowed)
    }

    async fn ask(&self, (namespace, name): &Account) -> Result<bool, kube::Error> {
        let api: Api<SubjectAccessReview> = Api::all(self.0.client.clone());
        let answer = api.create(&PostParams::default(), &question(namespace, name)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Asks again about those who were refused.
    async fn ask_again(&self) {
        loop {
            tokio::time::sleep(RETRY).await;
            let now = Instant::now();
            let refused: Vec<Account> = {
                let mut known = self.known();
                known.accounts.retain(|_, entry| now.duration_since(entry.used) < IDLE);
                let accounts = known.accounts.iter_mut();
                let refused = accounts.filter(|(_, entry)| !entry.is_allowed && entry.next <= now);
                refused
                    .map(|(account, entry)| {
                        entry.put_off(now);
                        account.clone()
                    })
                    .collect()
            };
            let mut is_new = false;
            for account in refused {
                is_new |= self.check(&account).await;
            }
            if is_new {
                self.0.changes.send_modify(|count| *count += 1);
            }
        }
    }
}

/// The question as the API server takes it: with the groups that all service
/// accounts are of.
fn question(namespace: &str, name: &str) -> SubjectAccessReview {
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{name}")),
        groups: Some(vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".into(),
        ]),
        resource_attributes: Some(ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some("list".into()),
            resource: Some("secrets".into()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_api_server_that_does_not_answer() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let client = Client::new(service, "default");
        let tasks = Tasks::new();
        let health = Health::new(&tasks, &client);
        let access = Access::new(&tasks, &Connection { client: client.clone(), reviews: client, health });
        let mut changes = access.changes();
        let begin = Instant::now();
        assert_eq!(access.may_list("edge", "gateway"), None);
        assert_eq!(access.may_list("edge", "gateway"), None);
        assert_eq!(Instant::now(), begin);
        assert_eq!(access.known().asked.len(), 1, "asked once");
        // Without an answer in time, nothing is given away.
        changes.changed().await.unwrap();
        assert_eq!(access.may_list("edge", "gateway"), Some(false));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_counts_only_if_there_is_no_other() {
        let hangs = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_hanging = hangs.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let hangs = is_hanging.load(std::sync::atomic::Ordering::Relaxed);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                let body = serde_json::json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                    "metadata": {}, "spec": {}, "status": {"allowed": true}});
                let body = kube::client::Body::from(body.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        let client = Client::new(service, "default");
        let tasks = Tasks::new();
        let health = Health::new(&tasks, &client);
        let access = Access::new(&tasks, &Connection { client: client.clone(), reviews: client, health });
        let mut changes = access.changes();
        assert_eq!(access.may_list("edge", "gateway"), None);
        changes.changed().await.unwrap();
        assert_eq!(access.may_list("edge", "gateway"), Some(true));
        tokio::time::advance(KEPT).await;
        hangs.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(access.may_list("edge", "gateway"), None, "it may be refused by now");
        changes.changed().await.unwrap();
        assert_eq!(access.may_list("edge", "gateway"), Some(true), "nobody says so");
    }

    #[test]
    fn the_question_is_about_the_account_in_its_own_namespace() {
        let spec = question("edge", "gateway").spec;
        assert_eq!(spec.user.as_deref(), Some("system:serviceaccount:edge:gateway"));
        assert!(spec.groups.unwrap().contains(&"system:serviceaccounts:edge".to_owned()));
        let what = spec.resource_attributes.unwrap();
        assert_eq!((what.namespace.as_deref(), what.verb.as_deref()), (Some("edge"), Some("list")));
    }
}
