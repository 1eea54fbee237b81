//! The end of an istiod while others serve on. Each connection is given up at a
//! moment of its own, so that its clients do not come to the others all at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

/// What streams are told that end, or do not begin, because istiod stops.
pub const STOPPING: &str = "istiod is stopping: connect again, another one goes on";
/// What other streams of a connection are told whose client takes nothing.
pub const DEAF: &str = "the client takes nothing of what another stream of its connection has for it";

/// Time for each of a few connections: where they are few, nobody has to wait
/// for long. Others take ten proxies a second without effort.
const PACE: Duration = Duration::from_millis(100);

/// Whether istiod stops, and the connections that it has; clones are the same.
#[derive(Clone, Debug)]
pub struct Drain {
    /// By when all connections are to be given up, once istiod stops.
    until: watch::Sender<Option<Instant>>,
    open: watch::Sender<usize>,
}

/// A connection, counted for as long as this is kept.
#[derive(Debug)]
pub struct Place {
    drain: Drain,
    life: Life,
}

/// What the streams of a connection know of its end.
#[derive(Clone, Debug)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    drain: Drain,
    /// Why the streams end, once they do.
    end: watch::Sender<Option<&'static str>>,
    /// It is refused further streams as istiod stops.
    is_refused: Notify,
    /// It takes nothing.
    is_deaf: Notify,
}

impl Default for Drain {
    fn default() -> Self {
        Self { until: watch::Sender::new(None), open: watch::Sender::new(0) }
    }
}

impl Drain {
    /// Has all connections given up, each at a random moment, within `longest`.
    pub fn begin(&self, longest: Duration) {
        let open = u32::try_from(*self.open.borrow()).unwrap_or(u32::MAX);
        let window = longest.min(PACE.saturating_mul(open));
        self.until.send_replace(Some(Instant::now() + window));
    }

    /// Whether istiod stops.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// Counts one more connection.
    #[must_use]
    pub fn enter(&self) -> Place {
        self.open.send_modify(|open| *open += 1);
        let inner = Inner {
            drain: self.clone(),
            end: watch::Sender::new(None),
            is_refused: Notify::new(),
            is_deaf: Notify::new(),
        };
        Place { drain: self.clone(), life: Life(Arc::new(inner)) }
    }

    /// Completes when there is no connection.
    pub async fn emptied(&self) {
        // It has a sender: its own.
        self.open.subscribe().wait_for(|open| *open == 0).await.ok();
    }
}

impl Place {
    /// What its streams are given.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life.clone()
    }

    /// Completes when the connection is to be given up, with the reason: its
    /// client takes nothing, or istiod stops and its moment has come.
    pub async fn is_over(&self) -> &'static str {
        tokio::select! {
            () = self.is_due() => STOPPING,
            () = self.life.0.is_deaf.notified() => DEAF,
        }
    }

    async fn is_due(&self) {
        let mut until = self.drain.until.subscribe();
        let left = match until.wait_for(Option::is_some).await.map(|until| *until) {
            Ok(Some(until)) => until.saturating_duration_since(Instant::now()),
            _ => std::future::pending().await,
        };
        tokio::select! {
            () = sleep(left.mul_f64(rand::random_range(0.0..1.0))) => {}
            () = self.life.0.is_refused.notified() => {}
        }
    }

    /// Ends its streams.
    pub fn end(&self, why: &'static str) {
        self.life.0.end.send_replace(Some(why));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.drain.open.send_modify(|open| *open -= 1);
    }
}

impl Life {
    /// Why no further stream begins on the connection, if so. A client that is
    /// refused has to make another connection: this one is given up at once.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        if self.0.drain.has_begun() {
            self.0.is_refused.notify_one();
            return Some(STOPPING);
        }
        *self.0.end.borrow()
    }

    /// The client takes nothing: its connection is of no use.
    pub fn is_deaf(&self) {
        self.0.is_deaf.notify_one();
    }

    /// Completes when streams of the connection have to end, with the reason.
    pub async fn ended(&self) -> &'static str {
        let mut end = self.0.end.subscribe();
        match end.wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(why)) => why,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_given_up_all_over_the_window() {
        let drain = Drain::default();
        let places: Vec<Place> = (0..100).map(|_| drain.enter()).collect();
        assert!(places[0].is_over().now_or_never().is_none());
        let window = Duration::from_secs(8);
        let begin = Instant::now();
        drain.begin(window);
        let ends = join_all(places.iter().map(|place| async {
            place.is_over().await;
            begin.elapsed()
        }));
        let mut ends = ends.await;
        ends.sort();
        assert!(ends[99] < window + Duration::from_millis(2));
        // Of each quarter there are some, with all probability.
        let quarters: Vec<usize> = (0..4)
            .map(|quarter| ends.iter().filter(|end| **end / 2 >= Duration::from_secs(quarter)).count())
            .collect();
        assert!(quarters.windows(2).all(|pair| pair[0] > pair[1]) && quarters[3] > 0, "{ends:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_serves_nobody_goes_at_once() {
        let drain = Drain::default();
        let place = drain.enter();
        assert_eq!(place.life().refusal(), None);
        drain.begin(Duration::from_secs(3600));
        assert_eq!(place.life().refusal(), Some(STOPPING));
        let begin = Instant::now();
        place.is_over().await;
        assert_eq!(Instant::now(), begin);
    }

    #[tokio::test]
    async fn the_last_connection_empties_it() {
        let drain = Drain::default();
        drain.emptied().await;
        let (a, b) = (drain.enter(), drain.enter());
        drop(a);
        assert!(drain.emptied().now_or_never().is_none());
        drop(b);
        drain.emptied().await;
    }

    #[tokio::test]
    async fn streams_are_told_why_they_end() {
        let drain = Drain::default();
        let place = drain.enter();
        let life = place.life();
        assert!(life.ended().now_or_never().is_none());
        place.end("of age");
        assert_eq!((life.ended().await, life.refusal()), ("of age", Some("of age")));
    }
}
