//! One of several istiods does what only one may do: the one that holds a Lease.
//!
//! Only writers wait for it; whatever proxies and the API server ask for, every
//! istiod answers.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use runtime::tasks::Tasks;
use source::kubernetes::{Health, reason};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::Connection;

/// A holder that says nothing for so long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that cannot say that it is there for so long stops before others begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks.
const RETRY: Duration = Duration::from_secs(2);
/// Time to give the Lease back.
const RELEASE: Duration = Duration::from_secs(2);

/// Makes, once and for all, one of the istiods the one that writes ConfigMaps of roots.
pub const NAMESPACES: &str = "istio-namespace-controller-election";

/// A Lease that this istiod holds or waits for.
#[derive(Debug)]
pub struct Lock {
    leads: watch::Receiver<bool>,
    end: watch::Sender<bool>,
    task: JoinHandle<Option<()>>,
}

impl Lock {
    /// Whether this istiod holds it.
    #[must_use]
    pub fn leads(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Gives it to whoever waits for it, and takes it no more.
    pub async fn release(self) {
        self.end.send_replace(true);
        timeout(RELEASE, self.task).await.ok();
    }
}

/// Tries to hold the Lease `name` of a namespace, now and whenever nobody does.
#[must_use]
pub fn elect(
    tasks: &Tasks,
    connection: &Connection,
    namespace: &str,
    name: &'static str,
    identity: &str,
) -> Lock {
    let (tell, leads) = watch::channel(false);
    let (end, ends) = watch::channel(false);
    let mut candidate = Candidate {
        client: connection.client.clone(),
        health: connection.health.clone(),
        namespace: namespace.to_owned(),
        name,
        identity: identity.to_owned(),
        seen: None,
        said: String::new(),
        tell,
    };
    let task = tasks.spawn("leader", async move { candidate.run(ends).await });
    Lock { leads, end, task }
}

struct Candidate {
    client: Client,
    health: Health,
    namespace: String,
    name: &'static str,
    identity: String,
    /// Version of the Lease that was seen last, and when it was seen first:
    /// clocks of other machines are not looked at.
    seen: Option<(String, Instant)>,
    /// The last failure, which is told once.
    said: String,
    tell: watch::Sender<bool>,
}

impl Candidate {
    async fn run(&mut self, mut ends: watch::Receiver<bool>) {
        let mut renewed: Option<Instant> = None;
        loop {
            let begin = Instant::now();
            let left = renewed.map_or(DEADLINE, |at| (at + DEADLINE).duration_since(begin));
            let tried = tokio::select! {
                tried = timeout(left.max(RETRY), self.attempt()) => tried,
                _ = ends.wait_for(|ends| *ends) => break,
            };
            match tried {
                Ok(Ok(is_mine)) => {
                    self.said.clear();
                    renewed = is_mine.then_some(begin);
                }
                Ok(Err(error)) => self.failed(&error),
                Err(_) => self.health.suspect(),
            }
            renewed = renewed.filter(|at| at.elapsed() < DEADLINE);
            self.set(renewed.is_some());
            let mut health = self.health.clone();
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = health.returned() => {}
                _ = ends.wait_for(|ends| *ends) => break,
            }
        }
        self.set(false);
        if renewed.is_some() {
            self.release().await;
        }
    }

    fn set(&self, leads: bool) {
        let is_other = self.tell.send_if_modified(|before| std::mem::replace(before, leads) != leads);
        if is_other && leads {
            info!(target: "kube", lock = self.name, identity = self.identity, "this istiod leads");
        } else if is_other {
            info!(target: "kube", lock = self.name, identity = self.identity, "this istiod leads no more");
        }
    }

    fn failed(&mut self, error: &kube::Error) {
        self.health.suspect();
        let why = reason(error);
        // That the API server is away is said once, and not by everybody.
        if self.said != why && matches!(error, kube::Error::Api(status) if status.code < 500) {
            warn!(
                target: "kube",
                "Lease {}/{}: {why} (the Role of istiod's service account must allow get, create and update)",
                self.namespace, self.name
            );
        }
        self.said = why;
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Whether it is this istiod's afterwards.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let api = self.api();
        let params = PostParams::default();
        let Some(mut lease) = api.get_opt(self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.into()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(taken(&LeaseSpec::default(), &self.identity, Timestamp::now())),
            };
            return took(api.create(&params, &lease).await);
        };
        let spec = lease.spec.unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        if !may_take(&spec, &self.identity, since.elapsed()) {
            return Ok(false);
        }
        lease.spec = Some(taken(&spec, &self.identity, Timestamp::now()));
        took(api.replace(self.name, &params, &lease).await)
    }

    async fn release(&self) {
        let api = self.api();
        let Ok(Some(mut lease)) = api.get_opt(self.name).await else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            // Without it, others wait until it has ended.
            api.replace(self.name, &PostParams::default(), &lease).await.ok();
        }
    }
}

/// Of several who ask, the API server lets one through.
fn took(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a Lease that has not changed for `unchanged` is there to be taken.
fn may_take(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> bool {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    holder.is_empty() || holder == identity || unchanged > seconds.map_or(DURATION, Duration::from_secs)
}

/// The Lease in the hands of `identity`.
fn taken(before: &LeaseSpec, identity: &str, now: Timestamp) -> LeaseSpec {
    let is_mine = before.holder_identity.as_deref() == Some(identity);
    let transitions = before.lease_transitions.unwrap_or_default();
    LeaseSpec {
        acquire_time: before.acquire_time.clone().filter(|_| is_mine).or(Some(MicroTime(now))),
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        lease_transitions: Some(if is_mine { transitions } else { transitions.saturating_add(1) }),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_when_nobody_holds_it() {
        let now = Timestamp::now();
        let free = LeaseSpec::default();
        let held = taken(&free, "a", now);
        let second = Duration::from_secs(1);
        assert!(may_take(&free, "a", Duration::ZERO));
        assert!(may_take(&held, "a", second) && !may_take(&held, "b", second));
        assert!(!may_take(&held, "b", DURATION) && may_take(&held, "b", DURATION + second));
        let released = LeaseSpec { holder_identity: Some(String::new()), ..held };
        assert!(may_take(&released, "b", Duration::ZERO));
    }

    #[test]
    fn a_holder_keeps_the_time_since_when_it_holds() {
        let (begin, later) = (Timestamp::UNIX_EPOCH, Timestamp::now());
        let first = taken(&LeaseSpec::default(), "a", begin);
        let again = taken(&first, "a", later);
        assert_eq!((again.acquire_time, again.lease_transitions), (Some(MicroTime(begin)), Some(1)));
        assert_eq!(again.renew_time, Some(MicroTime(later)));
        let other = taken(&first, "b", later);
        assert_eq!((other.acquire_time, other.lease_transitions), (Some(MicroTime(later)), Some(2)));
    }
}
