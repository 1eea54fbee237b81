//! The demo: a mesh on this machine, shown at work with real requests. Every
//! line that claims something was measured; a claim that does not hold ends
//! the demo with an error.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::client::Ask;
use crate::load::{Load, Report};
use crate::mesh::place::{self, Name};
use crate::mesh::{Mesh, Options};
use crate::netns::pause;
use crate::program::Programs;

/// Name of the demo, unless told otherwise: the first part of the namespaces' names.
pub const NAME: &str = "istio-demo";
/// Lifetime of productpage's certificate: one renewal happens within the demo.
const SHORT_TTL: &str = "20s";
/// Clients of the load.
const CLIENTS: usize = 8;

/// The demo's mesh.
pub fn options(name: &Name, objects: &Path) -> Options {
    let ttl = vec![("SECRET_TTL".to_owned(), SHORT_TTL.to_owned())];
    Options {
        name: name.clone(),
        objects: objects.to_owned(),
        agent_env: BTreeMap::from([("productpage".to_owned(), ttl)]),
    }
}

/// Stops a demo, or removes what one left.
///
/// # Errors
/// When there is something else in its place, or it does not stop.
pub fn stop(name: &Name) -> anyhow::Result<()> {
    if place::stop(name)? {
        say("The demo's namespaces, processes and files are removed.");
    } else {
        say(&format!("There is no demo of the name {}.", name.as_str()));
    }
    Ok(())
}

/// Shows everything.
///
/// # Errors
/// What could not be started or does not hold.
pub fn run(options: &Options, keep: bool) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    step("A mesh starts: one network namespace a pod, each with istio-init, istio-agent and Envoy");
    let start = Instant::now();
    let mut mesh = Mesh::start(&programs, options, &mut |name| {
        say(&format!("  {:>5} ms  {name} is ready", start.elapsed().as_millis()));
    })?;
    mesh.wait_synced()?;
    say(&format!("  {:>5} ms  all proxies have accepted their configuration", start.elapsed().as_millis()));

    routing(&mesh)?;
    identity(&mesh)?;
    strict(&mesh)?;
    change(&mesh)?;
    renewal(&mesh)?;
    restart(&mut mesh)?;
    counted(&mesh)?;
    table(&mesh)?;
    if keep {
        mesh.keep()?;
        let name = options.name.as_str();
        let other = if name == NAME { String::new() } else { format!(" --name {name}") };
        let (dir, client) = (mesh.dir.display(), &mesh.client);
        let roster = mesh.roster();
        let roster = roster.display();
        let page = format!("http://{}:9080/productpage", mesh.pod("productpage-v1")?.workload.address);
        say(&format!(
            "\nThe mesh stays up.\n\
             enter a pod:               ip netns exec {name}-productpage-v1 bash\n\
             ask as the plain client:   ip netns exec {client} curl -H 'end-user: jason' {page}\n\
             ask about the mesh:        export ISTIOCTL_MESH={roster}; PATH=$PATH:{dir}/bin\n\
             see what proxies have:     istioctl proxy-status\n\
             compare with istiod's:     istioctl proxy-status productpage-v1.default\n\
             look into a proxy:         istioctl proxy-config routes productpage-v1.default --name 9080\n\
             see what it logs:          istioctl proxy-config log svc/reviews.default --level rbac:debug\n\
             change its configuration:  {}/*.yaml\n\
             read logs:                 {dir}/log\n\
             stop it:                   scripts/demo stop{other}",
            mesh.objects.display()
        ));
    }
    Ok(())
}

/// The `reviews` part of a page.
fn reviews(mesh: &Mesh, user: Option<&str>) -> anyhow::Result<Value> {
    let answer = mesh.productpage(user)?;
    ensure!(answer.status.is_success(), "productpage: {}: {}", answer.status, answer.body);
    Ok(answer.json()?["reviews"].clone())
}

