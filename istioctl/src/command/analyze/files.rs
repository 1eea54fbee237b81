//! The files that are looked at.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use analysis::read::{self, Options};
use analysis::{Resource, Scope};
use anyhow::Context as _;

use crate::failure::Result;

const ENDS: [&str; 3] = ["json", "yaml", "yml"];

/// A file that is to be read.
pub(super) struct File {
    /// What the user calls it.
    pub(super) name: String,
    text: String,
}

/// Reads the files that are named, and those in directories.
pub(super) fn gather(names: &[String], may_ask: bool, out: &mut impl io::Write) -> Result<Vec<File>> {
    let mut all = Vec::new();
    for name in names {
        let path = Path::new(name);
        if name == "-" {
            if io::stdin().is_terminal() && may_ask {
                writeln!(out, "Reading from stdin:")?;
                out.flush()?;
            }
            all.push(File { name: name.clone(), text: source::file::text(io::stdin())? });
        } else if !path.exists() {
            return Err(anyhow::anyhow!("stat {name}: no such file or directory").into());
        } else if path.is_dir() {
            directory(path, &mut all)?;
        } else {
            file(path, &mut all)?;
        }
    }
    Ok(all)
}

fn directory(path: &Path, all: &mut Vec<File>) -> Result {
    let name = || path.display().to_string();
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).with_context(name)? {
        entries.push(entry.with_context(name)?.path());
    }
    entries.sort();
    for entry in entries {
        if entry.is_dir() { directory(&entry, all)? } else { file(&entry, all)? }
    }
    Ok(())
}

fn file(path: &Path, all: &mut Vec<File>) -> Result {
    let name = path.display().to_string();
    if !path.extension().is_some_and(|end| ENDS.iter().any(|known| end == *known)) {
        eprintln!("Skipping file {name}, recognized file extensions are: [.json .yaml .yml]");
        return Ok(());
    }
    let text = source::file::read_named(path).with_context(|| name.clone())?;
    all.push(File { name, text });
    Ok(())
}

/// Reads the objects of files; what could not be read is the answer.
pub(super) fn read(
    files: Vec<File>,
    namespace: &str,
    scope: Scope,
    resources: &mut Vec<Resource>,
) -> Option<String> {
    let mut problems = Vec::new();
    for File { name, text } in files {
        let contents = read::file(&name, text, &Options { namespace, scope });
        resources.extend(contents.resources);
        let own = contents.problems.iter();
        let own: Vec<String> =
            own.map(|(index, why)| format!("error processing {name}[{index}]: {why}")).collect();
        if !own.is_empty() {
            problems.push(format!("errors parsing content {name:?}: {}", several(&own)));
        }
    }
    (!problems.is_empty()).then(|| several(&problems))
}

/// Errors as Go's multierror tells them.
fn several(errors: &[String]) -> String {
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    format!("{} {plural} occurred:\n\t* {}\n\n", errors.len(), errors.join("\n\t* "))
}
