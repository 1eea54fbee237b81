//! `bug-report`: one archive of what somebody needs who looks for a fault from
//! elsewhere, without what is secret.

mod archive;
mod cluster;
mod logs;
mod pattern;
mod redact;
mod selection;
mod settings;

use std::fs;
use std::io::Write;
use std::pin::Pin;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use futures_util::{StreamExt as _, stream};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::args::analyze::Analyze;
use crate::args::bug_report::BugReport as Args;
use crate::args::{Cli, Command, Global};
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::proxies::admin::exchange;
use crate::proxies::{Mesh, Proxy};
use archive::Archive;
use cluster::{Container, File, PROXY};
use logs::Weight;
use selection::Subject;
use settings::Settings;

/// Port of istiod's debug pages.
const MONITORING: u16 = 15014;
/// Its pages, with all that is not about one proxy.
const ISTIOD: [&str; 20] = [
    "debug/adsz",
    "debug/authorizationz",
    "debug/cachez",
    "debug/clusterz",
    "debug/configz",
    "debug/connections",
    "debug/endpointShardz",
    "debug/endpointz",
    "debug/instancesz",
    "debug/mcsz",
    "debug/mesh",
    "debug/networkz",
    "debug/push_status",
    "debug/pushcontext",
    "debug/registryz",
    "debug/resourcesz",
    "debug/syncz",
    "debug/telemetryz",
    "metrics",
    "version",
];
/// Pages of Envoy.
const ENVOY: [&str; 8] = [
    "certs",
    "clusters",
    "config_dump?include_eds",
    "listeners",
    "memory",
    "runtime",
    "server_info",
    "stats/prometheus",
];
/// Where what `analyze` says is.
const ANALYSIS: &str = "analyze/allNamespaces/allNamespaces";

/// One file of the report: its path, and how its text is had.
struct Job<'a> {
    path: String,
    text: Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>,
    /// Whether it is a log.
    is_log: bool,
}

impl<'a> Job<'a> {
    fn new(path: String, text: impl Future<Output = anyhow::Result<String>> + 'a) -> Self {
        Self { path, text: Box::pin(text), is_log: false }
    }
}

/// Writes the archive.
///
/// # Errors
/// When there is no mesh, or the archive cannot be written. What cannot be had is
/// told in the report, and left out.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let mut global = global.clone();
    let settings = Settings::read(args, &mut global, OffsetDateTime::now_utc())?;
    let deadline = Instant::now() + settings.timeout;
    let mesh = Mesh::open(&global).await?;
    let cluster = if global.mesh.is_none() { Some(Kubernetes::open(&global).await?) } else { None };
    let from =
        cluster.as_ref().map_or_else(|| "the file of --mesh".to_owned(), |cluster| cluster.server.clone());
    writeln!(out, "Target: {from}")?;
    let scene = Scene { mesh: &mesh, cluster: cluster.as_ref(), settings: &settings, global: &global };
    let jobs = scene.jobs().await?;
    let path = archive::path(args.output_dir.as_deref());
    if settings.is_dry {
        for job in &jobs {
            writeln!(out, "would be in it: {}", job.path)?;
        }
        return Ok(writeln!(out, "Dry run, skipping archive creation at {}.", path.display())?);
    }
    writeln!(out, "Fetching {} parts.", jobs.len())?;
    out.flush()?;
    let what = || format!("the archive {}", path.display());
    let mut archive = Archive::create(&path, args.dir.as_deref()).with_context(what)?;
    let report = scene.gather(jobs, deadline, &mut archive).await.with_context(what)?;
    archive.finish().with_context(what)?;
    for error in &report {
        eprintln!("Warning: {error}");
    }
    writeln!(out, "Creating an archive at {}.", path.display())?;
    if !settings.has_secrets {
        writeln!(
            out,
            "Keys, tokens, passwords and the data of Secrets are left out; look at it before you give it away."
        )?;
    }
    Ok(writeln!(out, "Done.")?)
}

