//! The set `init`: flags and environment in, exit codes and the kernel's rules
//! out. Each case runs in a network namespace of its own (root).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Summary;
use crate::netns::Isolated;

/// Parts of a recorded state that are read back and compared.
const COMPARED: [&str; 5] =
    ["iptables", "ip6tables", "iptables_legacy", "ip6tables_legacy", "lo_extra_addrs"];

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
    #[serde(flatten)]
    other: Map<String, Value>,
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
            Ok(()) => summary.equal += 1,
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
    /// The first difference.
    pub fn compare(&self, program: &Path) -> anyhow::Result<()> {
        let Machine { addrs, resolv_conf, passwd_extra, group_extra } = &self.netns;
        let resolv_conf =
            resolv_conf.as_deref().context("a machine without /etc/resolv.conf is not built here")?;
        let machine = Isolated::create(
            addrs,
            &[
                ("resolv.conf", resolv_conf),
                ("passwd", &format!("root:x:0:0:root:/root:/bin/sh\n{passwd_extra}")),
                ("group", &format!("root:x:0:\n{group_extra}")),
            ],
        )?;
        let last = self.steps.iter().rposition(|step| step.run.is_some());
        for (index, (step, recorded)) in self.steps.iter().zip(&self.expect.steps).enumerate() {
            ensure!(step.other.is_empty(), "step {index}: {:?} is not built here", step.other.keys());
            let wanted = match &self.istio_defect {
                Some(defect) if Some(index) == last => &defect.want,
                _ => recorded,
            };
            let output = step.perform(&machine, program)?;
            let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let exit = output.status.code().unwrap_or(-1);
            ensure!(exit == wanted.exit, "step {index}: exit {exit}, wanted {}: {told}", wanted.exit);
            if let Some(wanted) = &wanted.state {
                let state = state(&machine)?;
                for part in COMPARED {
                    ensure!(
                        state[part] == wanted[part],
                        "step {index}: {part}:\n{:#}\nwanted:\n{:#}",
                        state[part],
                        wanted[part]
                    );
                }
            }
        }
        Ok(())
    }
}

impl Step {
    fn perform(&self, machine: &Isolated, program: &Path) -> anyhow::Result<Output> {
        let mut command = match (&self.run, &self.sh) {
            (Some(args), _) => {
                let mut command = machine.command(program);
                command.args(args);
                command
            }
            (None, Some(script)) => {
                let mut command = machine.command(Path::new("/bin/sh"));
                command.args(["-c", script]);
                command
            }
            (None, None) => anyhow::bail!("a step that does nothing"),
        };
        command.envs(&self.env);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command.output().context("a step")
    }
}

/// The kernel's state in the form of the recorded ones.
///
/// # Errors
/// When it cannot be read.
pub fn state(machine: &Isolated) -> anyhow::Result<Value> {
    let mut state = Map::new();
    for (part, program) in [
        ("iptables", "iptables-nft-save"),
        ("ip6tables", "ip6tables-nft-save"),
        ("iptables_legacy", "iptables-legacy-save"),
        ("ip6tables_legacy", "ip6tables-legacy-save"),
    ] {
        let tables = tables(&text(machine.command(Path::new(program)))?);
        if !tables.is_empty() {
            state.insert(part.into(), tables.into());
        }
    }
    let mut addresses = machine.command(Path::new("ip"));
    addresses.args(["-j", "addr", "show", "dev", "lo"]);
    let page: Value = serde_json::from_str(&text(addresses)?)?;
    let infos =
        page.as_array().into_iter().flatten().filter_map(|link| link["addr_info"].as_array()).flatten();
    let mut extra: Vec<String> = infos
        .map(|info| format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"]))
        .filter(|address| address != "127.0.0.1/8" && address != "::1/128")
        .collect();
    extra.sort();
    if !extra.is_empty() {
        state.insert("lo_extra_addrs".into(), json!(extra));
    }
    Ok(state.into())
}

fn text(mut command: Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Policy of a built-in chain, and rules.
type Chain = (Option<String>, Vec<String>);

/// What `iptables-save` printed, without what is always there.
fn tables(text: &str) -> Map<String, Value> {
    let mut tables: BTreeMap<String, BTreeMap<String, Chain>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let policy = (policy != "-").then(|| policy.to_owned());
            tables.entry(table.clone()).or_default().insert(name.to_owned(), (policy, Vec::new()));
        } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let chain = tables.entry(table.clone()).or_default().entry(name.to_owned()).or_default();
            chain.1.push(rule.to_owned());
        }
    }
    let chain = |(policy, rules): Chain| match policy {
        Some(policy) => json!({ "policy": policy, "rules": rules }),
        None => json!({ "rules": rules }),
    };
    let says_something = |(policy, rules): &Chain| !rules.is_empty() || policy.as_deref() != Some("ACCEPT");
    let tables = tables.into_iter().filter_map(|(name, chains)| {
        let kept = chains.into_iter().filter(|(_, found)| says_something(found));
        let chains: Map<String, Value> = kept.map(|(name, found)| (name, chain(found))).collect();
        (!chains.is_empty()).then(|| (name, chains.into()))
    });
    tables.collect()
}
