//! The set `istioctl`: command lines, and what the program printed for each.

mod plane;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::Summary;
use plane::Plane;

/// Differences that are on purpose.
const LISTED: &str = include_str!("../../data/oracle/istioctl-differences.yaml");
/// Folder with the files of the command lines.
const FILES: &str = "files";

/// What is different on purpose.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// Ours says its own version.
    Version,
    /// Whether a certificate is valid, and how old a state is, depends on today.
    Clock,
    /// A help text says the same in other words.
    Help,
    /// A command of the original that this project does not have.
    OtherCommand,
    /// A command that does not exist is refused wherever it stands.
    UnknownCommand,
    /// A difference may be told by other hunks.
    Hunks,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    rule: Rule,
    #[serde(rename = "reason")]
    _reason: String,
    /// Cases that it is for; a trailing `*` stands for any rest.
    cases: Vec<String>,
    /// Flags that ours does not have.
    #[serde(default)]
    flags: Vec<String>,
}

/// A command line and its answer.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    args: Vec<String>,
    exit: i32,
    stdout: String,
    stderr: String,
    /// What it was asked of, when it needs a control plane.
    #[serde(default)]
    live: Option<String>,
}

/// What a program printed.
struct Answer {
    exit: i32,
    stdout: String,
    stderr: String,
}

/// Compares all cases of a directory with what a program prints.
///
/// # Errors
/// When the directory or a case cannot be read, or the program not be run.
pub fn run(dir: &Path, program: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    ensure!(program.is_file(), "{}: not built; run: cargo build -p istioctl", program.display());
    let listed: Vec<Listed> = serde_saphyr::from_str(LISTED).context("listed differences")?;
    let is_meant = |name: &str| only.is_empty() || only.iter().any(|pattern| super::fits(pattern, name));
    let mut summary = Summary { set: "istioctl", ..Summary::default() };
    let plane = Plane::start(dir)?;
    for case in cases(dir)?.iter().filter(|case| is_meant(&case.name)) {
        let rules: Vec<&Listed> = listed
            .iter()
            .filter(|one| one.cases.iter().any(|pattern| super::fits(pattern, &case.name)))
            .collect();
        let ours = ask(program, &dir.join(FILES), case, &plane)?;
        let problem = differs(case, &ours, None);
        let Some(problem) = problem else {
            summary.equal += 1;
            continue;
        };
        // One rule that explains it is enough; else the last says what it does not explain.
        let left = rules.iter().try_fold(problem, |_, rule| differs(case, &ours, Some(rule)));
        match left {
            None => summary.listed += 1,
            Some(problem) => {
                summary.different += 1;
                if verbose {
                    eprintln!("{}: {problem}", case.name);
                }
            }
        }
    }
    Ok(summary)
}

fn cases(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let entries = fs::read_dir(dir).with_context(|| format!("recorded cases in {}", dir.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path)?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    };
    files.iter().map(read).collect()
}

fn ask(program: &Path, files: &Path, case: &Case, plane: &Plane) -> anyhow::Result<Answer> {
    let mut command = Command::new(program);
    command.args(&case.args).current_dir(files).env_clear().env("HOME", "/nonexistent").env("COLUMNS", "200");
    if is_live(case) {
        command.args(["--plaintext", "--xds-address", &plane.address().to_string()]);
    }
    let output = command.output().with_context(|| program.display().to_string())?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer {
        exit: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    })
}

/// Whether a control plane was asked.
fn is_live(case: &Case) -> bool {
    case.live.is_some()
        || case.args.first().is_some_and(|command| command == "proxy-status") && !is_help(case)
}

fn is_help(case: &Case) -> bool {
    case.args.iter().any(|arg| arg == "--help")
}