fn version(mesh: &Mesh, user: Option<&str>) -> anyhow::Result<String> {
    Ok(reviews(mesh, user)?["version"].as_str().context("a version")?.to_owned())
}

fn routing(mesh: &Mesh) -> anyhow::Result<()> {
    step("Routing by header (reviews-route.yaml): jason gets reviews v2, everybody else v1");
    for (user, wanted) in [(None, "v1"), (Some("jason"), "v2"), (Some("anna"), "v1")] {
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..20 {
            *seen.entry(version(mesh, user)?).or_default() += 1;
        }
        let told: Vec<String> =
            seen.iter().map(|(version, count)| format!("{count} × reviews {version}")).collect();
        say(&format!("  end-user: {:<8} 20 requests: {}", user.unwrap_or("(none)"), told.join(", ")));
        ensure!(seen.keys().eq([wanted]), "user {user:?} should get {wanted} only");
    }
    Ok(())
}

fn identity(mesh: &Mesh) -> anyhow::Result<()> {
    step("Identity: what reviews read from its caller's certificate, over mutual TLS");
    let caller = reviews(mesh, None)?["caller"].clone();
    say(&format!("  {}", caller["identity"].as_str().unwrap_or("(no certificate)")));
    ensure!(
        caller["identity"] == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
        "another caller"
    );
    Ok(())
}

fn strict(mesh: &Mesh) -> anyhow::Result<()> {
    step("STRICT (peer-authentication.yaml): reviews refuses the plain client; productpage may be called");
    let address = mesh.pod("reviews-v1")?.workload.address;
    let plain = Ask::get((address, crate::app::PORT), "reviews:9080", "/reviews/0").from(&mesh.client);
    match plain {
        Ok(answer) => anyhow::bail!("reviews answered plaintext: {}", answer.status),
        Err(error) => say(&format!("  http://{address}:9080/reviews/0    refused: {error:#}")),
    }
    let page = mesh.productpage(None)?;
    let address = mesh.pod("productpage-v1")?.workload.address;
    say(&format!("  http://{address}:9080/productpage  {}", page.status));
    Ok(())
}

fn load(mesh: &Mesh) -> anyhow::Result<Load> {
    let load = Load::start(&mesh.client, mesh.ask_productpage()?, CLIENTS);
    // Everything is warm before anything is changed.
    Mesh::wait("load", || {
        ensure!(load.good() > 100, "{} answers", load.good());
        Ok(())
    })?;
    Ok(load)
}

fn none_failed(load: Load) -> anyhow::Result<Report> {
    let report = load.stop()?;
    say(&format!("  load: {report}"));
    ensure!(report.failures() == 0, "requests failed");
    Ok(report)
}

fn change(mesh: &Mesh) -> anyhow::Result<()> {
    step("A changed file under load: everybody else gets reviews v3 instead of v1");
    let load = load(mesh)?;
    let text = mesh.read("reviews-route.yaml")?;
    mesh.write("reviews-route.yaml", &text.replace("subset: v1", "subset: v3"))?;
    let start = Instant::now();
    while version(mesh, None)? != "v3" {
        ensure!(start.elapsed() < Duration::from_secs(10), "not in force after ten seconds");
    }
    let took = start.elapsed();
    say(&format!("  first answer of v3 {} ms after the file was replaced", took.as_millis()));
    ensure!(took < Duration::from_secs(1), "longer than a second");
    wait(Duration::from_secs(1));
    none_failed(load)?;
    mesh.write("reviews-route.yaml", &text)
}

