//! The set `init`: flags and environment in, exit codes and the kernel's rules
//! out. Each case runs in a network namespace of its own (root).

pub mod listed;
pub mod state;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::Summary;
use crate::netns::Isolated;
pub use state::read as state;

/// The kernel's files that a machine without a resolver configuration lacks.
const NO_RESOLVER: &str = "mount -t tmpfs tmpfs /mnt && cp -a /etc /mnt/etc && rm -f /mnt/etc/resolv.conf && \
                           mount --bind /mnt/etc /etc && exec \"$@\"";

/// A recorded case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// `category/name`.
    pub name: String,
    netns: Machine,
    steps: Vec<Step>,
    expect: Expect,
    istio_defect: Option<Defect>,
}

#[derive(Clone, Debug, Deserialize)]
struct Machine {
    addrs: Vec<String>,
    resolv_conf: Option<String>,
    passwd_extra: String,
    group_extra: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Step {
    run: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    sh: Option<String>,
    path: Option<String>,
    /// User and group to run it as, without any capability.
    uid: Option<u32>,
    /// A capability that is taken away, or `all-but-A,B`.
    #[serde(default)]
    drop_caps: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Expect {
    steps: Vec<After>,
}

#[derive(Clone, Debug, Deserialize)]
struct After {
    exit: i32,
    state: Option<Value>,
}

/// What a right program leaves where the recorded one was wrong.
#[derive(Clone, Debug, Deserialize)]
struct Defect {
    want: After,
}

/// How a case came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As recorded, or as a right program does where the recorded one was wrong.
    Equal,
    /// Different, for a reason that is listed.
    Listed(&'static str),
}

/// Runs all cases of a directory: files with one case or a list of them.
///
/// # Errors
/// When the directory or a file cannot be read.
pub fn run(dir: &Path, program: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let mut summary = Summary { set: "init", ..Summary::default() };
    for case in cases(dir)? {
        if !only.is_empty() && !only.iter().any(|pattern| super::fits(pattern, &case.name)) {
            continue;
        }
        match case.compare(program) {
            Ok(Outcome::Equal) => summary.equal += 1,
            Ok(Outcome::Listed(reason)) => {
                summary.listed += 1;
                if verbose {
                    eprintln!("LISTED {}: {reason}", case.name);
                }
            }
            Err(error) => {
                summary.different += 1;
                eprintln!(
                    "DIFFERENT {}{}",
                    case.name,
                    if verbose { format!(": {error:#}") } else { String::new() }
                );
            }
        }
    }
    Ok(summary)
}

/// Reads the cases of a directory.
///
/// # Errors
/// When it, or a file in it, cannot be read.
pub fn cases(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let entries = fs::read_dir(dir).with_context(|| format!("recorded cases in {}", dir.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|end| end == "json")) {
        let read = || -> anyhow::Result<Vec<Case>> {
            let value: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
            Ok(if value.is_array() {
                serde_json::from_value(value)?
            } else {
                vec![serde_json::from_value(value)?]
            })
        };
        cases.extend(read().with_context(|| path.display().to_string())?);
    }
    Ok(cases)
}

impl Case {
    /// Runs it and compares.
    ///
    /// # Errors
    /// The first difference that is not listed.
    pub fn compare(&self, program: &Path) -> anyhow::Result<Outcome> {
        let Err(difference) = self.as_recorded(program) else { return Ok(Outcome::Equal) };
        match listed::reason(self, program) {
            Ok(Some(reason)) => Ok(Outcome::Listed(reason)),
            Ok(None) => Err(difference),
            Err(error) => Err(difference.context(format!("it would be listed, but {error:#}"))),
        }
    }

    fn as_recorded(&self, program: &Path) -> anyhow::Result<()> {
        let machine = self.netns.create()?;
        let last = self.steps.iter().rposition(|step| step.run.is_some());
        for (index, (step, recorded)) in self.steps.iter().zip(&self.expect.steps).enumerate() {
            let wanted = match &self.istio_defect {
                Some(defect) if Some(index) == last => &defect.want,
                _ => recorded,
            };
            let output = step.perform(&self.netns, &machine, program)?;
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let exit = output.status.code().unwrap_or(-1);
            ensure!(exit == wanted.exit, "step {index}: exit {exit}, wanted {}: {told}", wanted.exit);
            if let Some(wanted) = &wanted.state {
                let state = state(&machine)?;
                ensure!(state == *wanted, "step {index}:\n{state:#}\nwanted:\n{wanted:#}");
            }
        }
        Ok(())
    }
}

impl Machine {
    fn create(&self) -> anyhow::Result<Isolated> {
        let passwd = format!("root:x:0:0:root:/root:/bin/sh\n{}", self.passwd_extra);
        let group = format!("root:x:0:\n{}", self.group_extra);
        let mut files = vec![("passwd", passwd.as_str()), ("group", group.as_str())];
        if let Some(text) = &self.resolv_conf {
            files.push(("resolv.conf", text));
        }
        Isolated::create(&self.addrs, &files)
    }
}

impl Step {
    fn perform(&self, on: &Machine, machine: &Isolated, program: &Path) -> anyhow::Result<Output> {
        let mut words: Vec<String> = Vec::new();
        let mut push = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        if on.resolv_conf.is_none() {
            push(&["/usr/bin/unshare", "-m", "/bin/sh", "-c", NO_RESOLVER, "sh"]);
        }
        if let Some(uid) = self.uid {
            let id = uid.to_string();
            push(&[
                "/usr/bin/setpriv",
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--inh-caps",
                "-all",
            ]);
            push(&["--bounding-set", "-all", "--"]);
        } else if let Some(dropped) = self.drop_caps.first() {
            let set = match dropped.strip_prefix("all-but-") {
                Some(kept) => format!("-all,+{}", kept.replace(',', ",+")),
                None => format!("-{dropped}"),
            };
            push(&["/usr/bin/setpriv", "--bounding-set", &set, "--inh-caps", "-all", "--"]);
        }
        if let Some(path) = &self.path {
            // For the step only: the programs before it must be found.
            push(&["/usr/bin/env", &format!("PATH={path}")]);
        }
        match (&self.run, &self.sh) {
            (Some(args), _) => {
                push(&[&program.to_string_lossy()]);
                words.extend(args.iter().cloned());
            }
            (None, Some(script)) => push(&["/bin/sh", "-c", script]),
            (None, None) => anyhow::bail!("a step that does nothing"),
        }
        let (first, rest) = words.split_first().context("a step that does nothing")?;
        let mut command: Command = machine.command(Path::new(first));
        command.args(rest).envs(&self.env);
        command.output().context("a step")
    }
}
