//! Load that counts every request: how many were answered as they should be,
//! and what became of the others, by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use runtime::tasks::Tasks;

use crate::client::Ask;
use crate::netns::within;

/// Longest answer that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;

/// What became of the requests.
#[derive(Clone, Debug)]
pub struct Report {
    /// Answered with status 200.
    pub good: u64,
    /// All others, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Microseconds that good answers took.
    pub latency: Histogram<u64>,
    /// How long it went on.
    pub elapsed: Duration,
}

impl Report {
    fn new() -> anyhow::Result<Self> {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).context("histogram")?;
        Ok(Self { good: 0, failed: BTreeMap::new(), latency, elapsed: Duration::ZERO })
    }

    fn add(&mut self, other: &Self) {
        self.good += other.good;
        for (kind, count) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += count;
        }
        self.latency += &other.latency;
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Number of requests that were not answered as they should be.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |quantile| {
            let micros = u32::try_from(self.latency.value_at_quantile(quantile)).unwrap_or(u32::MAX);
            f64::from(micros) / 1000.0
        };
        write!(
            f,
            "{} requests in {:.1} s, {} failed, p50 {:.1} ms, p99 {:.1} ms",
            self.good + self.failures(),
            self.elapsed.as_secs_f64(),
            self.failures(),
            millis(0.5),
            millis(0.99)
        )?;
        for (kind, count) in &self.failed {
            write!(f, "\n    {count} × {kind}")?;
        }
        Ok(())
    }
}

/// Load that goes on until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<Report>>,
}

impl Load {
    /// Starts that many clients in a namespace, each with a connection of its
    /// own that it keeps; one request is under way on each all the time.
    pub fn start(namespace: &str, ask: Ask, clients: usize) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ends, counts, namespace) = (stop.clone(), good.clone(), namespace.to_owned());
        let thread = std::thread::spawn(move || {
            within(&namespace, || async {
                let tasks = Tasks::new();
                let clients: Vec<_> = (0..clients)
                    .map(|_| tasks.spawn("load", client(ask.clone(), ends.clone(), counts.clone())))
                    .collect();
                let mut report = Report::new()?;
                for client in clients {
                    let part = client.await.context("load")?.context("load")?;
                    report.add(&part?);
                }
                Ok(report)
            })
        });
        Self { stop, good, thread }
    }

    /// Good answers so far.
    pub fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }

    /// Stops after the requests that are under way.
    ///
    /// # Errors
    /// When the load itself could not run.
    pub fn stop(self) -> anyhow::Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

async fn client(ask: Ask, stop: Arc<AtomicBool>, good: Arc<AtomicU64>) -> anyhow::Result<Report> {
    let mut report = Report::new()?;
    let mut connection: Option<SendRequest<Full<Bytes>>> = None;
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match exchange(&ask, &mut connection).await {
            Ok(()) => {
                report.good += 1;
                good.fetch_add(1, Ordering::Relaxed);
                let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                report.latency.saturating_record(micros);
            }
            Err(error) => {
                *report.failed.entry(format!("{error:#}")).or_default() += 1;
                connection = None;
                // A peer that refuses everything is not asked as fast as possible.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    report.elapsed = start.elapsed();
    Ok(report)
}

async fn exchange(ask: &Ask, connection: &mut Option<SendRequest<Full<Bytes>>>) -> anyhow::Result<()> {
    let mut sender = match connection.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => ask.connect().await?,
    };
    let answer = ask.send_over(&mut sender).await?;
    anyhow::ensure!(
        answer.status == http::StatusCode::OK,
        "status {}: {}",
        answer.status,
        answer.body.trim()
    );
    // A server may close a kept connection whenever no request is under way.
    if sender.ready().await.is_ok() {
        *connection = Some(sender);
    }
    Ok(())
}
