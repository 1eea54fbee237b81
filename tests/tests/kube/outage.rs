//! The API server away, back, and without memory of the past.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use istio_tests::kube::Istiod;
use istio_tests::netns::pause;

use super::{Case, NODE, Stage, cluster_of, service};

pub(super) const CASES: &[Case] = &[
    ("while_the_api_server_is_away_all_stays_and_afterwards_a_new_service_is_seen_at_once", away),
    ("a_list_that_is_read_again_tells_nothing_that_was_known", known),
    ("what_was_lost_while_nobody_watched_is_gone", lost),
    ("a_start_waits_for_the_api_server", waits),
];

/// Longer than any back-off that would be small enough by itself.
const AWAY: Duration = Duration::from_secs(12);
/// Well below the back-off that would have grown in that time.
const SOON: Duration = Duration::from_secs(5);

fn away(stage: &mut Stage) -> anyhow::Result<()> {
    stage.bookinfo()?;
    let istiod = stage.istiod()?;
    let before = istiod.resources(NODE, &["9080"])?;
    let version = istiod.clusters(NODE)?.0;
    stage.cluster.kill_api()?;
    let begin = Instant::now();
    while begin.elapsed() < AWAY {
        ensure!(istiod.is_ready(), "not ready without the API server");
        pause();
    }
    ensure!(istiod.resources(NODE, &["9080"])? == before, "other resources without the API server");
    stage.cluster.start_api()?;
    stage.cluster.apply(&[service("default", "after")])?;
    let after = cluster_of("default", "after");
    let took = istiod.wait_clusters(NODE, "a new service", |names| names.contains(&after))?;
    println!("a new service was seen {took:?} after the API server took it");
    ensure!(took < SOON, "seen after {took:?} only");
    ensure!(istiod.clusters(NODE)?.0 != version, "the same version with another service");
    stage.cluster.delete("v1", "Service", "default", "after")?;
    istiod.wait_clusters(NODE, "gone", |names| !names.contains(&after))?;
    Ok(())
}

/// An istiod that says in its log what it lists.
fn talkative(stage: &Stage) -> anyhow::Result<Istiod> {
    let kubeconfig = stage.cluster.kubeconfig();
    let flags: [&dyn AsRef<std::ffi::OsStr>; 3] =
        [&"--log_output_level=kube:debug", &"--kubeconfig", &kubeconfig];
    let mut istiod = Istiod::start(&stage.program, &flags, &[])?;
    istiod.wait_ready()?;
    Ok(istiod)
}

fn lists_of_routes(istiod: &Istiod) -> usize {
    istiod
        .output()
        .lines()
        .filter(|line| line.contains("listed") && line.contains("/virtualservices"))
        .count()
}

fn wait_listed_again(istiod: &Istiod, before: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    while lists_of_routes(istiod) <= before {
        ensure!(
            begin.elapsed() < Duration::from_secs(60),
            "routes are not listed again: {}",
            istiod.output()
        );
        pause();
    }
    Ok(())
}

fn known(stage: &mut Stage) -> anyhow::Result<()> {
    stage.bookinfo()?;
    let istiod = talkative(stage)?;
    let version = istiod.clusters(NODE)?.0;
    let before = lists_of_routes(&istiod);
    ensure!(before == 1, "routes were listed {before} times: {}", istiod.output());
    stage.cluster.kill_api()?;
    stage.cluster.compact()?;
    stage.cluster.start_api()?;
    wait_listed_again(&istiod, before)?;
    ensure!(istiod.output().contains("too old"), "{}", istiod.output());
    // Longer than changes are gathered.
    std::thread::park_timeout(Duration::from_millis(500));
    ensure!(istiod.clusters(NODE)?.0 == version, "a list with nothing new was pushed");
    Ok(())
}

fn lost(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.apply(&[service("default", "lost")])?;
    let istiod = stage.istiod()?;
    let lost = cluster_of("default", "lost");
    istiod.wait_clusters(NODE, "a service", |names| names.contains(&lost))?;
    stage.cluster.kill_api()?;
    stage.cluster.lose("services/specs/default/lost")?;
    stage.cluster.compact()?;
    stage.cluster.start_api()?;
    istiod.wait_clusters(NODE, "the service gone", |names| !names.contains(&lost))?;
    Ok(())
}

fn waits(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.kill_api()?;
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &[])?;
    std::thread::park_timeout(Duration::from_secs(2));
    ensure!(istiod.process.ended().is_none(), "istiod ended: {}", istiod.output());
    for path in ["/ready", "/debug"] {
        let Err(refusal) = istiod.get(istiod.http, path) else {
            bail!("{path} without having read anything")
        };
        let words = format!("{refusal:#}");
        ensure!(words.contains("503") && words.contains("it waits for the mesh configuration"), "{words}");
    }
    stage.cluster.start_api()?;
    istiod.wait_ready()
}
