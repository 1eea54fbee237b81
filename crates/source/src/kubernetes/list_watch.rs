//! One kind of object: listed, then watched from the state of the list on.
//!
//! A watch that breaks goes on from where it was; one whose past the API
//! server has forgotten (410) begins with a list again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use runtime::backoff::Backoff;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Health;
use super::item::Item;

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The same of Secrets and ConfigMaps, each of which may have a megabyte.
const PAGE_OF_LARGE: u32 = 50;
/// Seconds after which the API server ends a watch; kept below five minutes,
/// which is when idle connections are cut by what stands in between.
const WATCH: u32 = 280;
/// A watch is told its state about each minute: one that says nothing for so
/// long is dead.
const SILENCE: Duration = Duration::from_secs(150);
/// Time for a page of a list, and for a watch to begin.
const ANSWER: Duration = Duration::from_secs(60);
/// A watch that ends sooner counts as a failure.
const SHORT: Duration = Duration::from_secs(1);
/// Waits after failures: the first and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Failures in a row after which one that is no refusal is told: some 10 seconds.
const LASTING: u32 = 7;
/// How often a kind is asked for that was not there, though nothing says that it has come.
const MISSING: Duration = Duration::from_secs(60);
/// The same soon after something said so: serving a kind begins a little later.
const COMING: Duration = Duration::from_millis(500);
/// How long that goes on.
const SETTLE: Duration = Duration::from_secs(15);

/// What is followed.
#[derive(Clone, Debug)]
pub struct Resource {
    /// What it is in logs.
    pub name: &'static str,
    /// Paths of the API; the first that exists is used.
    pub paths: Vec<String>,
    /// Field selector.
    pub fields: Option<String>,
    /// Whether labels and the like are enough.
    pub only_metadata: bool,
    /// Wakes when a kind that is not there may have come.
    pub defined: Option<watch::Receiver<u64>>,
}

/// What was seen.
#[derive(Debug)]
pub enum Event<T> {
    /// These are all that there are.
    Listed(Vec<T>),
    /// One is new or different.
    Set(T),
    /// One is gone; it is as it was last.
    Gone(T),
}

/// Why watching ended.
enum End {
    /// It must begin with a list.
    Relist,
    /// Nobody takes what is seen.
    Stop,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    /// Some lists are null when they are empty.
    items: Option<Vec<Item>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    r#continue: String,
}

/// Follows a kind for as long as `tell` takes what is seen.
pub async fn follow<T, D, F>(
    client: Client,
    health: Health,
    resource: Resource,
    decode: impl Fn(Value) -> T + Send + Sync,
    tell: D,
) where
    T: Send,
    D: Fn(Event<T>) -> F + Send + Sync,
    F: Future<Output = bool> + Send,
{
    let mut follower = Follower {
        backoff: Backoff::new(RETRY.0, RETRY.1),
        failing: None,
        failures: 0,
        is_listed: false,
        told: None,
        defined: resource.defined.clone(),
        client,
        health,
        resource: Arc::new(resource),
        decode,
        tell,
        marker: std::marker::PhantomData,
    };
    follower.run().await;
}

struct Follower<T, C, D, F> {
    client: Client,
    health: Health,
    resource: Arc<Resource>,
    defined: Option<watch::Receiver<u64>>,
    decode: C,
    tell: D,
    backoff: Backoff,
    /// What the last failure was, which is not told twice.
    failing: Option<String>,
    /// Failures in a row.
    failures: u32,
    /// Whether it was there when it was asked for last.
    is_listed: bool,
    /// When something last said that the kind may have come.
    told: Option<Instant>,
    marker: std::marker::PhantomData<fn() -> (T, F)>,
}

