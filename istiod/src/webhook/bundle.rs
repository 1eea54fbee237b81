//! Keeps the webhook configurations of the cluster right: the API server must
//! trust our certificate, and refuse what could not be checked.
//!
//! Every replica does this, since all want the same. What is written is owned by
//! field managers of its own, so that tools which apply the rest of the objects
//! leave it alone.

mod seen;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use runtime::backoff::Backoff;
use runtime::tasks::Tasks;
use source::kubernetes::{self, Event, Resource};
use tokio::sync::watch;
use tracing::{info, warn};

use self::seen::{Form, Seen};
use self::write::{Check, Writer};
use crate::ca::authority::Authority;
use crate::kube::Connection;

/// Waits after failures: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Istio's word for a configuration that could not be changed.
const NOT_UPDATED: &str = "webhook_update_failure";

/// What is kept right.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Revision of the control plane; empty for the default one.
    pub revision: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of its pod, which Events are about.
    pub pod: String,
    /// Whether the injector's configurations are looked after.
    pub injection: bool,
    /// Whether the validator's are.
    pub validation: bool,
}

/// A label `name`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Name {
    name: String,
}

/// Labels of a failure.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Failure {
    name: String,
    reason: &'static str,
}

/// Counters, named as Istio names them.
#[derive(Debug, Default)]
pub struct Metrics {
    attempts: Family<Name, Counter>,
    retries: Family<Name, Counter>,
    failures: Family<Failure, Counter>,
}

impl Metrics {
    /// Puts the counters into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let patch = registry.sub_registry_with_prefix("webhook_patch");
        patch.register(
            "attempts",
            "Changes of webhook configurations that were tried",
            self.attempts.clone(),
        );
        patch.register("retries", "Those that will be tried again", self.retries.clone());
        patch.register("failures", "Those that failed", self.failures.clone());
    }
}

type All = BTreeMap<(Form, String), Seen>;

/// Starts looking after the configurations of this revision.
pub fn start(
    tasks: &Tasks,
    connection: &Connection,
    authority: &Authority,
    settings: &Settings,
    metrics: Arc<Metrics>,
) {
    let (tell, all) = watch::channel(All::new());
    let tell = Arc::new(tell);
    for (form, is_wanted) in [(Form::Mutating, settings.injection), (Form::Validating, settings.validation)] {
        if is_wanted {
            follow(tasks, connection, form, settings.revision.clone(), tell.clone());
        }
    }
    let writer = Writer::new(connection.client.clone(), settings);
    let keeper = Keeper { writer, metrics, told: BTreeSet::new(), proven: BTreeSet::new() };
    tasks.spawn("webhook configurations", keeper.run(all, authority.subscribe()));
}

fn follow(
    tasks: &Tasks,
    connection: &Connection,
    form: Form,
    revision: String,
    tell: Arc<watch::Sender<All>>,
) {
    let resource = Resource {
        name: form.kind(),
        paths: vec![form.path()],
        fields: None,
        only_metadata: false,
        defined: None,
    };
    let decode = move |object| seen::read(form, &object, &revision);
    let take = move |event| {
        tell.send_modify(|all| match event {
            Event::Listed(list) => {
                all.retain(|(of, _), _| *of != form);
                all.extend(list.into_iter().flatten().map(|one: Seen| ((form, one.name.clone()), one)));
            }
            Event::Set(Some(one)) => drop(all.insert((form, one.name.clone()), one)),
            Event::Gone(Some(one)) => drop(all.remove(&(form, one.name))),
            Event::Set(None) | Event::Gone(None) => {}
        });
        std::future::ready(!tell.is_closed())
    };
    let (client, health) = (connection.client.clone(), connection.health.clone());
    tasks.spawn(form.kind(), kubernetes::follow(client, health, resource, decode, take));
}

struct Keeper {
    writer: Writer,
    metrics: Arc<Metrics>,
    /// Failures of which an Event was made.
    told: BTreeSet<(String, String)>,
    /// Configurations whose webhooks were seen to be called.
    proven: BTreeSet<String>,
}

impl Keeper {
    async fn run(
        mut self,
        mut all: watch::Receiver<All>,
        mut roots: watch::Receiver<Arc<crate::ca::authority::Current>>,
    ) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let bundle = STANDARD.encode(&roots.borrow_and_update().roots);
            let now = all.borrow_and_update().clone();
            let mut is_right = true;
            for seen in now.values() {
                is_right &= self.keep(seen, &bundle).await;
            }
            let wait = if is_right {
                backoff.reset();
                None
            } else {
                Some(backoff.next_wait())
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = all.changed() => if changed.is_err() { return },
                changed = roots.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Makes one configuration right; whether it is.
    async fn keep(&mut self, seen: &Seen, bundle: &str) -> bool {
        if seen.needs_bundle(bundle) {
            let name = Name { name: seen.name.clone() };
            self.metrics.attempts.get_or_create(&name).inc();
            if let Err(error) = self.writer.set_bundle(seen, bundle).await {
                self.metrics.retries.get_or_create(&name).inc();
                let failure = Failure { name: seen.name.clone(), reason: NOT_UPDATED };
                self.metrics.failures.get_or_create(&failure).inc();
                let message =
                    format!("caBundle of {} {} cannot be set: {error}", seen.form.kind(), seen.name);
                self.tell(seen, "CABundleNotSet", message).await;
                return false;
            }
            info!(target: "webhook", kind = seen.form.kind(), name = seen.name, "the API server trusts our certificate");
            self.told.retain(|(name, _)| *name != seen.name);
            // What comes of it will be seen.
            return true;
        }
        if !seen.lets_pass() {
            return true;
        }
        if !self.proven.contains(&seen.name) {
            match self.writer.is_called().await {
                Check::Called => drop(self.proven.insert(seen.name.clone())),
                Check::NotCalled(why) => {
                    let message = format!(
                        "failurePolicy of {} stays Ignore, so what is wrong may be stored: {why}",
                        seen.name
                    );
                    self.tell(seen, "ValidationNotCalled", message).await;
                    return false;
                }
            }
        }
        if let Err(error) = self.writer.refuse_unchecked(seen).await {
            let message = format!("failurePolicy of {} cannot be set to Fail: {error}", seen.name);
            self.tell(seen, "FailurePolicyNotSet", message).await;
            return false;
        }
        info!(target: "webhook", name = seen.name, "what cannot be checked is refused from now on");
        true
    }

    /// Tells a failure once, in the log and as an Event.
    async fn tell(&mut self, seen: &Seen, reason: &str, message: String) {
        if !self.told.insert((seen.name.clone(), message.clone())) {
            return;
        }
        warn!(target: "webhook", "{message}; tried again");
        self.writer.event(reason, &message).await;
    }
}
