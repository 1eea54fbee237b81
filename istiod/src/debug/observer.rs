//! What was found in what is in force, put together when somebody asks.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use config::Problem;
use pilot::finding::{Finding, Topic};
use pilot::survey::Survey;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::push::status::Table;
use crate::world::World;

/// Conflicts that are logged at once.
const MOST_TOLD: usize = 50;
/// Pause before a look at what proxies were sent: others are sent it too.
const PAUSE: Duration = Duration::from_secs(1);

/// What objects tell, with the serial of the configuration they are of.
type Surveyed = Option<(u64, Arc<Survey>)>;

/// What was found, with the versions of the configuration and of the proxies that
/// it was found in.
type Found = Option<((u64, u64), Arc<[Finding]>)>;

/// Looks at the configuration in force and at connected proxies.
#[derive(Clone, Debug)]
pub struct Observer {
    world: watch::Receiver<Arc<World>>,
    table: Table,
    /// The last look at objects.
    survey: Arc<Mutex<Surveyed>>,
    /// The last look at everything.
    found: Arc<Mutex<Found>>,
}

impl Observer {
    /// One that looks at these.
    #[must_use]
    pub fn new(world: watch::Receiver<Arc<World>>, table: Table) -> Self {
        Self { world, table, survey: Arc::default(), found: Arc::default() }
    }

    /// Everything, one finding for each topic and key; the same list as long as
    /// nothing has changed.
    #[must_use]
    pub fn all(&self) -> Arc<[Finding]> {
        let world = self.world.borrow().clone();
        // Before the look: what changes meanwhile is seen by the next one.
        let versions = (world.serial, self.table.version());
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((of, all)) if *of == versions => all.clone(),
            _ => {
                let all: Arc<[Finding]> = self.look(&world).into();
                *found = Some((versions, all.clone()));
                all
            }
        }
    }

    fn look(&self, world: &World) -> Vec<Finding> {
        let survey = self.survey(world);
        let mut all: BTreeMap<(Topic, String), Finding> = BTreeMap::new();
        let mut add = |finding: Finding| drop(all.insert((finding.topic, finding.key.clone()), finding));
        survey.findings.iter().cloned().for_each(&mut add);
        world.cache.findings(&world.stamps).into_iter().for_each(&mut add);
        for (_, row) in self.table.all() {
            row.findings.get().into_iter().for_each(&mut add);
            survey.of_proxy(&row.proxy).into_iter().for_each(&mut add);
        }
        all.into_values().collect()
    }

    /// Those that somebody should mend, as problems of objects.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        self.problems_of(&self.all())
    }

    fn problems_of(&self, findings: &[Finding]) -> Vec<Problem> {
        let world = self.world.borrow().clone();
        let problem = |finding: &Finding| {
            let severity = finding.topic.severity()?;
            let known = finding.object.as_ref().and_then(|key| world.store.object(key));
            let position = known.map(|object| object.position.clone()).unwrap_or_default();
            let (object, message) = (finding.object.clone(), finding.message.clone());
            Some(Problem { severity, object, position, field: String::new(), message })
        };
        let mut seen = HashSet::new();
        let problems = findings.iter().filter_map(problem);
        problems.filter(|problem| seen.insert(problem.clone())).collect()
    }

    fn survey(&self, world: &World) -> Arc<Survey> {
        // Made anew or whole, whatever a panic left behind.
        let mut known = self.survey.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((serial, survey)) if *serial == world.serial => survey.clone(),
            _ => {
                let survey = Arc::new(Survey::new(&world.store, &world.snapshot));
                *known = Some((world.serial, survey.clone()));
                survey
            }
        }
    }

    /// Logs what should be mended, once, whenever proxies were sent something.
    pub async fn tell(self, pushed: Arc<Notify>) {
        let mut told: HashSet<Problem> = HashSet::new();
        let mut last: Arc<[Finding]> = Arc::default();
        loop {
            pushed.notified().await;
            tokio::time::sleep(PAUSE).await;
            let all = self.all();
            if Arc::ptr_eq(&all, &last) {
                continue;
            }
            let now = self.problems_of(&all);
            last = all;
            let new: Vec<&Problem> = now.iter().filter(|problem| !told.contains(problem)).collect();
            for problem in new.iter().take(MOST_TOLD) {
                warn!(target: "config", "{problem}");
            }
            if new.len() > MOST_TOLD {
                warn!(target: "config", "and {} more: see /debug/push_status", new.len() - MOST_TOLD);
            }
            told = now.into_iter().collect();
        }
    }
}

impl Collector for Observer {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut counts: BTreeMap<Topic, i64> = Topic::ALL.iter().map(|topic| (*topic, 0)).collect();
        for finding in self.all().iter() {
            *counts.entry(finding.topic).or_default() += 1;
        }
        for (topic, count) in counts {
            let gauge = ConstGauge::new(count);
            let metric = encoder.encode_descriptor(topic.metric(), help(topic), None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn help(topic: Topic) -> &'static str {
    match topic {
        Topic::InboundListener => "Proxies with a port that services of different protocols lead to",
        Topic::OutboundListener => "Outbound listeners that several services want the same connections of",
        Topic::DuplicateCluster => "Clusters of services that have one name",
        Topic::NothingToResolve => "Clusters to be resolved by DNS that have no names",
        Topic::NoEndpoints => "Clusters without endpoints",
        Topic::DuplicateDomain => "Virtual hosts with a name that another one has",
        Topic::DuplicateSubset => "Hosts with a subset that several DestinationRules have",
        Topic::NotReady => "Proxies whose workload is not ready",
        Topic::NoPod => "Services with endpoints that name a pod that is not there",
    }
}