/// Where the parts come from.
struct Scene<'a> {
    mesh: &'a Mesh,
    /// Without one, the mesh is that of a file.
    cluster: Option<&'a Kubernetes>,
    settings: &'a Settings,
    global: &'a Global,
}

impl<'a> Scene<'a> {
    /// What is to be fetched.
    async fn jobs(&self) -> anyhow::Result<Vec<Job<'a>>> {
        let Self { mesh, cluster, settings, global } = *self;
        let mut jobs = Vec::new();
        let (istiods, proxies) = match cluster {
            Some(cluster) => {
                let istio = global.istio_namespace.as_str();
                let files = File::ALL.into_iter().filter(|file| settings.has_cluster || !file.is_dump());
                jobs.extend(
                    files.map(|file| Job::new(file.path().to_owned(), file.text(cluster, settings, istio))),
                );
                let pods = cluster.list_in::<Pod>(None, "").await?;
                let found = cluster::containers(&pods, settings, istio);
                let (istiods, proxies): (Vec<Container>, Vec<Container>) =
                    found.into_iter().partition(Container::is_istiod);
                let names = |all: &[Container]| all.iter().map(|one| one.pod.clone()).collect::<Vec<_>>();
                let parts = (names(&istiods), names(&proxies));
                for container in istiods.into_iter().chain(proxies) {
                    let path = log_path(&container.pod, container.is_istiod());
                    let text = async move { container.log(cluster, settings).await };
                    jobs.push(Job { is_log: true, ..Job::new(path, text) });
                }
                parts
            }
            None => {
                let istiods = mesh.istiods("").await?;
                let proxies = self.named();
                for (pod, is_istiod) in
                    istiods.iter().map(|pod| (pod, true)).chain(proxies.iter().map(|pod| (pod, false)))
                {
                    let Some(file) = mesh.log_file(pod) else { continue };
                    let text = async move { printed(file, settings.tail) };
                    jobs.push(Job { is_log: true, ..Job::new(log_path(pod, is_istiod), text) });
                }
                jobs.extend(self.objects()?);
                (istiods, proxies)
            }
        };
        for istiod in istiods {
            for page in ISTIOD {
                let istiod = istiod.clone();
                let path = format!("istio/{}/{}/{page}", istiod.namespace, istiod.name);
                jobs.push(Job::new(path, async move { page_of(mesh, &istiod, page).await }));
            }
        }
        for proxy in proxies.into_iter().filter(|_| settings.has_proxies) {
            for page in ENVOY {
                let proxy = proxy.clone();
                let path = format!("proxies/{}/{}/{page}", proxy.namespace, proxy.name);
                let text = async move { mesh.admin(&proxy, settings.admin_port).get(page).await };
                jobs.push(Job::new(path, text));
            }
        }
        jobs.push(Job::new("versions".to_owned(), versions(global)));
        if settings.has_analysis && (cluster.is_some() || mesh.objects_dir().is_some()) {
            jobs.push(Job::new(ANALYSIS.to_owned(), analysis(mesh, global)));
        }
        Ok(jobs)
    }

    /// Pods of the file that are selected.
    fn named(&self) -> Vec<Proxy> {
        let all = self.mesh.pods().into_iter().filter(|(proxy, labels)| {
            // What owns a pod gives it its name and something behind it.
            let deployment = proxy.name.rsplit_once('-').map_or(proxy.name.as_str(), |(owner, _)| owner);
            self.settings.selections.has(&Subject {
                namespace: &proxy.namespace,
                deployment,
                pod: &proxy.name,
                labels: Some(labels),
                annotations: None,
                container: PROXY,
            })
        });
        all.map(|(proxy, _)| proxy).collect()
    }

    /// The files by which the mesh is configured.
    fn objects(&self) -> anyhow::Result<Vec<Job<'a>>> {
        let Some(dir) = self.mesh.objects_dir().filter(|_| self.settings.has_cluster) else {
            return Ok(Vec::new());
        };
        let has_secrets = self.settings.has_secrets;
        let mut jobs = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let is_yaml =
                path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
            let Some(name) = path.file_name().filter(|_| is_yaml) else { continue };
            let name = format!("cluster/objects/{}", name.to_string_lossy());
            let text = async move {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                Ok(if has_secrets { text } else { documents(&text) })
            };
            jobs.push(Job::new(name, text));
        }
        Ok(jobs)
    }

    /// Fetches all and adds it to the archive; returns what could not be had.
    async fn gather(
        &self,
        jobs: Vec<Job<'a>>,
        deadline: Instant,
        archive: &mut Archive,
    ) -> anyhow::Result<Vec<String>> {
        let settings = self.settings;
        let mut errors = Vec::new();
        let mut weights: Vec<(Weight, String)> = Vec::new();
        let mut left: Vec<String> = jobs.iter().map(|job| job.path.clone()).collect();
        let run = |job: Job<'a>| async move { (job.path, job.is_log, job.text.await) };
        let mut running = stream::iter(jobs).map(run).buffer_unordered(settings.concurrency);
        loop {
            let (path, is_log, result) = match timeout_at(deadline, running.next()).await {
                Ok(Some(done)) => done,
                Ok(None) => break,
                Err(_) => {
                    errors.push(format!("--timeout: not in time: {}", left.join(", ")));
                    break;
                }
            };
            left.retain(|one| *one != path);
            let text = match result {
                Ok(text) => text,
                Err(error) => {
                    errors.push(clean(&format!("{path}: {error:#}"), settings));
                    continue;
                }
            };
            let mut text = text;
            if is_log {
                text = settings.range.of(&text);
                weights.push((Weight::of(&text, &settings.critical, &settings.ignored), path.clone()));
            }
            archive.add(&path, &clean(&text, settings))?;
        }
        errors.sort();
        archive.add("errors", &errors.join("\n"))?;
        archive.add("importance", &importance(weights))?;
        Ok(errors)
    }
}

