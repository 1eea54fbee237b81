//! The control plane of a mesh.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Hopeless, ISTIOD, Mesh};
use crate::client::Ask;
use crate::netns::{self, Network};
use crate::process::Process;
use crate::program::Programs;

/// istiod in a namespace of its own.
#[derive(Debug)]
pub struct Istiod {
    /// Its namespace.
    pub namespace: String,
    /// The program, when it runs.
    pub process: Option<Process>,
    /// Its state directory.
    pub state: PathBuf,
    /// Variables of its environment, from its next start on.
    pub env: Vec<(&'static str, &'static str)>,
    program: PathBuf,
    objects: PathBuf,
    dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Istiod {
    pub(super) fn create(
        network: &mut Network,
        programs: &Programs,
        dir: &Path,
        objects: &Path,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            namespace: network.add("istiod", ISTIOD)?,
            process: None,
            state: dir.join("istiod"),
            env: Vec::new(),
            program: programs.ours("istiod"),
            objects: objects.to_owned(),
            dir: dir.to_owned(),
            log: dir.join("log/istiod.log"),
        })
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let mut command = netns::command(&self.namespace, &self.program);
        command.arg("discovery").arg("--config-dir").arg(&self.objects).arg("--state-dir").arg(&self.state);
        command.current_dir(&self.dir).envs(self.env.iter().copied());
        self.process = Some(Process::start(command, &self.log)?);
        Mesh::wait("istiod ready", || {
            if let Some(process) = &mut self.process
                && let Some(status) = process.ended()
            {
                return Err(Hopeless(format!("{status}: {}", process.output())).into());
            }
            let answer = Ask::get((ISTIOD, 8080), "istiod", "/ready").from(&self.namespace)?;
            ensure!(answer.status.is_success(), "{}", answer.body);
            Ok(())
        })
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("istiod does not run")?;
        let status = process.stop(Duration::from_secs(20)).context("istiod")?;
        ensure!(status.success(), "istiod: {status}");
        Ok(())
    }

    /// What it printed.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A token for a service account.
    ///
    /// # Errors
    /// When istiod gives none.
    pub fn token(&self, namespace: &str, service_account: &str) -> anyhow::Result<String> {
        self.token_with(namespace, service_account, &[])
    }

    /// The same with further flags.
    ///
    /// # Errors
    /// When istiod gives none.
    pub fn token_with(
        &self,
        namespace: &str,
        service_account: &str,
        flags: &[&str],
    ) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["token", "--service-account", &format!("{namespace}/{service_account}")]);
        command.arg("--state-dir").arg(&self.state).args(flags);
        let output = command.output().context("istiod token")?;
        ensure!(output.status.success(), "istiod token: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The roots of the mesh.
    ///
    /// # Errors
    /// When they are not there yet.
    pub fn root(&self) -> anyhow::Result<String> {
        fs::read_to_string(self.state.join("roots.pem")).context("roots of the mesh")
    }

    /// A page of its monitoring port.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn page(&self, path: &str) -> anyhow::Result<Value> {
        Ask::get((ISTIOD, names::port::ISTIOD_MONITORING), "istiod", path).from(&self.namespace)?.json()
    }

    /// State of each proxy: `SYNCED`, or the first type that is not.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn states(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let page = self.page("/debug/syncz")?;
        let rows = page.as_array().context("syncz")?.iter().filter_map(|row| {
            let types = row["resources"].as_object()?;
            // A type that a proxy never asked for is not out of sync.
            let late = types
                .iter()
                .find(|(_, state)| !matches!(state["state"].as_str(), Some("SYNCED" | "NOT SENT")));
            let state = match late {
                Some((name, state)) => format!("{} {}", name, state["state"].as_str().unwrap_or_default()),
                None if types.is_empty() => "NOT SENT".to_owned(),
                None => "SYNCED".to_owned(),
            };
            Some((row["proxy"].as_str()?.to_owned(), state))
        });
        Ok(rows.collect())
    }
}
