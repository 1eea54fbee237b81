//! Whether the API server answers. While it does not, it is asked often, and at
//! its first answer everybody who waits is woken: what has changed meanwhile is
//! known at once and not at the end of somebody's back-off.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kube::Client;
use runtime::tasks::Tasks;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

/// How often it is asked while it answers.
const CALM: Duration = Duration::from_secs(10);
/// How often it is asked while it does not.
const ALARM: Duration = Duration::from_millis(250);
/// Time for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Between two questions that somebody's failure has led to.
const CAUTION: Duration = Duration::from_millis(50);

/// Whether the API server answers, as far as is known; clones are the same.
#[derive(Clone, Debug)]
pub struct Health {
    state: watch::Receiver<State>,
    suspicion: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    is_up: bool,
    /// How often it has come back.
    returns: u64,
}

impl Health {
    /// Begins to ask.
    #[must_use]
    pub fn new(tasks: &Tasks, client: &Client) -> Self {
        let (tell, state) = watch::channel(State { is_up: true, returns: 0 });
        let suspicion = Arc::new(Notify::new());
        tasks.spawn("health of the API server", run(client.clone(), tell, suspicion.clone()));
        Self { state, suspicion }
    }

    /// Whether it answered when it was asked last.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state.borrow().is_up
    }

    /// Somebody got no answer: it is asked now.
    pub fn suspect(&self) {
        self.suspicion.notify_one();
    }

    /// Completes when it has come back after this was called first; a second
    /// call waits for the next time.
    pub async fn returned(&mut self) {
        let returns = self.state.borrow_and_update().returns;
        if self.state.wait_for(|state| state.returns > returns).await.is_err() {
            // Nobody asks any more: istiod ends.
            std::future::pending::<()>().await;
        }
    }
}

async fn run(client: Client, tell: watch::Sender<State>, suspicion: Arc<Notify>) {
    let mut down_since: Option<Instant> = None;
    loop {
        match (ask(&client).await, down_since) {
            (Ok(()), Some(since)) => {
                down_since = None;
                info!(target: "kube", away = ?since.elapsed(), "the API server answers again");
                tell.send_modify(|state| *state = State { is_up: true, returns: state.returns + 1 });
            }
            (Err(why), None) => {
                down_since = Some(Instant::now());
                warn!(target: "kube", "the API server does not answer: {why} (what is known stays in force)");
                tell.send_modify(|state| state.is_up = false);
            }
            (Ok(()), None) | (Err(_), Some(_)) => {}
        }
        if down_since.is_some() {
            tokio::time::sleep(ALARM).await;
        } else {
            // Many fail at the same time: one question is for all.
            tokio::time::sleep(CAUTION).await;
            timeout(CALM, suspicion.notified()).await.ok();
        }
    }
}

/// Whether there is an answer that says it is ready. Who may not ask was
/// answered, too.
async fn ask(client: &Client) -> Result<(), String> {
    let request = Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
    match timeout(ANSWER, client.request_text(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => Ok(()),
        Ok(Err(error)) => Err(super::list_watch::reason(&error)),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}
