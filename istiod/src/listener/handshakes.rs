//! Room for handshakes: so many at once, and when that is used up the oldest
//! of the address that has most of them makes room, so that nobody keeps
//! others out with connections that say nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

/// Handshakes under way at once; each costs a signature and some kilobytes.
pub(super) const MOST: usize = 256;
/// Time in which an honest client is through also when a thousand come at
/// once: a younger handshake is waited for before it is given up for another
/// one of its own address.
const GRACE: Duration = Duration::from_millis(500);

/// The handshakes under way, oldest first.
#[derive(Debug)]
pub(super) struct Handshakes {
    room: Arc<Semaphore>,
    unfinished: VecDeque<Unfinished>,
}

#[derive(Debug)]
struct Unfinished {
    source: IpAddr,
    since: Instant,
    /// Dropping it ends the handshake; closed when that has ended by itself.
    end: oneshot::Sender<()>,
}

/// The right to make one handshake.
#[derive(Debug)]
pub(super) struct Permit {
    _room: Option<OwnedSemaphorePermit>,
    evicted: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(MOST)), unfinished: VecDeque::new() }
    }

    /// Makes room for a client of that address.
    pub(super) async fn enter(&mut self, address: IpAddr) -> Permit {
        let source = source(address);
        let room = match self.room.clone().try_acquire_owned() {
            Ok(room) => Some(room),
            Err(_) => self.make_room(source).await,
        };
        let (end, evicted) = oneshot::channel();
        if self.unfinished.len() >= 2 * MOST {
            self.forget_finished();
        }
        self.unfinished.push_back(Unfinished { source, since: Instant::now(), end });
        Permit { _room: room, evicted }
    }

    /// Waits for room, and after a while makes some; `None` never happens, as
    /// nobody closes the semaphore.
    async fn make_room(&mut self, source: IpAddr) -> Option<OwnedSemaphorePermit> {
        self.forget_finished();
        let room = self.room.clone().acquire_owned();
        // Without an unfinished one, all wait for the server to take them.
        let Some((index, most)) = self.oldest_of_most() else { return room.await.ok() };
        // Others do not wait for an address that has taken more than half.
        let is_for_other = self.unfinished[index].source != source && most > MOST / 2;
        let grace = if is_for_other { Duration::ZERO } else { GRACE };
        let until = self.unfinished[index].since + grace;
        tokio::pin!(room);
        tokio::select! {
            biased;
            room = &mut room => return room.ok(),
            () = tokio::time::sleep_until(until) => {}
        }
        drop(self.unfinished.remove(index));
        room.await.ok()
    }

    fn forget_finished(&mut self) {
        self.unfinished.retain(|handshake| !handshake.end.is_closed());
    }

    /// Index of the oldest handshake of the address that has most, and how many it has.
    fn oldest_of_most(&self) -> Option<(usize, usize)> {
        let mut by_source: BTreeMap<IpAddr, (usize, usize)> = BTreeMap::new();
        for (index, handshake) in self.unfinished.iter().enumerate() {
            by_source.entry(handshake.source).or_insert((index, 0)).1 += 1;
        }
        by_source.into_values().max_by_key(|(index, count)| (*count, std::cmp::Reverse(*index)))
    }
}

impl Permit {
    /// Makes the handshake unless it has to make room for another one.
    pub(super) async fn within<T>(&mut self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = handshake => {
                self.evicted.close();
                Some(done)
            }
            _ = &mut self.evicted => None,
        }
    }
}

/// What counts as one address: an IPv6 host has a whole /64 of them.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOG: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    /// Starts a handshake that never ends by itself.
    async fn idle(handshakes: &mut Handshakes, address: IpAddr) -> tokio::task::JoinHandle<Option<()>> {
        let mut permit = handshakes.enter(address).await;
        #[expect(clippy::disallowed_methods, reason = "a test without a set of tasks")]
        tokio::spawn(async move { permit.within(std::future::pending()).await })
    }

    #[tokio::test(start_paused = true)]
    async fn another_address_comes_in_at_once_and_the_oldest_goes() {
        let mut handshakes = Handshakes::new();
        let mut idle_ones = Vec::new();
        for _ in 0..MOST {
            idle_ones.push(idle(&mut handshakes, HOG).await);
        }
        let start = Instant::now();
        let mut permit = handshakes.enter(OTHER).await;
        assert_eq!(Instant::now(), start, "no waiting");
        assert_eq!(permit.within(async { 7 }).await, Some(7));
        drop(permit);
        assert_eq!(idle_ones.remove(0).await.unwrap(), None);
        assert!(idle_ones.iter().all(|task| !task.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_time_before_it_loses_its_own() {
        let mut handshakes = Handshakes::new();
        for _ in 0..MOST {
            drop(idle(&mut handshakes, HOG).await);
        }
        let start = Instant::now();
        drop(idle(&mut handshakes, HOG).await);
        assert_eq!(Instant::now() - start, GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_handshake_is_never_ended() {
        let mut handshakes = Handshakes::new();
        let mut finished = Vec::new();
        for _ in 0..MOST {
            let mut permit = handshakes.enter(HOG).await;
            permit.within(std::future::ready(())).await.unwrap();
            finished.push(permit);
        }
        let waits = tokio::time::timeout(10 * GRACE, handshakes.enter(OTHER)).await;
        assert!(waits.is_err(), "they wait for the server");
        finished.pop();
        handshakes.enter(OTHER).await;
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), HOG);
    }
}