/// A text without what is secret, unless that is wanted.
fn clean(text: &str, settings: &Settings) -> String {
    if settings.has_secrets {
        return text.to_owned();
    }
    if text.trim_start().starts_with(['{', '['])
        && let Ok(mut value) = serde_json::from_str(text)
    {
        redact::value(&mut value);
        return format!("{value:#}\n");
    }
    redact::text(text)
}

/// YAML without what is secret, object by object; what is no YAML as text.
fn documents(text: &str) -> String {
    let mut all = Vec::new();
    for document in text.split("\n---") {
        let Ok(mut value) = serde_saphyr::from_str::<serde_json::Value>(document) else {
            all.push(redact::text(document));
            continue;
        };
        if value["kind"] == "Secret" {
            redact::secret(&mut value)
        } else {
            redact::value(&mut value)
        }
        if value.is_null() {
            continue;
        }
        let json = value.to_string();
        let yaml = serde_json::from_str(&json).map(|value| crate::render::yaml::render(&value));
        all.push(yaml.unwrap_or(json));
    }
    all.join("---\n")
}

/// Logs by what is worth reading first.
fn importance(mut weights: Vec<(Weight, String)>) -> String {
    weights.sort_by_key(|(weight, path)| (std::cmp::Reverse(weight.importance()), path.clone()));
    let line = |(weight, path): &(Weight, String)| {
        let Weight { fatal, errors, warnings, is_critical } = weight;
        let mark = if *is_critical { ", critical" } else { "" };
        format!("{path}: {fatal} fatal, {errors} errors, {warnings} warnings{mark}\n")
    };
    weights.iter().map(line).collect()
}

fn log_path(pod: &Proxy, is_istiod: bool) -> String {
    let Proxy { name, namespace } = pod;
    if is_istiod {
        format!("istio/{namespace}/{name}/discovery.log")
    } else {
        format!("proxies/{namespace}/{name}/istio-proxy.log")
    }
}

