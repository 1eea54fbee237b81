//! A real Prometheus that scrapes a mesh.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::scrape::Labels;
use crate::client::Ask;
use crate::mesh::Mesh;
use crate::netns;
use crate::process::Process;

/// Where it answers usually, on the loopback address of its namespace.
const PORT: u16 = 9090;

/// Who is scraped: a job, an address with its port, a path, and further labels.
#[derive(Clone, Debug)]
pub struct Target {
    /// Name of the job.
    pub job: &'static str,
    /// Address and port.
    pub address: String,
    /// Path of the page.
    pub path: &'static str,
    /// Labels of everything from there.
    pub labels: Vec<(&'static str, String)>,
}

/// One that runs.
#[derive(Debug)]
pub struct Prometheus {
    namespace: String,
    port: u16,
    targets: usize,
    process: Process,
}

/// What a query found: labels and a number of each series.
pub type Vector = Vec<(Labels, f64)>;

impl Prometheus {
    /// Starts one in a namespace; what it stores goes into the folder.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start(namespace: &str, folder: &Path, targets: &[Target]) -> anyhow::Result<Self> {
        Self::start_at(PORT, namespace, folder, targets)
    }

    /// The same at another port.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start_at(port: u16, namespace: &str, folder: &Path, targets: &[Target]) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut text = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
        for (number, Target { job, address, path, labels }) in targets.iter().enumerate() {
            let labels: BTreeMap<_, _> = labels.iter().cloned().chain([("job", (*job).to_owned())]).collect();
            writeln!(
                text,
                "- {{job_name: '{number}', metrics_path: {path}, static_configs: [{{targets: ['{address}'], labels: {}}}]}}",
                serde_json::to_string(&labels)?
            )?;
        }
        let file = folder.join("prometheus.yml");
        fs::write(&file, text)?;
        let mut command = netns::command(namespace, &super::tool("prometheus")?);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        command.current_dir(folder);
        let process = Process::start(command, &folder.join("log"))?;
        let mut prometheus = Self { namespace: namespace.to_owned(), port, targets: targets.len(), process };
        Mesh::wait("Prometheus ready", || {
            if let Some(status) = prometheus.process.ended() {
                let why = format!("Prometheus: {status}: {}", prometheus.process.output());
                return Err(crate::mesh::Hopeless(why).into());
            }
            let answer = prometheus.ask("/-/ready")?;
            ensure!(answer.status.is_success(), "{}", answer.body);
            Ok(())
        })?;
        Ok(prometheus)
    }

    fn ask(&self, path: &str) -> anyhow::Result<crate::client::Answer> {
        Ask::get((Ipv4Addr::LOCALHOST, self.port), "prometheus", path).from(&self.namespace)
    }

    /// The result of a query, at that time (seconds since 1970) or now.
    fn result(&self, query: &str, time: Option<f64>) -> anyhow::Result<Value> {
        let mut path = format!("/api/v1/query?query={}", encoded(query));
        if let Some(time) = time {
            write!(path, "&time={time:.3}")?;
        }
        let mut page = self.ask(&path)?.json()?;
        ensure!(page["status"] == "success", "{query}: {page}");
        Ok(page["data"].take())
    }

    /// Runs a query now.
    ///
    /// # Errors
    /// What Prometheus says against it.
    pub fn query(&self, query: &str) -> anyhow::Result<Vector> {
        self.query_at(query, None)
    }

    /// Runs a query at a time.
    ///
    /// # Errors
    /// What Prometheus says against it.
    pub fn query_at(&self, query: &str, time: Option<f64>) -> anyhow::Result<Vector> {
        let data = self.result(query, time)?;
        let number = |value: &Value| -> anyhow::Result<f64> {
            let text = value[1].as_str().context("a value")?;
            Ok(if text == "+Inf" { f64::INFINITY } else { text.parse()? })
        };
        if data["resultType"] == "scalar" {
            return Ok(vec![(Labels::new(), number(&data["result"])?)]);
        }
        let series = data["result"].as_array().with_context(|| format!("{query}: {data}"))?;
        let read = series.iter().map(|one| {
            let labels = serde_json::from_value(one["metric"].clone())?;
            Ok((labels, number(&one["value"])?))
        });
        read.collect()
    }

    /// The one number of a query that has one.
    ///
    /// # Errors
    /// When it has none or several.
    pub fn number(&self, query: &str, time: Option<f64>) -> anyhow::Result<f64> {
        let found = self.query_at(query, time)?;
        ensure!(found.len() == 1, "{query}: {found:?}");
        Ok(found[0].1)
    }

    /// What the page that a target showed last says of a metric: its type, and its unit,
    /// which only OpenMetrics has.
    ///
    /// # Errors
    /// When no target has it, or several differ.
    pub fn metadata(&self, metric: &str) -> anyhow::Result<[String; 2]> {
        let page = self.ask(&format!("/api/v1/targets/metadata?metric={metric}"))?.json()?;
        let found = page["data"].as_array().with_context(|| format!("{metric}: {page}"))?;
        let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let mut all: Vec<_> = found.iter().map(|one| [text(one, "type"), text(one, "unit")]).collect();
        all.dedup();
        ensure!(all.len() == 1, "{metric}: {page}");
        all.pop().context("one")
    }

    /// What the last scrape of a target failed for; nothing when it did not.
    ///
    /// # Errors
    /// When there is no such target, or it was not scraped yet.
    pub fn failure(&self, instance: &str) -> anyhow::Result<String> {
        let page = self.ask("/api/v1/targets?state=active")?.json()?;
        let targets = page["data"]["activeTargets"].as_array().with_context(|| page.to_string())?;
        let target = targets.iter().find(|target| target["labels"]["instance"] == instance);
        let target = target.with_context(|| format!("{instance}: {page}"))?;
        ensure!(target["health"] != "unknown", "{target}");
        Ok(target["lastError"].as_str().unwrap_or_default().to_owned())
    }

    /// What it printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Times of the scrapes of a target, the oldest first.
    ///
    /// # Errors
    /// When it was never scraped.
    pub fn scrapes(&self, instance: &str) -> anyhow::Result<Vec<f64>> {
        let data = self.result(&format!("up{{instance=\"{instance}\"}}[10m]"), None)?;
        let values = data["result"][0]["values"].as_array().with_context(|| format!("{instance}: {data}"))?;
        let good = values.iter().filter(|value| value[1] == "1");
        Ok(good.filter_map(|value| value[0].as_f64()).collect())
    }

    /// Waits until all targets were scraped after now.
    ///
    /// # Errors
    /// When one does not answer well in time.
    pub fn wait_scraped(&self) -> anyhow::Result<()> {
        let since = self.number("time()", None)?;
        // It begins some seconds after its start.
        Mesh::wait("scrapes", || {
            let done = self.query(&format!("up == 1 and timestamp(up) > {since:.3}"))?;
            ensure!(done.len() == self.targets, "scraped are {done:?}");
            Ok(())
        })
    }
}

/// A query as a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => all.push(char::from(byte)),
            _ => {
                write!(all, "%{byte:02X}").ok();
            }
        }
        all
    })
}
