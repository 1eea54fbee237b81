//! Addresses of network gateways that are known by host names: looked up, and
//! again from time to time. What was found stays while nobody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use pilot::GatewayNames;
use runtime::tasks::Tasks;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

/// Time between two questions for a name: as long as Istio keeps any answer at least.
const AGAIN: Duration = Duration::from_secs(30);

/// Looks a name up.
type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The host names that are followed.
pub struct Names {
    followed: BTreeMap<String, Followed>,
    addresses: Arc<GatewayNames>,
    /// Names that were followed so far.
    started: u64,
    results: mpsc::Receiver<Found>,
    tell: mpsc::Sender<Found>,
    look_up: LookUp,
    tasks: Tasks,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The task of one name.
#[derive(Debug)]
struct Followed {
    serial: u64,
    /// Whether it has been looked up once.
    has_tried: bool,
    task: JoinHandle<Option<()>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was found of a name; `None` when nothing was.
#[derive(Debug)]
struct Found {
    name: String,
    serial: u64,
    addresses: Option<Vec<IpAddr>>,
}

impl Names {
    /// No names yet; they are looked up as the system does, as `tasks`.
    #[must_use]
    pub fn new(tasks: Tasks) -> Self {
        Self::with(tasks, Arc::new(|name| Box::pin(by_system(name))))
    }

    fn with(tasks: Tasks, look_up: LookUp) -> Self {
        let (tell, results) = mpsc::channel(64);
        let (followed, addresses) = (BTreeMap::new(), Arc::default());
        Self { followed, addresses, started: 0, results, tell, look_up, tasks }
    }

    /// The addresses that are known.
    #[must_use]
    pub fn addresses(&self) -> Arc<GatewayNames> {
        self.addresses.clone()
    }

    /// Follows these names and no others. Addresses of those that nobody wants
    /// any more are forgotten, which changes nothing for any proxy.
    pub fn follow(&mut self, wanted: &BTreeSet<String>) {
        self.followed.retain(|name, _| wanted.contains(name));
        if self.addresses.keys().any(|name| !wanted.contains(name)) {
            Arc::make_mut(&mut self.addresses).retain(|name, _| wanted.contains(name));
        }
        for name in wanted {
            if self.followed.contains_key(name) {
                continue;
            }
            self.started += 1;
            let serial = self.started;
            let follow = follow(name.clone(), serial, self.look_up.clone(), self.tell.clone());
            let task = self.tasks.spawn("addresses of a gateway", follow);
            self.followed.insert(name.clone(), Followed { serial, has_tried: false, task });
        }
    }

    /// Waits until addresses have changed.
    pub async fn changed(&mut self) {
        loop {
            // The channel never ends: we hold a sender.
            let Some(found) = self.results.recv().await else { return std::future::pending().await };
            if self.take(found) {
                return;
            }
        }
    }

    /// Waits until each name has been looked up once, but not longer than `limit`.
    pub async fn settle(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.followed.values().any(|followed| !followed.has_tried) {
            let Ok(Some(found)) = tokio::time::timeout_at(deadline, self.results.recv()).await else {
                return;
            };
            self.take(found);
        }
    }

    /// Whether addresses have changed.
    fn take(&mut self, Found { name, serial, addresses }: Found) -> bool {
        // The task of a name that is no more may have told something in its last moment.
        let Some(followed) = self.followed.get_mut(&name).filter(|followed| followed.serial == serial) else {
            return false;
        };
        followed.has_tried = true;
        let Some(addresses) = addresses else { return false };
        if self.addresses.get(&name) == Some(&addresses) {
            return false;
        }
        info!(target: "networks", name, ?addresses, "addresses of a gateway");
        Arc::make_mut(&mut self.addresses).insert(name, addresses);
        true
    }
}

/// Looks a name up for ever.
async fn follow(name: String, serial: u64, look_up: LookUp, tell: mpsc::Sender<Found>) {
    let mut is_failing = false;
    loop {
        let found = look_up(name.clone()).await.and_then(|mut addresses| {
            addresses.sort();
            addresses.dedup();
            if addresses.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(addresses) }
        });
        if let Err(error) = &found
            && !is_failing
        {
            warn!(target: "networks", name, %error, "a gateway cannot be looked up: the last addresses stay, if there are any");
        }
        is_failing = found.is_err();
        if tell.send(Found { name: name.clone(), serial, addresses: found.ok() }).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// By `/etc/hosts` and DNS.
async fn by_system(name: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Answers = Arc<Mutex<Vec<io::Result<Vec<IpAddr>>>>>;

    /// Names that are answered one after the other, the last answer first.
    fn answered(answers: Vec<io::Result<Vec<IpAddr>>>) -> (Names, Answers) {
        let left: Answers = Arc::new(Mutex::new(answers));
        let answers = left.clone();
        let look_up: LookUp = Arc::new(move |_| {
            let answer = answers.lock().unwrap().pop();
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        });
        (Names::with(Tasks::new(), look_up), left)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_stays_until_something_else_is() {
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let (mut names, left) = answered(vec![
            Ok(vec![other]),
            Ok(Vec::new()),
            Err(io::Error::other("no server answers")),
            Ok(vec![other, one, one]),
        ]);
        names.follow(&BTreeSet::from(["gw".into()]));
        names.settle(Duration::from_secs(2)).await;
        assert_eq!(names.addresses()["gw"], [one, other]);
        names.changed().await;
        assert_eq!(names.addresses()["gw"], [other]);
        assert!(left.lock().unwrap().is_empty());
        names.follow(&BTreeSet::new());
        assert!(names.addresses().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_name_that_is_not_answered() {
        let (mut names, _) = answered(Vec::new());
        names.follow(&BTreeSet::from(["gw".into()]));
        names.settle(Duration::from_secs(2)).await;
        assert!(names.addresses().is_empty());
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let mut names = Names::new(Tasks::new());
        names.follow(&BTreeSet::from(["localhost".into()]));
        names.settle(Duration::from_secs(60)).await;
        assert!(names.addresses()["localhost"].iter().all(IpAddr::is_loopback));
    }
}