/// The last lines of a file.
fn printed(file: &std::path::Path, tail: Option<u64>) -> anyhow::Result<String> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some(tail) = tail.and_then(|tail| usize::try_from(tail).ok()) else { return Ok(text) };
    let skipped = text.lines().count().saturating_sub(tail);
    Ok(text.lines().skip(skipped).map(|line| format!("{line}\n")).collect())
}

async fn page_of(mesh: &Mesh, istiod: &Proxy, page: &str) -> anyhow::Result<String> {
    let connection = mesh.connect(istiod, MONITORING).await?;
    match exchange(connection, Method::GET, page).await {
        // Another version may not have it.
        Err(error) if error.to_string().contains("404 Not Found") => Ok(String::new()),
        answer => answer,
    }
}

/// What `istioctl version` says.
async fn versions(global: &Global) -> anyhow::Result<String> {
    let Command::Version(args) = Cli::try_parse_from(["istioctl", "version", "--timeout", "10s"])?.command
    else {
        bail!("the command line is another one");
    };
    let mut text = Vec::new();
    super::version::run(&args, global, &mut text).await.map_err(told)?;
    Ok(String::from_utf8(text)?)
}

/// What `istioctl analyze` says of all namespaces.
async fn analysis(mesh: &Mesh, global: &Global) -> anyhow::Result<String> {
    let mut args = Analyze { all_namespaces: true, color: Some(false), ..Analyze::without_flags()? };
    args.output = "yaml".into();
    if let Some(dir) = mesh.objects_dir() {
        args.use_kube = false;
        args.whole_cluster = true;
        args.files = vec![dir.display().to_string()];
    }
    let global = Global { mesh: None, ..global.clone() };
    let mut text = Vec::new();
    super::analyze::run(&args, &global, &mut text).await.map_err(told)?;
    Ok(String::from_utf8(text)?)
}

/// A failure of another command.
fn told(failure: crate::failure::Failure) -> anyhow::Error {
    failure.error.unwrap_or_else(|| anyhow::anyhow!("exit code {}", failure.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wanted without a flag.
    pub(super) fn settings() -> Settings {
        let cli = Cli::try_parse_from(["istioctl", "bug-report"]).unwrap();
        let Command::BugReport(args) = cli.command else { panic!("another command") };
        Settings::read(&args, &mut cli.global.clone(), OffsetDateTime::now_utc()).unwrap()
    }

    #[test]
    fn pages_lose_what_is_secret_in_either_form() {
        let mut settings = settings();
        let json = r#"{"a": {"password": "marker", "b": "Bearer marker-12345"}}"#;
        assert!(!clean(json, &settings).contains("marker"));
        assert!(!clean("x password=marker\n", &settings).contains("marker"));
        settings.has_secrets = true;
        assert_eq!(clean(json, &settings), json);
    }

    #[test]
    fn files_of_objects_lose_what_is_secret() {
        let text = "kind: Secret\nmetadata: {name: a}\ndata: {tls.key: bWFya2Vy}\n---\nkind: Service\nmetadata: {name: b}\n---\n: [\n";
        let clean = documents(text);
        assert!(
            !clean.contains("bWFya2Vy") && clean.contains("tls.key") && clean.contains("name: b"),
            "{clean}"
        );
    }

    #[test]
    fn logs_are_told_by_how_bad_they_are() {
        let weight = |errors, is_critical| Weight { errors, is_critical, ..Weight::default() };
        let text = importance(vec![
            (weight(1, false), "a".to_owned()),
            (weight(2, false), "b".to_owned()),
            (weight(0, true), "c".to_owned()),
        ]);
        assert_eq!(
            text,
            "c: 0 fatal, 0 errors, 0 warnings, critical\nb: 0 fatal, 2 errors, 0 warnings\na: 0 fatal, 1 errors, 0 warnings\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        fs::write(&file, "1\n2\n3\n").unwrap();
        assert_eq!(printed(&file, Some(2)).unwrap(), "2\n3\n");
        assert_eq!(printed(&file, None).unwrap(), "1\n2\n3\n");
    }
}