impl<T, C, D, F> Follower<T, C, D, F>
where
    T: Send,
    C: Fn(Value) -> T + Send + Sync,
    D: Fn(Event<T>) -> F + Send + Sync,
    F: Future<Output = bool> + Send,
{
    async fn run(&mut self) {
        loop {
            if let Some(defined) = &mut self.defined {
                defined.borrow_and_update();
            }
            match self.list().await {
                Ok(Some((path, version, all))) => {
                    self.recovered();
                    self.is_listed = true;
                    debug!(target: "kube", kind = self.resource.name, objects = all.len(), path, "listed");
                    if !(self.tell)(Event::Listed(all)).await {
                        return;
                    }
                    let begin = Instant::now();
                    match self.watch(&path, version).await {
                        // One that never lasts must not make lists of it.
                        End::Relist if begin.elapsed() < SHORT => self.pause().await,
                        End::Relist => self.backoff.reset(),
                        End::Stop => return,
                    }
                }
                // An API server that has just started may not know its kinds yet.
                Ok(None) if self.is_listed => {
                    self.is_listed = false;
                    tokio::time::sleep(SHORT).await;
                }
                Ok(None) => {
                    if self.failing.as_deref() != Some("") {
                        info!(target: "kube", kind = self.resource.name, "the API server does not know the kind: its objects count from when it does");
                        self.failing = Some(String::new());
                    }
                    if !(self.tell)(Event::Listed(Vec::new())).await {
                        return;
                    }
                    self.wait_defined().await;
                }
                Err(error) => self.failed("list", &error).await,
            }
        }
    }

    /// All objects, and the state they are of; `None` when there is no such kind.
    async fn list(&self) -> Result<Option<(String, String, Vec<T>)>, kube::Error> {
        'paths: for path in &self.resource.paths {
            let mut all = Vec::new();
            let mut token = String::new();
            loop {
                let page: Page = match self.page(path, &token).await {
                    Ok(page) => page,
                    Err(kube::Error::Api(status)) if status.code == 404 => continue 'paths,
                    Err(error) => return Err(error),
                };
                // Each page is cut down before the next one comes.
                all.extend(page.items.into_iter().flatten().map(|item| self.decode(item)));
                if page.metadata.r#continue.is_empty() {
                    return Ok(Some((path.clone(), page.metadata.resource_version, all)));
                }
                token = page.metadata.r#continue;
            }
        }
        Ok(None)
    }

    async fn page(&self, path: &str, token: &str) -> Result<Page, kube::Error> {
        let mut params = ListParams::default().limit(page_size(path));
        params.field_selector.clone_from(&self.resource.fields);
        if !token.is_empty() {
            params = params.continue_token(token);
        }
        let request = Request::new(path);
        let request =
            if self.resource.only_metadata { request.list_metadata(&params) } else { request.list(&params) };
        let request = request.map_err(kube::Error::BuildRequest)?;
        // The client would log what it cannot read, which may be a Secret.
        let text = in_time(self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(kube::Error::SerdeError)
    }

    async fn watch(&mut self, path: &str, mut version: String) -> End {
        let mut returned = self.health.clone();
        loop {
            let begin = Instant::now();
            let before = version.clone();
            let end = tokio::select! {
                end = self.stream(path, &mut version) => end,
                // A connection from before may be dead without anybody having said so.
                () = returned.returned() => Ok(None),
            };
            match end {
                Ok(Some(end)) => return end,
                Ok(None) if begin.elapsed() >= SHORT || before != version => self.worked(),
                Ok(None) => {
                    // One that is cut at once, again and again, is no way to follow.
                    self.pause().await;
                }
                Err(error) if is_gone(&error) => {
                    debug!(target: "kube", kind = self.resource.name, "the state is too old: listing again");
                    return End::Relist;
                }
                Err(kube::Error::Api(status)) if status.code == 404 => return End::Relist,
                Err(error) => self.failed("watch", &error).await,
            }
        }
    }

    /// One watch; `None` when it ended as watches do.
    async fn stream(&mut self, path: &str, version: &mut String) -> Result<Option<End>, kube::Error> {
        let mut params = WatchParams::default().timeout(WATCH);
        params.field_selector.clone_from(&self.resource.fields);
        let request = Request::new(path);
        let request = if self.resource.only_metadata {
            request.watch_metadata(&params, version)
        } else {
            request.watch(&params, version)
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        let stream = in_time(self.client.request_events::<Item>(request)).await?;
        let mut stream = std::pin::pin!(stream);
        loop {
            let Ok(next) = timeout(SILENCE, stream.next()).await else {
                self.health.suspect();
                return Ok(None);
            };
            let event = match next {
                None => return Ok(None),
                Some(event) => event?,
            };
            self.worked();
            let (item, is_gone) = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => (item, false),
                WatchEvent::Deleted(item) => (item, true),
                WatchEvent::Bookmark(mark) => {
                    *version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            };
            let now = item.value["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            let seen = self.decode(item);
            let event = if is_gone { Event::Gone(seen) } else { Event::Set(seen) };
            if !(self.tell)(event).await {
                return Ok(Some(End::Stop));
            }
            // Only what was taken is behind us.
            if let Some(now) = now {
                *version = now;
            }
        }
    }

    /// Reads what came of an object.
    fn decode(&self, item: Item) -> T {
        if item.is_cut {
            let metadata = &item.value["metadata"];
            let text = |name: &str| metadata[name].as_str().unwrap_or_default();
            warn!(
                target: "config",
                "{} {}/{}: it is nested too deep and has no effect: what the mesh uses never is",
                self.resource.name, text("namespace"), text("name")
            );
        }
        (self.decode)(item.value)
    }

    fn worked(&mut self) {
        self.backoff.reset();
        self.recovered();
    }

    fn recovered(&mut self) {
        self.failures = 0;
        if self.failing.take().is_some_and(|what| !what.is_empty()) {
            info!(target: "kube", kind = self.resource.name, "objects are followed again");
        }
    }

    async fn failed(&mut self, what: &str, error: &kube::Error) {
        self.health.suspect();
        let why = format!("{what}: {}", reason(error));
        self.failures = self.failures.saturating_add(1);
        let is_new = self.failing.as_ref() != Some(&why);
        // That the API server is away is said once, and not by every kind. One that
        // answers others all the while has something against this kind.
        let is_told = match error {
            kube::Error::Api(status) if status.code < 500 && status.code != 429 => is_new,
            _ => self.failures == LASTING && self.health.is_up(),
        };
        if is_told {
            warn!(target: "kube", kind = self.resource.name, path = self.resource.paths.join(" or "), "cannot {why}{}", advice(error));
        } else if is_new {
            debug!(target: "kube", kind = self.resource.name, "cannot {why}");
        }
        self.failing = Some(why);
        self.pause().await;
    }

    /// Waits for the next try, or for the API server to come back.
    async fn pause(&mut self) {
        let wait = self.backoff.next_wait();
        let mut health = self.health.clone();
        if timeout(wait, health.returned()).await.is_ok() {
            self.backoff.reset();
        }
    }

    async fn wait_defined(&mut self) {
        let Some(defined) = &mut self.defined else { return tokio::time::sleep(MISSING).await };
        let is_coming = self.told.is_some_and(|at| at.elapsed() < SETTLE);
        match timeout(if is_coming { COMING } else { MISSING }, defined.changed()).await {
            Ok(Ok(())) => self.told = Some(Instant::now()),
            Ok(Err(_)) => tokio::time::sleep(MISSING).await,
            Err(_) => {}
        }
    }
}

/// Objects of one page of the list at a path.
fn page_size(path: &str) -> u32 {
    match path.rsplit('/').next() {
        Some("secrets" | "configmaps") => PAGE_OF_LARGE,
        _ => PAGE,
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(ANSWER, request).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(format!("no answer within {ANSWER:?}").into())),
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410 || status.reason == "Expired" || status.reason == "Gone")
}

fn advice(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            " (the ClusterRole of istiod's service account must allow get, list and watch)"
        }
        kube::Error::Api(status) if status.code == 401 => {
            " (the API server does not take the credentials of istiod's service account or kubeconfig)"
        }
        _ => "",
    }
}

/// The error with all that led to it, in one line.
#[must_use]
pub fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} {}", status.code, status.message);
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_what_may_be_large_are_short() {
        assert_eq!(page_size("/api/v1/secrets"), PAGE_OF_LARGE);
        assert_eq!(page_size("/api/v1/namespaces/secrets/configmaps"), PAGE_OF_LARGE);
        assert_eq!(page_size("/api/v1/namespaces/secrets/pods"), PAGE);
    }
}
