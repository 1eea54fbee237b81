//! How many requests the API server is asked: `--kubernetesApiQPS` on average,
//! `--kubernetesApiBurst` at once after a quiet time.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tower::{Layer, Service};

/// A service that lets requests wait for their turn.
#[derive(Clone, Debug)]
pub(super) struct Limit<S> {
    inner: S,
    turns: Arc<Turns>,
}

/// Makes [`Limit`]s that share their turns.
#[derive(Clone, Debug)]
pub(super) struct LimitLayer(Arc<Turns>);

#[derive(Debug)]
struct Turns {
    /// Time from one turn to the next.
    interval: Duration,
    /// Turns that may be taken at once.
    burst: u32,
    /// When the next turn would be if none had been saved.
    next: Mutex<Option<Instant>>,
}

impl Limit<()> {
    /// Lets `qps` requests a second through, and `burst` at once.
    pub(super) fn layer(qps: f64, burst: u32) -> LimitLayer {
        let interval = if qps > 0.0 { Duration::from_secs_f64(1.0 / qps) } else { Duration::ZERO };
        LimitLayer(Arc::new(Turns { interval, burst: burst.max(1), next: Mutex::new(None) }))
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { inner, turns: self.0.clone() }
    }
}

impl Turns {
    /// When the one who asks now may go on.
    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a quiet time, at most a burst is saved.
        let saved = self.interval * (self.burst - 1);
        let earliest = now.checked_sub(saved).unwrap_or(now);
        let turn = next.map_or(earliest, |next| next.max(earliest));
        *next = Some(turn + self.interval);
        turn.max(now)
    }
}

impl<S, R> Service<R> for Limit<S>
where
    S: Service<R> + Send,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // A request is sent when its future is first asked for.
        let call = self.inner.call(request);
        let turn = self.turns.take(Instant::now());
        Box::pin(async move {
            tokio::time::sleep_until(turn).await;
            call.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_in_turn() {
        let LimitLayer(turns) = Limit::layer(10.0, 3);
        let begin = Instant::now();
        let waits = |count: usize| -> Vec<u128> {
            (0..count).map(|_| turns.take(Instant::now()).duration_since(begin).as_millis()).collect()
        };
        assert_eq!(waits(5), [0, 0, 0, 100, 200]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(waits(5), [60_000, 60_000, 60_000, 60_100, 60_200]);
    }
}
