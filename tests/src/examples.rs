//! The examples of istioctl's help: which suites run each, and a shell in which
//! they are typed.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use istioctl::args::examples;
pub use istioctl::args::examples::Example;
use nix::sys::signal::Signal;
use pki::key::{Algorithm, PrivateKey};
use proto::istio::v1::auth::IstioCertificateRequest;

use crate::client::{Answer, Ask};
use crate::grpc::Channel;
use crate::mesh::Mesh;
use crate::netns;
use crate::process::Process;

/// Who runs examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// A mesh without Kubernetes.
    Mesh,
    /// A cluster whose pods run.
    Cluster,
    /// An API server that has objects and no pods.
    Objects,
}

const BOTH: &[Suite] = &[Suite::Mesh, Suite::Cluster];
const MESH: &[Suite] = &[Suite::Mesh];
const CLUSTER: &[Suite] = &[Suite::Cluster];
const OBJECTS: &[Suite] = &[Suite::Objects];

/// Who runs the lines that begin so; the longest beginning counts.
const WHO: &[(&str, &[Suite])] = &[
    ("istioctl ", BOTH),
    ("istioctl --kubeconfig=c0.yaml create-remote-secret ", OBJECTS),
    // The objects of the cluster are looked at, but for these two.
    ("istioctl analyze", CLUSTER),
    ("istioctl analyze --use-kube=false ", BOTH),
    ("istioctl analyze -L", BOTH),
    ("istioctl kube-inject ", CLUSTER),
    // A proxy that discovers no filters has none to show.
    ("istioctl proxy-config ecds ", MESH),
    ("istioctl tag ", OBJECTS),
    ("istioctl x check-inject ", CLUSTER),
    ("istioctl x describe svc istio-ingressgateway ", CLUSTER),
    ("istioctl x injector ", CLUSTER),
    // Prometheus is there.
    ("istioctl x metrics ", MESH),
    ("istioctl x precheck", CLUSTER),
    ("istioctl x workload ", OBJECTS),
];

/// The line of the table that counts for an example.
fn rule(example: &Example) -> Option<&'static (&'static str, &'static [Suite])> {
    let known = WHO.iter().filter(|(head, _)| example.line.starts_with(head));
    known.max_by_key(|(head, _)| head.len())
}

/// The suites that run an example.
fn suites(example: &Example) -> &'static [Suite] {
    rule(example).map_or(&[], |(_, suites)| suites)
}

/// The examples that a suite runs, in the order of the help.
pub fn of(suite: Suite) -> Vec<Example> {
    examples::all().into_iter().filter(|example| suites(example).contains(&suite)).collect()
}

/// Longest wait for a command.
const LIMIT: &str = "120";
/// Longest wait for the end of one that was interrupted.
const END: Duration = Duration::from_secs(20);
/// Folder of programs that are found before all others.
const BIN: &str = "bin";
/// Where the browser of the desktop would have been sent.
const OPENED: &str = "opened";

/// A shell in a folder that has what the examples name.
#[derive(Clone, Debug)]
pub struct Shell {
    /// The folder, which is everybody's home, too.
    pub dir: PathBuf,
    network: String,
    path: String,
    variables: Vec<(String, String)>,
    names: Vec<(String, String)>,
}

