//! Many proxies that come at once to an istiod that has just started.

use std::fs;
use std::time::{Duration, Instant};

use runtime::tasks::Tasks;

use super::generate;
use super::live::{Istiod, Proxy, raise_limit};
use crate::bench::say;

/// What comes at whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Proxies.
    #[arg(long, default_value = "200")]
    proxies: usize,
    /// Services, with ten endpoints each.
    #[arg(long, default_value = "300")]
    services: usize,
}

const ENDPOINTS: usize = 10;
/// Proxies that are not served in that time are not served at all.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures how long it takes until all have everything.
///
/// # Errors
/// When istiod does not start.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let objects = dir.path().join("objects");
    fs::create_dir(&objects)?;
    fs::write(objects.join("mesh.yaml"), generate::mesh(options.services, ENDPOINTS))?;
    raise_limit(u64::try_from(options.proxies)?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let istiod = Istiod::start(dir.path(), &[]).await?;
        let (cpu, rest) = (istiod.cpu()?, istiod.memory("VmRSS")?);
        let tasks = Tasks::new();
        let begin = Instant::now();
        let proxies: Vec<_> = (0..options.proxies)
            .map(|index| {
                let address = istiod.xds;
                tasks.spawn("proxy", async move {
                    let mut refused = 0_u32;
                    loop {
                        let mut proxy = None;
                        let outcome = async {
                            let mut connected = Proxy::connect(address, index).await?;
                            connected.sync().await?;
                            proxy = Some(connected);
                            anyhow::Ok(())
                        };
                        match outcome.await {
                            Ok(()) => return (begin.elapsed(), refused, proxy),
                            Err(_) if begin.elapsed() < PATIENCE => refused += 1,
                            Err(_) => return (PATIENCE, refused, None),
                        }
                        tokio::time::sleep(Duration::from_millis(500)).await;
                    }
                })
            })
            .collect();
        let (mut times, mut refused, mut kept) = (Vec::new(), 0, Vec::new());
        for proxy in proxies {
            if let Some((time, times_refused, proxy)) = proxy.await? {
                times.push(time.as_secs_f64());
                refused += times_refused;
                kept.extend(proxy);
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times.get((times.len() as f64 * part) as usize).or(times.last()).copied();
        let seconds = |part| at(part).map_or_else(String::new, |time| format!("{time:.2} s"));
        let peak = istiod.memory("VmHWM")?;
        let used = istiod.cpu()? - cpu;
        // One by itself, of which each of them is more when they share nothing.
        let alone = Instant::now();
        let mut proxy = Proxy::connect(istiod.xds, options.proxies).await?;
        proxy.sync().await?;
        let alone = alone.elapsed().as_secs_f64();
        let all = times.last().copied().unwrap_or_default();
        say("| proxies | synced | 50 % | 95 % | all | refused | resident peak | resident | before | CPU | all / (one alone × proxies) |");
        say("|---|---|---|---|---|---|---|---|---|---|---|");
        say(&format!(
            "| {} | {} | {} | {} | {} | {refused} | {peak:.0} MB | {:.0} MB | {rest:.0} MB | {:.2} s | {:.2} × |",
            options.proxies,
            kept.len(),
            seconds(0.5),
            seconds(0.95),
            seconds(1.0),
            istiod.memory("VmRSS")?,
            used.as_secs_f64(),
            all / (alone * options.proxies as f64),
        ));
        anyhow::Ok(())
    })
}
