//! Gets the first certificate, publishes it, and renews it for ever: at the
//! grace ratio of its life, whoever is or is not subscribed. While the CA does
//! not answer, the old one stays in force.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use runtime::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::csr_client::{Client, Error};
use super::told::Told;
use super::{Identity, stamp};

/// Waits between tries while a pod is waiting and the CA is not there.
const UNREACHABLE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(700));
/// Waits between tries while a pod is waiting and the CA says no, which costs it something.
const REFUSED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Waits between tries while there is a valid certificate.
const RENEWAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// A renewal is never closer than this to the one before, whatever the CA's lifetimes are.
const MIN_PERIOD: Duration = Duration::from_millis(500);
/// The clock on the wall is looked at this often: it may be set, and it goes on
/// while a virtual machine is stopped.
const CHECK: Duration = Duration::from_secs(30);
/// While a try has failed, token and roots are looked at this often: with new
/// ones the next try comes at once.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until the process ends.
pub async fn run(client: Client, current: watch::Sender<Option<Arc<Identity>>>) {
    let mut waits = Waits::new();
    let told = Told::new();
    let mut spare = None;
    loop {
        // What changes while the CA is asked may be just what it lacks.
        let before = fingerprint(client.credentials());
        match client.ask(&mut spare).await {
            Ok(identity) => {
                let due = due(&client, &identity, SystemTime::now());
                let (expires, renewal) = (stamp(identity.expires), stamp(due));
                info!(target: "cache", serial = identity.serial, uris = ?identity.uris, expires, renewal, "certificate obtained");
                let own = identity.roots_pem.clone();
                publish(&client, identity, &current);
                waits.reset();
                told.clear();
                until(due, SystemTime::now, || refresh_roots(&client, &own, &current)).await;
            }
            Err(error) => {
                let now = SystemTime::now();
                let held = current.borrow().as_ref().map(|identity| identity.expires);
                let valid_for = held.and_then(|expires| expires.duration_since(now).ok());
                let is_valid = valid_for.is_some();
                let wait = waits.next_wait(&error, is_valid);
                // When it ends, there is more of a hurry.
                let wait = valid_for.map_or(wait, |left| wait.min(left.max(MIN_PERIOD)));
                let text = error.to_string();
                let state = match held {
                    None => "there is none yet",
                    Some(_) if is_valid => "the old one stays in force",
                    Some(_) => "the old one has expired",
                };
                // The same reason again and again helps nobody.
                if told.is_new(&format!("{state} {text}")) {
                    warn!(target: "cache", error = text, state, ?wait, "no new certificate; trying again");
                } else {
                    debug!(target: "cache", error = text, state, ?wait, "no new certificate");
                }
                wait_or_change(wait, &before, || fingerprint(client.credentials())).await;
            }
        }
    }
}

/// When to renew. Between two certificates there is always some time, also
/// when the CA's lifetimes are absurd.
fn due(client: &Client, identity: &Identity, now: SystemTime) -> SystemTime {
    let settings = &client.settings;
    let jitter = settings.grace_jitter * rand::random_range(-1.0..=1.0);
    let delay =
        pki::renew::delay(identity.created, identity.expires, settings.grace_ratio, jitter, identity.created);
    (identity.created + delay).max(now + MIN_PERIOD)
}

/// Waits until the clock on the wall shows that time, whatever happens to it,
/// and does `meanwhile` at each look.
async fn until(due: SystemTime, clock: impl Fn() -> SystemTime, mut meanwhile: impl FnMut()) {
    while let Some(left) = due.duration_since(clock()).ok().filter(|left| !left.is_zero()) {
        sleep(left.min(CHECK)).await;
        meanwhile();
    }
}

/// Waits, at most until what `look` sees is different from `before`.
async fn wait_or_change<T: PartialEq>(wait: Duration, before: &T, look: impl Fn() -> T) {
    let end = Instant::now() + wait;
    loop {
        let left = end - Instant::now();
        sleep(left.min(LOOK)).await;
        if left <= LOOK || look() != *before {
            return;
        }
    }
}

/// Tells files apart from those that were there before.
fn fingerprint<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<Option<(u64, u64, i64, i64)>> {
    let of = |data: fs::Metadata| (data.ino(), data.size(), data.mtime(), data.mtime_nsec());
    paths.map(|path| fs::metadata(path).ok().map(of)).collect()
}