fn renewal(mesh: &Mesh) -> anyhow::Result<()> {
    step(&format!(
        "A certificate renewed under load (productpage asks for {SHORT_TTL}, and renews at half of it)"
    ));
    let productpage = mesh.pod("productpage-v1")?;
    let before = productpage.certificate()?;
    let seen = fingerprint(mesh)?;
    let load = load(mesh)?;
    say(&format!(
        "  before: serial {}, expires {}, reviews saw {seen:.16}...",
        before.serial, before.expires
    ));
    let after = Mesh::wait("renewal", || {
        let now = productpage.certificate()?;
        ensure!(now.serial != before.serial, "still {}", now.serial);
        Ok(now)
    })?;
    // More connections than there are: new ones, with the new certificate.
    let more = Load::start(&mesh.client, mesh.ask_productpage()?, 4 * CLIENTS);
    let sees = Mesh::wait("the new certificate at reviews", || {
        let sees = fingerprint(mesh)?;
        ensure!(sees != seen, "still {seen}");
        Ok(sees)
    })?;
    say(&format!("  after:  serial {}, expires {}, reviews sees {sees:.16}...", after.serial, after.expires));
    wait(Duration::from_secs(1));
    none_failed(more)?;
    none_failed(load)?;
    Ok(())
}

/// SHA-256 of the certificate that reviews' sidecar was shown.
fn fingerprint(mesh: &Mesh) -> anyhow::Result<String> {
    let reviews = reviews(mesh, None)?;
    Ok(reviews["caller"]["certificate"].as_str().context("a certificate")?.to_owned())
}

fn restart(mesh: &mut Mesh) -> anyhow::Result<()> {
    step("istiod is stopped and started again under load");
    let load = load(mesh)?;
    mesh.istiod.stop()?;
    let before = load.good();
    wait(Duration::from_secs(2));
    say(&format!("  without istiod for 2 s: {} requests answered", load.good() - before));
    let start = Instant::now();
    mesh.istiod.start()?;
    mesh.wait_synced()?;
    say(&format!("  all proxies in sync {} ms after its start", start.elapsed().as_millis()));
    wait(Duration::from_secs(1));
    none_failed(load)?;
    Ok(())
}

fn counted(mesh: &Mesh) -> anyhow::Result<()> {
    step("What productpage's Envoy has counted of its own calls (istio_requests_total)");
    let productpage = mesh.pod("productpage-v1")?;
    let metrics = Ask::get((Ipv4Addr::LOCALHOST, names::port::AGENT_STATUS), "pod", "/stats/prometheus")
        .from(&productpage.network)?;
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for line in
        metrics.body.lines().filter(|line| line.starts_with("istio_requests_total{reporter=\"source\""))
    {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let Some((to, code)) = label("destination_workload").zip(label("response_code")) else { continue };
        let to = format!("{to}  response {code}");
        let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse().context("a count")?;
        *counts.entry(to).or_default() += count;
    }
    for (to, count) in &counts {
        say(&format!("  to {to:<28} {count:>8}"));
    }
    ensure!(counts.keys().any(|to| to.starts_with("reviews-v2 ")), "calls of reviews v2 are not counted");
    Ok(())
}

fn table(mesh: &Mesh) -> anyhow::Result<()> {
    step("The mesh");
    let states = mesh.istiod.states()?;
    let mut rows = vec![["POD", "IP", "IDENTITY", "CERTIFICATE EXPIRES", "SYNC"].map(ToOwned::to_owned)];
    for pod in &mesh.pods {
        let workload = &pod.workload;
        let certificate = pod.certificate()?;
        let state = states.get(&format!("{}.{}", workload.name, workload.namespace));
        rows.push([
            workload.name.clone(),
            workload.address.to_string(),
            certificate.identity,
            certificate.expires,
            state.cloned().unwrap_or_else(|| "not connected".to_owned()),
        ]);
    }
    let widths: Vec<usize> =
        (0..5).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        say(&format!("  {}", cells.join("  ").trim_end()));
    }
    Ok(())
}

fn wait(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        pause();
    }
}

fn step(title: &str) {
    say(&format!("\n==> {title}"));
}

/// Prints a line at once; nobody is left to be told when it cannot.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").ok();
    out.flush().ok();
}