impl Shell {
    /// One that finds the programs of some folders. It is in a network namespace, or in
    /// that of the tests when there is no name.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(dir: &Path, network: &str, programs: &[&Path]) -> anyhow::Result<Self> {
        let bin = dir.join(BIN);
        fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
        let browser = bin.join("xdg-open");
        fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > '{}'\n", dir.join(OPENED).display()))?;
        fs::set_permissions(&browser, fs::Permissions::from_mode(0o755))?;
        let system = "/usr/sbin:/usr/bin:/sbin:/bin".split(':').map(PathBuf::from);
        let folders = [bin].into_iter().chain(programs.iter().map(|&folder| folder.to_owned())).chain(system);
        let path = env::join_paths(folders)?.into_string().ok().context("names of folders")?;
        let (dir, network) = (dir.to_owned(), network.to_owned());
        Ok(Self { dir, network, path, variables: Vec::new(), names: Vec::new() })
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &Path) -> Self {
        self.variables.push((name.to_owned(), value.display().to_string()));
        self
    }

    /// Replaces parts of lines, in that order.
    #[must_use]
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        self.names.extend(names.iter().map(|&(name, own)| (name.to_owned(), own.to_owned())));
        self
    }

    /// The line of an example, about what is there.
    fn here(&self, example: &Example) -> String {
        self.names.iter().fold(example.line.clone(), |line, (name, own)| line.replace(name, own))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = if self.network.is_empty() {
            Command::new(words[0])
        } else {
            netns::command(&self.network, Path::new(words[0]))
        };
        command.args(&words[1..]).current_dir(&self.dir).env_clear();
        command.env("PATH", &self.path).env("HOME", &self.dir);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Types a line.
    ///
    /// # Errors
    /// When there is no shell.
    pub fn run(&self, line: &str) -> anyhow::Result<Output> {
        let script = format!("set -euo pipefail\n{line}");
        self.command(&["timeout", LIMIT, "bash", "-c", &script]).output().context("bash")
    }

    /// What a line prints when it succeeds.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn said(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        let code = output.status.code();
        ensure!(code == Some(0), "{line} ends with {code:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Sets the levels of a proxy's log as `proxy-config log` has shown them.
    ///
    /// # Errors
    /// When they cannot be set.
    pub fn restore(&self, proxy: &str, shown: &str) -> anyhow::Result<()> {
        let of_line =
            |line: &str| line.trim().split_once(": ").map(|(name, level)| format!("{name}:{level}"));
        let levels: Vec<String> = shown.lines().filter_map(of_line).collect();
        ensure!(!levels.is_empty(), "{proxy}: {shown}");
        self.said(&format!("istioctl proxy-config log {proxy} --level {}", levels.join(","))).map(drop)
    }

    /// Types an example, which must do what it is for.
    ///
    /// # Errors
    /// When it fails, or has nothing to say.
    pub fn type_in(&self, example: &Example) -> anyhow::Result<()> {
        let line = self.here(example);
        if line.starts_with("istioctl dashboard ") {
            let page = self.page(&line)?;
            ensure!(page.status.is_success() && page.body.contains("Envoy Admin"), "{line}: {}", page.body);
            return Ok(());
        }
        let output = self.run(&line)?;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let code = output.status.code().unwrap_or(-1);
        // A request may be refused, and objects may have something wrong with them.
        let is_well = match example.command.as_str() {
            "why" => matches!(code, 0 | 2 | 3),
            "analyze" => matches!(code, 0 | 79),
            _ => code == 0,
        };
        ensure!(is_well, "{line} ends with {code}: {out}{error}");
        let written = line.rsplit_once("> ").map(|(_, name)| self.dir.join(name.trim()));
        let is_silent = match &written {
            Some(file) => fs::metadata(file).with_context(|| line.clone())?.len() == 0,
            None => out.is_empty() && error.is_empty(),
        };
        let may_be = ["istioctl admin log --level ", "istioctl admin log --reset", "istioctl graph "];
        ensure!(!is_silent || may_be.iter().any(|head| line.starts_with(head)), "{line} says nothing");
        Ok(())
    }

    /// Types all examples of a suite; `around` does so with one, and what belongs to it.
    ///
    /// # Errors
    /// Those that fail.
    pub fn type_all(
        &self,
        suite: Suite,
        mut around: impl FnMut(&Example) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let all = of(suite);
        let wrong: Vec<String> =
            all.iter().filter_map(|example| Some(format!("{:#}", around(example).err()?))).collect();
        ensure!(wrong.is_empty(), "{} of {} examples:\n{}", wrong.len(), all.len(), wrong.join("\n"));
        Ok(())
    }

    /// Starts what serves a page, asks for it at the address that it prints, and
    /// interrupts it.
    fn page(&self, line: &str) -> anyhow::Result<Answer> {
        let log = self.dir.join("served");
        fs::remove_file(self.dir.join(OPENED)).ok();
        let mut process = Process::start(self.command(&["bash", "-c", &format!("exec {line}")]), &log)?;
        let page = self.shown(line, &mut process);
        process.signal(Signal::SIGINT);
        let status = process.wait(END)?;
        fs::remove_file(&log)?;
        let page = page?;
        ensure!(status.success(), "{line}, interrupted: {status}");
        Ok(page)
    }

    fn shown(&self, line: &str, process: &mut Process) -> anyhow::Result<Answer> {
        let url = Mesh::wait(line, || {
            let said = process.output();
            let url = said.lines().find(|line| line.starts_with("http://"));
            let url = url.with_context(|| said.clone())?.to_owned();
            let opened = fs::read_to_string(self.dir.join(OPENED)).unwrap_or_default();
            ensure!(opened.trim() == url, "the browser was sent to {opened:?}, not {url}");
            Ok(url)
        })?;
        let (port, path) = url
            .strip_prefix("http://localhost:")
            .and_then(|rest| rest.split_once('/'))
            .with_context(|| url.clone())?;
        let host = format!("localhost:{port}");
        let ask = Ask::get((Ipv4Addr::LOCALHOST, port.parse::<u16>()?), &host, &format!("/{path}"));
        if self.network.is_empty() {
            bail!("{line}: it needs a network namespace");
        }
        ask.from(&self.network)
    }

    /// Writes the files of `--cert-dir ~/.istio-certs`, with a certificate that istiod's CA
    /// signs for the bearer of a token: the account `default` of its namespace.
    ///
    /// # Errors
    /// When it does not.
    pub fn certificates(&self, istiod: SocketAddr, roots: &str, token: &str) -> anyhow::Result<()> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let csr = pki::csr::request(&key, &"spiffe://cluster.local/ns/istio-system/sa/default".parse()?)?;
        let request =
            IstioCertificateRequest { csr, validity_duration: 3600, ..IstioCertificateRequest::default() };
        let chain = netns::within(&self.network, || async {
            let channel = Channel::tls(istiod, roots).await?;
            Ok(channel.certificate(Some(token), "", request).await?)
        })?;
        let dir = self.dir.join(".istio-certs");
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("root-cert.pem"), roots)?;
        fs::write(dir.join("cert-chain.pem"), chain.concat())?;
        Ok(fs::write(dir.join("key.pem"), key.to_pkcs8_pem().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_run_by_a_suite() {
        for example in examples::all() {
            assert!(!suites(&example).is_empty(), "nobody runs {}", example.line);
        }
        for suite in [Suite::Mesh, Suite::Cluster, Suite::Objects] {
            assert!(of(suite).len() > 10, "{suite:?}: {:?}", of(suite));
        }
    }

    #[test]
    fn every_beginning_is_that_of_an_example() {
        for (head, _) in WHO {
            let counts = |example: &Example| rule(example).is_some_and(|(own, _)| own == head);
            assert!(examples::all().iter().any(counts), "no example begins with {head:?}");
        }
    }
}
