//! The set `analyze`: files of objects in, messages out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{fs, thread};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::Summary;

/// Differences that are on purpose.
const LISTED: &str = include_str!("../../data/oracle/analyze-differences.yaml");
/// Cases at the same time.
const THREADS: usize = 2;

/// What is different on purpose.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Rule {
    /// What the rules of one kind say, in our words.
    OwnWords,
    /// We tell of a field more, or gather what is said of one.
    OtherFindings,
    /// Suppressions as the help shows them have an effect.
    DocumentedSuppression,
    /// Log lines are no part of the answer.
    LogLines,
    /// Lines after an empty document are counted right.
    RightLines,
}

#[derive(Debug, Deserialize)]
struct Listed {
    rule: Rule,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    args: Vec<String>,
    json_exit: i32,
    log_exit: i32,
    log_stdout: String,
    log_stderr: String,
    json_stderr: String,
    /// Parsed, where it could be.
    #[serde(default)]
    messages: Option<Vec<Value>>,
    #[serde(default)]
    json_stdout: Option<String>,
    #[serde(default)]
    yaml_stdout: Option<String>,
    #[serde(default)]
    yaml_exit: Option<i32>,
}

/// What must be the same of a message.
type Told = (String, String, String, String, String);

/// Compares all cases of a directory.
///
/// # Errors
/// When the directory or a case cannot be read, or the program cannot be run.
pub fn run(dir: &Path, program: &Path, only: &[String], verbose: bool) -> anyhow::Result<Summary> {
    let listed: Vec<Listed> = serde_saphyr::from_str(LISTED).context("listed differences")?;
    let mut cases = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("recorded cases in {}", dir.display()))?;
    for entry in entries.flatten() {
        let file = entry.path().join("case.json");
        if !file.is_file() {
            continue;
        }
        let case: Case =
            serde_json::from_str(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())?;
        if only.is_empty() || only.iter().any(|pattern| super::fits(pattern, &case.name)) {
            cases.push((entry.path(), case));
        }
    }
    cases.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let share = cases.len().div_ceil(THREADS).max(1);
    let results: anyhow::Result<Vec<_>> = thread::scope(|scope| {
        let parts = cases.chunks(share).map(|part| scope.spawn(|| all(part, program)));
        let parts: Vec<_> = parts.collect();
        let joined =
            parts.into_iter().map(|part| part.join().map_err(|_| anyhow::anyhow!("a case panicked"))?);
        joined.collect()
    });
    let mut summary = Summary { set: "analyze", ..Summary::default() };
    for (name, differences) in results?.into_iter().flatten() {
        let unlisted = differences
            .iter()
            .find(|(rule, _)| rule.is_none_or(|rule| !listed.iter().any(|one| one.rule == rule)));
        match (differences.first(), unlisted) {
            (None, _) => summary.equal += 1,
            (Some(_), None) => summary.listed += 1,
            (Some(_), Some((_, what))) => {
                summary.different += 1;
                if verbose {
                    eprintln!("{name}: {what}");
                }
            }
        }
    }
    Ok(summary)
}

type Difference = (Option<Rule>, String);

fn all(cases: &[(PathBuf, Case)], program: &Path) -> anyhow::Result<Vec<(String, Vec<Difference>)>> {
    let each = cases.iter().map(|(dir, case)| Ok((case.name.clone(), compare(dir, case, program)?)));
    each.collect()
}

fn call(dir: &Path, case: &Case, program: &Path, format: &str) -> anyhow::Result<Output> {
    let mut command = Command::new(program);
    command.current_dir(dir).args(["analyze", "--use-kube=false", "--color=false", "-o", format]);
    command.args(&case.args).output().with_context(|| program.display().to_string())
}

