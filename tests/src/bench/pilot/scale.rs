//! Many services, many connected proxies, and endpoints that change all the time.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use names::TypeUrl;
use prost::Message as _;
use proto::envoy::config::core::v3::address::Address;
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use runtime::tasks::Tasks;
use tokio::sync::watch;

use super::generate;
use super::live::{Istiod, Proxy, raise_limit};
use crate::bench::say;

/// How much of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Proxies.
    #[arg(long, default_value = "1000")]
    proxies: usize,
    /// Services, with ten endpoints each.
    #[arg(long, default_value = "1000")]
    services: usize,
    /// Changes of endpoints in a second.
    #[arg(long, default_value = "100")]
    rate: u32,
    /// Seconds that it goes on.
    #[arg(long, default_value = "60")]
    seconds: u64,
}

const ENDPOINTS: usize = 10;
/// Seconds of changes for one proxy alone.
const ALONE: u64 = 5;
/// Of so many proxies one looks at what it gets: reading it all would measure the readers.
const LOOKS: usize = 20;
/// Longest time from a change to its receipt that is told apart, microseconds.
const LONGEST: u64 = 60_000_000;

#[derive(Debug, Default)]
struct Counters {
    responses: AtomicU64,
    resources: AtomicU64,
    others: AtomicU64,
}

/// Measures processor time, memory, and the time from a change to its receipt.
///
/// # Errors
/// When istiod does not start, or a proxy is not served.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let objects = dir.path().join("objects");
    fs::create_dir(&objects)?;
    for index in 0..options.services {
        fs::write(objects.join(format!("service-{index}.yaml")), generate::service(index))?;
        fs::write(file(&objects, index), generate::slice(index, ENDPOINTS, 0))?;
    }
    raise_limit(u64::try_from(options.proxies)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(options, dir.path()))
}

fn file(objects: &Path, index: usize) -> std::path::PathBuf {
    objects.join(format!("slice-{index}.yaml"))
}

async fn measure(options: &Options, dir: &Path) -> anyhow::Result<()> {
    let istiod = Istiod::start(dir, &[]).await?;
    let before = istiod.memory("VmRSS")?;
    let tasks = Tasks::new();
    let counters = Arc::new(Counters::default());
    let (stop, stopped) = watch::channel(false);
    let begin = Instant::now();
    // One by itself, of which each of them is one more when they share nothing.
    let mut alone = Proxy::connect(istiod.xds, options.proxies).await?;
    alone.sync().await?;
    let few = u64::from(options.rate) * ALONE;
    let (following, cpu) = (stopped.clone(), istiod.cpu()?);
    let ignored = counters.clone();
    let alone = tasks.spawn("proxy", async move { follow(alone, false, begin, &ignored, following).await });
    change(options, &istiod.objects, begin, few).await?;
    let used_alone = (istiod.cpu()? - cpu).as_secs_f64() / few as f64;
    alone.abort();
    let begin = Instant::now();
    let mut proxies = Vec::new();
    for index in 0..options.proxies {
        let (address, counters, stopped) = (istiod.xds, counters.clone(), stopped.clone());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let task = tasks.spawn("proxy", async move {
            let mut proxy = Proxy::connect(address, index).await?;
            proxy.sync().await?;
            ready.send(()).ok();
            follow(proxy, index % LOOKS == 0, begin, &counters, stopped).await
        });
        proxies.push((task, is_ready));
    }
    for (_, ready) in &mut proxies {
        ready.await.context("a proxy is not served")?;
    }
    say(&format!("{} proxies have everything after {:.1} s", options.proxies, begin.elapsed().as_secs_f64()));
    // What came late of the start is not of the changes.
    tokio::time::sleep(Duration::from_secs(2)).await;

    let connected = istiod.memory("VmRSS")?;
    for counter in [&counters.responses, &counters.resources, &counters.others] {
        counter.store(0, Ordering::Relaxed);
    }
    let (cpu, start) = (istiod.cpu()?, Instant::now());
    let total = u64::from(options.rate) * options.seconds;
    change(options, &istiod.objects, begin, total).await?;
    let elapsed = start.elapsed();
    let used = istiod.cpu()? - cpu;
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.send(true).ok();
    let mut latency = Histogram::<u64>::new_with_bounds(1, LONGEST, 3)?;
    for (task, _) in proxies {
        latency.add(task.await?.context("a proxy's task")??)?;
    }
    let millis = |part: f64| latency.value_at_quantile(part) as f64 / 1000.0;
    let per_second = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64();
    let cores = used.as_secs_f64() / elapsed.as_secs_f64();
    let received = counters.resources.load(Ordering::Relaxed).max(1);
    say("| what | value |\n|---|---|");
    for (what, value) in [
        ("services × endpoints, proxies", format!("{} × {ENDPOINTS}, {}", options.services, options.proxies)),
        ("changes", format!("{total} in {:.1} s", elapsed.as_secs_f64())),
        ("CPU of istiod", format!("{:.1} s, {cores:.2} cores", used.as_secs_f64())),
        (
            "CPU / (one proxy alone × proxies)",
            format!("{:.3} ×", used.as_secs_f64() / total as f64 / (used_alone * options.proxies as f64)),
        ),
        ("CPU per assignment sent", format!("{:.1} µs", used.as_secs_f64() * 1e6 / received as f64)),
        (
            "resident: alone, connected, at the end, peak",
            format!(
                "{before:.0}, {connected:.0}, {:.0}, {:.0} MB",
                istiod.memory("VmRSS")?,
                istiod.memory("VmHWM")?
            ),
        ),
        ("responses per second", format!("{:.0}", per_second(&counters.responses))),
        ("assignments per second", format!("{:.0}", per_second(&counters.resources))),
        ("responses that are no endpoints", counters.others.load(Ordering::Relaxed).to_string()),
        ("change to receipt, 50 %", format!("{:.0} ms", millis(0.5))),
        ("change to receipt, 99 %", format!("{:.0} ms", millis(0.99))),
        ("change to receipt, longest", format!("{:.0} ms", millis(1.0))),
        ("receipts looked at", latency.len().to_string()),
    ] {
        say(&format!("| {what} | {value} |"));
    }
    Ok(())
}

