//! Tasks of a program: named, ended together, waited for.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks; clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` until it ends or the set is stopped.
    ///
    /// The name says in logs which task a problem is of.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let stop = self.stop.clone();
        // On the way to `run_until_cancelled` a future is moved twice, and the task
        // has room for it in each of the three places.
        let task = Box::pin(task);
        self.tracker.spawn(async move {
            let done = stop.run_until_cancelled(task).await;
            tracing::trace!(task = name, stopped = done.is_none(), "task ended");
            done
        })
    }

    /// Completes when the set is stopped.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the set is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends all tasks at their next wait and returns when they are gone, at
    /// the latest after `deadline`; `false` when some were still there then.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_ends_every_task() {
        let tasks = Tasks::new();
        let endless = tasks.spawn("endless", std::future::pending::<()>());
        assert_eq!(tasks.spawn("quick", async { 7 }).await.unwrap(), Some(7));
        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert_eq!(endless.await.unwrap(), None);
    }
}