fn compare(dir: &Path, case: &Case, program: &Path) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let mut differ = |rule: Option<Rule>, what: String| differences.push((rule, what));
    let json = call(dir, case, program, "json")?;
    let log = call(dir, case, program, "log")?;
    let is_documented = case
        .args
        .iter()
        .any(|arg| arg.contains('=') && arg.rsplit(' ').next().is_some_and(|name| name.contains('.')));
    for (what, ours, theirs) in [("json", &json, case.json_exit), ("log", &log, case.log_exit)] {
        if ours.status.code() != Some(theirs) {
            differ(None, format!("{what}: exit code {:?}, theirs {theirs}", ours.status.code()));
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("/v1.30/", "/latest/");
    let recorded = match (&case.messages, &case.json_stdout) {
        (Some(messages), _) => Some(messages.clone()),
        (None, Some(text)) => {
            differ(Some(Rule::LogLines), "log lines before the messages".into());
            serde_json::from_str(&without_log(text)).ok()
        }
        (None, None) => None,
    };
    let stdout = text(&json.stdout);
    let ours: Option<Vec<Value>> = serde_json::from_str(&stdout).ok();
    let (ours, theirs) = (told(ours.unwrap_or_default()), told(recorded.unwrap_or_default()));
    let is_told_otherwise = ours != theirs;
    if is_told_otherwise {
        for (rule, what) in explain(&ours, &theirs, is_documented) {
            differ(rule, what);
        }
    } else {
        let theirs = without_log(&case.log_stdout).replace("/v1.30/", "/latest/");
        if text(&log.stdout) != theirs {
            differ(None, format!("log: ours {:?}, theirs {theirs:?}", text(&log.stdout)));
        }
        if let (Some(theirs), Some(exit)) = (&case.yaml_stdout, case.yaml_exit) {
            let yaml = call(dir, case, program, "yaml")?;
            let (ours, theirs) = (plain(&text(&yaml.stdout)), plain(&theirs.replace("/v1.30/", "/latest/")));
            if ours != theirs || yaml.status.code() != Some(exit) {
                differ(None, format!("yaml: ours {ours:?}, theirs {theirs:?}"));
            }
        }
    }
    // Whether something was found is told there, too.
    let errors = [("json", &json.stderr, &case.json_stderr), ("log", &log.stderr, &case.log_stderr)];
    for (what, ours, theirs) in errors.into_iter().filter(|_| !is_told_otherwise) {
        let theirs = theirs.replace("/v1.30/", "/latest/");
        if text(ours) != theirs {
            let rule = is_documented.then_some(Rule::DocumentedSuppression);
            differ(rule, format!("{what}: standard error {:?}, theirs {theirs:?}", text(ours)));
        }
    }
    Ok(differences)
}

/// The text of YAML without the query of links, which only counts readers.
fn plain(text: &str) -> String {
    text.replace("?ref=istioctl-analyze", "")
}

/// Log lines begin with the time.
fn without_log(text: &str) -> String {
    let is_log = |line: &str| line.len() > 27 && line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T';
    let mut lines = text.split_inclusive('\n').peekable();
    let mut rest = String::new();
    while let Some(line) = lines.next() {
        if !is_log(line) {
            rest += line;
            continue;
        }
        // What a log line quotes is indented, and ends with empty lines.
        let mut is_quote = false;
        while let Some(next) = lines.peek() {
            let (is_indented, is_empty) = (next.starts_with('\t'), *next == "\n");
            if !(is_indented || is_quote && is_empty) || next.starts_with("\t{") {
                break;
            }
            is_quote = true;
            lines.next();
        }
    }
    rest
}

fn told(messages: Vec<Value>) -> BTreeMap<Told, usize> {
    let mut all = BTreeMap::new();
    for message in messages {
        let part = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        let key = (part("code"), part("level"), part("origin"), part("reference"), part("message"));
        *all.entry(key).or_default() += 1;
    }
    all
}

/// The line of a place; 0 without one.
fn line(reference: &str) -> i64 {
    reference.rsplit_once(':').and_then(|(_, line)| line.parse().ok()).unwrap_or_default()
}

/// What the rules of one kind say.
fn is_schema(code: &str) -> bool {
    ["IST0106", "IST0133"].contains(&code)
}

fn explain(
    ours: &BTreeMap<Told, usize>,
    theirs: &BTreeMap<Told, usize>,
    is_documented: bool,
) -> Vec<Difference> {
    let others = |a: &BTreeMap<Told, usize>, b: &BTreeMap<Told, usize>| -> Vec<Told> {
        a.keys().filter(|key| !b.contains_key(*key)).cloned().collect()
    };
    let (more, less) = (others(ours, theirs), others(theirs, ours));
    let has_object = |list: &[Told], one: &Told| {
        list.iter()
            .any(|(code, _, origin, reference, _)| (code, origin, reference) == (&one.0, &one.2, &one.3))
    };
    let is_off_by_one = |one: &Told, list: &[Told], by: [i64; 2]| {
        list.iter().any(|other| {
            let same = (&one.0, &one.2, &one.4) == (&other.0, &other.2, &other.4);
            same && by[0] * line(&one.3) + by[1] * line(&other.3) == 1
        })
    };
    let mut all = Vec::new();
    for (one, counterpart, side) in more
        .iter()
        .map(|one| (one, &less, "ours only"))
        .chain(less.iter().map(|one| (one, &more, "theirs only")))
    {
        let is_suppressed = is_documented && side == "theirs only";
        let rule = match one {
            _ if is_suppressed => Some(Rule::DocumentedSuppression),
            one if is_schema(&one.0) && has_object(counterpart, one) => Some(Rule::OwnWords),
            one if one.0 == "IST0133" && side == "ours only" => Some(Rule::OtherFindings),
            one if side == "ours only" && is_off_by_one(one, counterpart, [-1, 1]) => Some(Rule::RightLines),
            one if side == "theirs only" && is_off_by_one(one, counterpart, [1, -1]) => {
                Some(Rule::RightLines)
            }
            _ => None,
        };
        all.push((rule, format!("{side}: {one:?}")));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_taken_out() {
        let text = "2026-11-23T23:47:44.467366Z\twarn\ta: 1 error:\n\t* b\n\n\n[\n\t{\n\t}\n]\n";
        assert_eq!(without_log(text), "[\n\t{\n\t}\n]\n");
        assert_eq!(without_log("Error [IST0001] a\n"), "Error [IST0001] a\n");
    }
}
