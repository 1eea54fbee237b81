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
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::Pin;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Parser as _;
use futures_util::{StreamExt as _, stream};
use http::Method;
use nix::fcntl::OFlag;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::args::analyze::Analyze;
use crate::args::bug_report::BugReport as Args;
use crate::args::{Cli, Command, Global};
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::proxies::admin::exchange;
use crate::proxies::{Mesh, Proxy};
use crate::render::plain::warn;
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

/// What a file of the report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Anything that somebody has printed.
    Page,
    /// The same, line by line with times.
    Log,
    /// What has lost its secrets already, as objects.
    Clean,
}

/// One file of the report: its path, and how its text is had.
struct Job<'a> {
    path: String,
    form: Form,
    text: Pin<Box<dyn Future<Output = anyhow::Result<String>> + 'a>>,
}

impl<'a> Job<'a> {
    fn new(path: &str, form: Form, text: impl Future<Output = anyhow::Result<String>> + 'a) -> Self {
        Self { path: within(path), form, text: Box::pin(text) }
    }
}

/// A path in the archive that leads nowhere else: names of pods come from others.
fn within(path: &str) -> String {
    let part = |part: &str| -> String {
        let clean = |letter: char| if letter.is_control() || letter == '\\' { '_' } else { letter };
        match part {
            "" | "." | ".." => "_".repeat(part.len().max(1)),
            other => other.chars().map(clean).collect(),
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// What is to be fetched, and what is known to be missing.
#[derive(Default)]
struct Plan<'a> {
    jobs: Vec<Job<'a>>,
    errors: Vec<String>,
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
    writeln!(out, "Target: {}", settings.redactor.text(&from))?;
    let scene = Scene { mesh: &mesh, cluster: cluster.as_ref(), settings: &settings, global: &global };
    let plan = scene.plan().await?;
    let path = archive::path(args.output_dir.as_deref());
    if settings.is_dry {
        for job in &plan.jobs {
            writeln!(out, "would be in it: {}", job.path)?;
        }
        plan.errors.iter().for_each(|error| warn(settings.redactor.text(error)));
        return Ok(writeln!(out, "Dry run, skipping archive creation at {}.", path.display())?);
    }
    writeln!(out, "Fetching {} parts.", plan.jobs.len())?;
    out.flush()?;
    let what = || format!("the archive {}", path.display());
    let mut archive = Archive::create(&path, args.dir.as_deref()).with_context(what)?;
    let report = tokio::select! {
        report = scene.gather(plan, deadline, &mut archive) => report.with_context(what)?,
        // What has come until then goes with the archive.
        _ = tokio::signal::ctrl_c() => return Err(anyhow!("interrupted: there is no archive").into()),
    };
    archive.finish().with_context(what)?;
    report.iter().for_each(warn);
    writeln!(out, "Creating an archive at {}.", path.display())?;
    if !settings.redactor.is_off() {
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
    async fn plan(&self) -> anyhow::Result<Plan<'a>> {
        let Self { mesh, cluster, settings, global } = *self;
        let mut plan = Plan::default();
        let (istiods, proxies) = match cluster {
            Some(cluster) => self.of_cluster(cluster, &mut plan).await?,
            None => self.of_file(&mut plan).await,
        };
        let jobs = &mut plan.jobs;
        for istiod in istiods {
            for page in ISTIOD {
                let istiod = istiod.clone();
                let path = format!("istio/{}/{}/{page}", istiod.namespace, istiod.name);
                jobs.push(Job::new(&path, Form::Page, async move { page_of(mesh, &istiod, page).await }));
            }
        }
        for proxy in proxies.into_iter().filter(|_| settings.has_proxies) {
            for page in ENVOY {
                let proxy = proxy.clone();
                let path = format!("proxies/{}/{}/{page}", proxy.namespace, proxy.name);
                let text = async move { mesh.admin(&proxy, settings.admin_port).get(page).await };
                jobs.push(Job::new(&path, Form::Page, text));
            }
        }
        jobs.push(Job::new("versions", Form::Page, versions(global)));
        if settings.has_analysis && (cluster.is_some() || mesh.objects_dir().is_some()) {
            jobs.push(Job::new(ANALYSIS, Form::Page, analysis(mesh, global)));
        }
        Ok(plan)
    }

    /// Objects and logs of a cluster; its istiods and proxies.
    async fn of_cluster(
        &self,
        cluster: &'a Kubernetes,
        plan: &mut Plan<'a>,
    ) -> anyhow::Result<(Vec<Proxy>, Vec<Proxy>)> {
        let Self { settings, global, .. } = *self;
        let istio = global.istio_namespace.as_str();
        let files = File::ALL.into_iter().filter(|file| settings.has_cluster || !file.is_dump());
        plan.jobs.extend(
            files.map(|file| Job::new(file.path(), Form::Clean, file.text(cluster, settings, istio))),
        );
        let pods = cluster::pods(cluster, settings, istio, &mut plan.errors).await?;
        let found = cluster::containers(&pods, settings, istio);
        let (istiods, proxies): (Vec<Container>, Vec<Container>) =
            found.into_iter().partition(Container::is_istiod);
        let names = |all: &[Container]| all.iter().map(|one| one.pod.clone()).collect::<Vec<_>>();
        let parts = (names(&istiods), names(&proxies));
        for container in istiods.into_iter().chain(proxies) {
            let path = log_path(&container.pod, container.is_istiod());
            let text = async move { container.log(cluster, settings).await };
            plan.jobs.push(Job::new(&path, Form::Log, text));
        }
        Ok(parts)
    }

    /// Objects and logs that a file names; its istiods and proxies.
    async fn of_file(&self, plan: &mut Plan<'a>) -> (Vec<Proxy>, Vec<Proxy>) {
        let Self { mesh, settings, .. } = *self;
        let istiods = mesh.istiods("").await.unwrap_or_else(|error| {
            plan.errors.push(format!("istiods: {error:#}"));
            Vec::new()
        });
        let proxies = self.named();
        for (pod, is_istiod) in
            istiods.iter().map(|pod| (pod, true)).chain(proxies.iter().map(|pod| (pod, false)))
        {
            let Some(file) = mesh.log_file(pod) else { continue };
            let text = async move { printed(file, settings.tail) };
            plan.jobs.push(Job::new(&log_path(pod, is_istiod), Form::Log, text));
        }
        match self.objects() {
            Ok(jobs) => plan.jobs.extend(jobs),
            Err(error) => plan.errors.push(format!("objects: {error:#}")),
        }
        (istiods, proxies)
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
        let redactor = &self.settings.redactor;
        let mut jobs = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            let is_yaml =
                path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
            let Some(name) = path.file_name().filter(|_| is_yaml) else { continue };
            let name = format!("cluster/objects/{}", name.to_string_lossy());
            let text = async move {
                let (text, _) = source::file::read(&path).with_context(|| path.display().to_string())?;
                Ok(redactor.documents(&text))
            };
            jobs.push(Job::new(&name, Form::Clean, text));
        }
        Ok(jobs)
    }

    /// Fetches all and adds it to the archive; returns what could not be had.
    async fn gather(
        &self,
        plan: Plan<'a>,
        deadline: Instant,
        archive: &mut Archive,
    ) -> anyhow::Result<Vec<String>> {
        let settings = self.settings;
        let redactor = &settings.redactor;
        let Plan { jobs, errors } = plan;
        let mut errors: Vec<String> = errors.iter().map(|error| redactor.text(error)).collect();
        let mut weights: Vec<(Weight, String)> = Vec::new();
        let mut left: Vec<String> = jobs.iter().map(|job| job.path.clone()).collect();
        let run = |job: Job<'a>| async move { (job.path, job.form, job.text.await) };
        let mut running = stream::iter(jobs).map(run).buffer_unordered(settings.concurrency);
        loop {
            let (path, form, result) = match timeout_at(deadline, running.next()).await {
                Ok(Some(done)) => done,
                Ok(None) => break,
                Err(_) => {
                    errors.push(format!("--timeout: not in time: {}", left.join(", ")));
                    break;
                }
            };
            left.retain(|one| *one != path);
            let mut text = match result {
                Ok(text) => text,
                Err(error) => {
                    errors.push(redactor.text(&format!("{path}: {error:#}")));
                    continue;
                }
            };
            if form == Form::Log {
                text = settings.range.of(&text);
                weights.push((Weight::of(&text, &settings.critical, &settings.ignored), path.clone()));
            }
            if form != Form::Clean {
                text = redactor.text(&text);
            }
            archive.add(&path, &text)?;
        }
        errors.sort();
        archive.add("errors", &errors.join("\n"))?;
        archive.add("importance", &importance(weights))?;
        Ok(errors)
    }
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
fn printed(path: &Path, tail: Option<u64>) -> anyhow::Result<String> {
    let what = || path.display().to_string();
    // A pipe would be waited for.
    let mut file = fs::File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .with_context(what)?;
    let metadata = file.metadata().with_context(what)?;
    ensure!(metadata.is_file(), "{} is not a regular file", path.display());
    // Of a log that is too long the end is what is read.
    let skipped = metadata.len().saturating_sub(cluster::LONGEST);
    file.seek(SeekFrom::Start(skipped)).with_context(what)?;
    let mut bytes = Vec::new();
    file.take(cluster::LONGEST).read_to_end(&mut bytes).with_context(what)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if skipped > 0 {
        text.insert_str(0, &format!("========= Cut: {skipped} bytes are before this =========\n"));
    }
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
    fn paths_stay_in_the_archive() {
        for (path, clean) in [
            ("proxies/shop/../../x/log", "proxies/shop/__/__/x/log"),
            ("proxies//a\\b/config_dump?include_eds", "proxies/_/a_b/config_dump?include_eds"),
            ("cluster/./k8s", "cluster/_/k8s"),
        ] {
            assert_eq!(within(path), clean);
        }
    }

    /// A report of a mesh that a file names.
    async fn report(file: &str, dir: &Path) -> std::collections::BTreeMap<String, String> {
        let mesh = dir.join("mesh.yaml");
        fs::write(&mesh, file).unwrap();
        let line = ["istioctl", "--mesh", mesh.to_str().unwrap(), "bug-report", "--skip-proxy-debug"];
        let line = line.iter().copied().chain(["--output-dir", dir.to_str().unwrap(), "--skip-analyze"]);
        let cli = Cli::try_parse_from(line).unwrap();
        let Command::BugReport(args) = &cli.command else { panic!("another command") };
        run(args, &cli.global, &mut Vec::new()).await.unwrap();
        let file = fs::File::open(dir.join("bug-report.tar.gz")).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        files.collect()
    }

    #[tokio::test]
    async fn what_is_missing_does_not_end_the_report() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "authorization: Bearer marker-12345\nready\n").unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let file = format!(
            "objects: {dir}/none\npods:\n- {{name: ../../up, log: {log}}}\n- {{name: stuck, log: {dir}/pipe}}\n",
            dir = dir.path().display(),
            log = log.display()
        );
        let files = report(&file, dir.path()).await;
        let errors = &files["bug-report/errors"];
        assert!(errors.contains("none") && errors.contains("pipe is not a regular file"), "{errors}");
        let text = files.iter().find(|(name, _)| name.ends_with("up/istio-proxy.log")).unwrap().1;
        assert_eq!(text, "authorization: [redacted]\nready\n");
        assert!(files.keys().all(|name| !name.contains("..")), "{:?}", files.keys());
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