/// Makes changes at the rate that is asked for.
async fn change(options: &Options, objects: &Path, begin: Instant, count: u64) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / options.rate);
    for change in 0..count {
        tick.tick().await;
        let index = usize::try_from(change * 7919)? % options.services;
        // The address says when the change was made, in milliseconds.
        let turn = u32::try_from(begin.elapsed().as_millis())? & 0x00ff_ffff;
        let path = file(objects, index);
        let text = generate::slice(index, ENDPOINTS, turn);
        let hidden = path.with_extension("tmp");
        fs::write(&hidden, text)?;
        fs::rename(&hidden, &path)?;
    }
    Ok(())
}

/// Takes what comes until the end; looks at when it was made if it is to.
async fn follow(
    mut proxy: Proxy,
    looks: bool,
    epoch: Instant,
    counters: &Counters,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_bounds(1, LONGEST, 3)?;
    loop {
        let response = tokio::select! {
            response = proxy.next() => response?,
            _ = stopped.changed() => return Ok(latency),
        };
        if response.type_url != TypeUrl::Endpoint.as_str() {
            counters.others.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        counters.responses.fetch_add(1, Ordering::Relaxed);
        counters.resources.fetch_add(response.resources.len() as u64, Ordering::Relaxed);
        if !looks {
            continue;
        }
        let now = epoch.elapsed();
        for resource in response.resources.iter().filter_map(|resource| resource.resource.as_ref()) {
            let assignment = ClusterLoadAssignment::decode(resource.value.clone())?;
            if let Some(made) = made_at(&assignment) {
                let micros = now.saturating_sub(made).as_micros();
                latency.saturating_record(u64::try_from(micros).unwrap_or(LONGEST));
            }
        }
    }
}

/// When the newest endpoint was made, as its address says.
fn made_at(assignment: &ClusterLoadAssignment) -> Option<Duration> {
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let addresses = endpoints.filter_map(|endpoint| match endpoint.host_identifier.as_ref()? {
        HostIdentifier::Endpoint(endpoint) => match endpoint.address.as_ref()?.address.as_ref()? {
            Address::SocketAddress(address) => address.address.parse::<std::net::Ipv4Addr>().ok(),
            _ => None,
        },
        HostIdentifier::EndpointName(_) => None,
    });
    let marked = addresses.map(u32::from).find(|address| address >> 24 == 11);
    marked.map(|address| Duration::from_millis(u64::from(address & 0x00ff_ffff)))
}