fn publish(client: &Client, identity: Identity, current: &watch::Sender<Option<Arc<Identity>>>) {
    let identity = match own_roots(client) {
        Some(roots) => identity.with_roots(roots),
        None => identity,
    };
    current.send_replace(Some(Arc::new(identity)));
}

/// Publishes the roots of the file when they have changed; those of the CA
/// (`own`) when the file is gone.
fn refresh_roots(client: &Client, own: &str, current: &watch::Sender<Option<Arc<Identity>>>) {
    if client.settings.own_roots.is_none() {
        return;
    }
    let roots = own_roots(client).unwrap_or_else(|| own.to_owned());
    let before = current.borrow().clone();
    if let Some(identity) = before.filter(|identity| identity.roots_pem != roots) {
        current.send_replace(Some(Arc::new(identity.with_roots(roots))));
    }
}

/// Roots of the older layout, when there are any.
fn own_roots(client: &Client) -> Option<String> {
    let text = fs::read_to_string(client.settings.own_roots.as_ref()?).ok()?;
    Some(super::roots::bundle([text.as_str()])).filter(|roots| !roots.is_empty())
}

/// How long to wait after a failure.
struct Waits {
    unreachable: Backoff,
    refused: Backoff,
    renewal: Backoff,
}

impl Waits {
    fn new() -> Self {
        let of = |(first, max)| Backoff::new(first, max);
        Self { unreachable: of(UNREACHABLE), refused: of(REFUSED), renewal: of(RENEWAL) }
    }

    fn next_wait(&mut self, error: &Error, is_valid: bool) -> Duration {
        match (is_valid, error.is_unreachable()) {
            (true, _) => self.renewal.next_wait(),
            (false, true) => self.unreachable.next_wait(),
            (false, false) => self.refused.next_wait(),
        }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_forward_is_seen_at_once() {
        let (start, real) = (Instant::now(), SystemTime::now());
        let set_by = Cell::new(Duration::ZERO);
        let clock = || real + (Instant::now() - start) + set_by.get();
        let set = async {
            sleep(HOUR).await;
            set_by.set(25 * HOUR);
        };
        tokio::join!(until(real + 12 * HOUR, clock, || ()), set);
        let took = Instant::now() - start;
        assert!(took >= HOUR && took <= HOUR + CHECK, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_changes_nothing_of_the_moment() {
        let (start, real) = (Instant::now(), SystemTime::now());
        let set_by = Cell::new(Duration::ZERO);
        let clock = || real + (Instant::now() - start) - set_by.get();
        let set = async {
            sleep(HOUR).await;
            set_by.set(HOUR);
        };
        tokio::join!(until(real + 12 * HOUR, clock, || ()), set);
        assert_eq!((Instant::now() - start).as_secs(), 13 * 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_early_when_something_changes() {
        let (start, changes) = (Instant::now(), Cell::new(0));
        let change = async {
            sleep(Duration::from_secs(3)).await;
            changes.set(1);
        };
        tokio::join!(wait_or_change(Duration::from_secs(15), &0, || changes.get()), change);
        assert!(Instant::now() - start <= Duration::from_secs(3) + LOOK);
        let start = Instant::now();
        wait_or_change(Duration::from_millis(3500), &(), || ()).await;
        assert_eq!((Instant::now() - start).as_millis(), 3500);
        let start = Instant::now();
        wait_or_change(Duration::from_secs(15), &0, || changes.get()).await;
        assert_eq!(Instant::now() - start, LOOK, "it has changed before the wait");
    }

    #[test]
    fn waits_are_short_for_a_pod_without_certificate_and_long_otherwise() {
        let mut waits = Waits::new();
        let refused = Error::Refused { code: tonic::Code::Unauthenticated, message: String::new() };
        let longest = |waits: &mut Waits, error: &Error, is_valid| {
            (0..30).map(|_| waits.next_wait(error, is_valid)).max().unwrap()
        };
        assert!(longest(&mut waits, &Error::Timeout, false) > Duration::from_secs(5));
        assert!(longest(&mut waits, &refused, false) > Duration::from_secs(5));
        assert!(longest(&mut waits, &refused, true) > Duration::from_secs(12));
        let unreachable = Error::Connect(crate::upstream::Error::Timeout("a".into()));
        assert!(longest(&mut waits, &unreachable, false) <= UNREACHABLE.1);
        waits.reset();
        assert!(waits.next_wait(&refused, false) <= REFUSED.0);
    }
}