/// Where an answer differs, with a rule applied or none.
fn differs(case: &Case, ours: &Answer, listed: Option<&&Listed>) -> Option<String> {
    let rule = listed.map(|one| one.rule);
    if rule == Some(Rule::Help) {
        return help(case, ours, listed.map(|one| one.flags.as_slice()).unwrap_or_default());
    }
    if rule == Some(Rule::OtherCommand) {
        return None;
    }
    if rule == Some(Rule::UnknownCommand) {
        return (ours.exit != 64).then(|| format!("exit code {}", ours.exit));
    }
    if ours.exit != case.exit {
        let said = ours.stderr.lines().next().unwrap_or_default();
        return Some(format!("exit code {}, theirs {}: {said}", ours.exit, case.exit));
    }
    let (mine, theirs) = (normal(&ours.stdout, rule), normal(&case.stdout, rule));
    if mine != theirs {
        let line = mine.lines().zip(theirs.lines()).position(|(one, other)| one != other);
        let line = line.unwrap_or_else(|| mine.lines().count().min(theirs.lines().count()));
        let at = |text: &str| text.lines().nth(line).unwrap_or("(end)").to_owned();
        return Some(format!("line {}: ours {:?}, theirs {:?}", line + 1, at(&mine), at(&theirs)));
    }
    // What is told beside the answer has its own words, but for what scripts look for.
    let valid = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| line.ends_with("is valid")).map(ToOwned::to_owned).collect()
    };
    (valid(&ours.stderr) != valid(&case.stderr)).then(|| format!("standard error: {:?}", ours.stderr))
}

/// An answer without what a rule is about.
fn normal(text: &str, rule: Option<Rule>) -> String {
    match rule {
        Some(Rule::Version) => text
            .lines()
            .map(|line| line.split_once("version: ").map_or(line, |(name, _)| name))
            .collect::<Vec<_>>()
            .join("\n"),
        Some(Rule::Clock) => {
            let words = |line: &str| -> Vec<String> {
                let is_age = |word: &&str| word.starts_with('(') && word.ends_with(')');
                line.split_whitespace()
                    .filter(|word| !is_age(word) && !["true", "false"].contains(word))
                    .map(ToOwned::to_owned)
                    .collect()
            };
            text.lines().map(|line| words(line).join(" ")).collect::<Vec<_>>().join("\n")
        }
        Some(Rule::Hunks) => {
            // Of each difference, whether there is one.
            let is_told =
                |line: &&str| line.contains("Match") || line.starts_with("---") || line.starts_with("+++");
            text.lines().filter(is_told).collect::<Vec<_>>().join("\n")
        }
        _ => text.to_owned(),
    }
}

/// What of a help text is no wording: commands, flags and their short names.
fn help(case: &Case, ours: &Answer, without: &[String]) -> Option<String> {
    if ours.exit != case.exit {
        return Some(format!("exit code {}, theirs {}", ours.exit, case.exit));
    }
    let (mine, theirs) = (names(&ours.stdout), names(&case.stdout));
    let missing: Vec<&String> = theirs.difference(&mine).filter(|name| !without.contains(*name)).collect();
    (!missing.is_empty()).then(|| format!("has no {missing:?}"))
}

/// Flags of a help text, each with its short name, and commands.
fn names(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut is_list = false;
    for line in text.lines() {
        let inner = line.trim_start();
        let depth = line.len() - inner.len();
        if depth == 0 {
            is_list = line.ends_with("Commands:");
        }
        let mut words = inner.split([' ', ',', '=', '[']).filter(|word| !word.is_empty());
        if is_list && depth == 2 {
            found.extend(words.next().map(ToOwned::to_owned));
        } else if depth >= 2 && inner.starts_with('-') {
            let short = words.clone().next().filter(|word| !word.starts_with("--"));
            if let Some(long) = words.find(|word| word.starts_with("--")) {
                found.insert(short.map_or_else(|| long.to_owned(), |short| format!("{short} {long}")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_commands_are_found_in_either_form() {
        let theirs = "Usage:\n  x [flags]\n\nAvailable Commands:\n  authz   about --nothing\n\nFlags:\n  -f, --file string   a file\n      --port int  of it\n";
        let ours = "Commands:\n  authz  Words\n\nOptions:\n  -f, --file <FILE>\n          Words\n      --port <PORT>\n          --no flag\n";
        let wanted = ["--port", "-f --file", "authz"].map(ToOwned::to_owned);
        assert_eq!(names(theirs), BTreeSet::from(wanted.clone()));
        assert!(names(ours).is_superset(&BTreeSet::from(wanted)));
    }
}
