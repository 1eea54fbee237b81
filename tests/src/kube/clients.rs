//! Helm and kubectl, as a user of a cluster runs them.

use std::env;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::Cluster;
use crate::netns;

/// Names the folder of helm and kubectl that `scripts/kube` fills.
pub const CLIENTS: &str = "ISTIO_TEST_KUBE_CLIENTS";
/// How long a command may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The folder of helm and kubectl.
///
/// # Errors
/// Nothing says where it is, or it is not there.
#[expect(clippy::disallowed_methods, reason = "the harness's environment")]
pub fn programs() -> anyhow::Result<PathBuf> {
    let path = env::var(CLIENTS)
        .with_context(|| format!("{CLIENTS} does not say where helm is; use scripts/test kube"))?;
    let path = PathBuf::from(path);
    for name in ["helm", "kubectl"] {
        ensure!(path.join(name).is_file(), "{}: no {name}; run scripts/kube", path.display());
    }
    Ok(path)
}

impl Cluster {
    /// Runs a command line of helm or kubectl as the administrator, in the
    /// root of the tree, and returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn client_command(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run_client(words).with_context(|| words.join(" "))
    }

    fn run_client(&self, words: &[&str]) -> anyhow::Result<String> {
        let (name, arguments) = words.split_first().context("an empty line")?;
        ensure!(matches!(*name, "helm" | "kubectl"), "not one of helm and kubectl");
        let program = programs()?.join(name);
        let mut command = self.command_of(&program);
        command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        // Nothing of the user's own: plugins, caches, another cluster.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.dir()).env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns::make(|| command.spawn().context("start"))?;
        let (mut out, mut err) =
            (child.stdout.take().context("output")?, child.stderr.take().context("errors")?);
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).map(|_| text)
        });
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begin.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("not within {LIMIT:?}");
            }
            netns::pause();
        };
        let read = |thread: std::thread::JoinHandle<std::io::Result<String>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread that reads"))?.context("what it says")
        };
        let (out, err) = (read(out)?, read(err)?);
        ensure!(status.success(), "{status}: {}", err.trim());
        Ok(out)
    }

    /// The objects that a chart has with these values.
    ///
    /// # Errors
    /// When Helm refuses the chart or the values.
    pub fn render(
        &self,
        release: &str,
        chart: &str,
        namespace: &str,
        values: &Value,
    ) -> anyhow::Result<Vec<Value>> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile_in(self.dir())?;
        // JSON is YAML, too.
        std::fs::write(file.path(), values.to_string())?;
        let path = format!("deploy/helm/{chart}");
        let file = file.path().display().to_string();
        let text = self.client_command(&[
            "helm",
            "template",
            release,
            &path,
            "-n",
            namespace,
            "--kube-version",
            "1.34.0",
            "-f",
            &file,
        ])?;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| text.clone())?;
        Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
    }
}
