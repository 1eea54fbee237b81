//! The files that are looked at.

use std::fs;
use std::io::{self, BufReader, IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use analysis::read::{self, Options, Parts};
use analysis::{Resource, Scope};
use anyhow::Context as _;

use crate::failure::Result;

const ENDS: [&str; 3] = ["json", "yaml", "yml"];

/// A file that is to be read.
pub(super) struct File {
    /// What the user calls it.
    pub(super) name: Arc<str>,
    content: Content,
}

enum Content {
    Text(String),
    /// A regular file, that is read when it is its turn; whether it begins as JSON does.
    /// All their texts would need more memory than their objects.
    Path(PathBuf, bool),
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
            let content = Content::Text(source::file::text(io::stdin())?);
            all.push(File { name: name.as_str().into(), content });
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
    for entry in fs::read_dir(path).with_context(name)? {
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
    let content = match begins_as_json(path).with_context(|| name.clone())? {
        Some(is_json) => Content::Path(path.to_owned(), is_json),
        None => Content::Text(source::file::read_named(path).with_context(|| name.clone())?),
    };
    all.push(File { name: name.into(), content });
    Ok(())
}

/// Whether a file begins as JSON does; `None` if it cannot be read twice, or is too long.
fn begins_as_json(path: &Path) -> io::Result<Option<bool>> {
    let about = fs::metadata(path)?;
    if !about.is_file() || about.len() > config::yaml::MAX_FILE as u64 {
        return Ok(None);
    }
    for byte in BufReader::new(fs::File::open(path)?).bytes() {
        let byte = byte?;
        if !byte.is_ascii_whitespace() {
            return Ok(Some(byte == b'{'));
        }
    }
    Ok(Some(false))
}

fn contents(file: File, parts: &Parts, options: &Options<'_>) -> anyhow::Result<read::Contents> {
    let name = file.name;
    let (path, is_json) = match file.content {
        Content::Text(text) => return Ok(read::file(name, text, options)),
        Content::Path(path, is_json) => (path, is_json),
    };
    if is_json {
        // An object after the other, without the text of all.
        let file = fs::File::open(&path).with_context(|| name.to_string())?;
        let most = config::yaml::MAX_FILE as u64;
        if let Some(contents) = read::json(name.clone(), BufReader::new(file.take(most)), options) {
            return Ok(contents);
        }
    }
    let text = source::file::read_named(&path).with_context(|| name.to_string())?;
    Ok(read::again(name, &text, parts, options))
}

/// A part of a file.
fn part(path: &Path, range: Range<usize>) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(range.start as u64))?;
    let mut text = String::new();
    file.take(range.len() as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the objects of files; what could not be understood is the answer.
pub(super) fn read(
    files: Vec<File>,
    namespace: &str,
    scope: Scope,
    resources: &mut Vec<Resource>,
) -> Result<Option<String>> {
    let parts = Parts::new(|name, range| part(Path::new(name), range).ok());
    let mut problems = Vec::new();
    for file in files {
        let name = file.name.clone();
        let mut contents = contents(file, &parts, &Options { namespace, scope })?;
        if resources.is_empty() {
            std::mem::swap(resources, &mut contents.resources);
        }
        resources.append(&mut contents.resources);
        let own = contents.problems.iter();
        let own: Vec<String> =
            own.map(|(index, why)| format!("error processing {name}[{index}]: {why}")).collect();
        if !own.is_empty() {
            problems.push(format!("errors parsing content {name:?}: {}", several(&own)));
        }
    }
    Ok((!problems.is_empty()).then(|| several(&problems)))
}

/// Errors as Go's multierror tells them.
fn several(errors: &[String]) -> String {
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    format!("{} {plural} occurred:\n\t* {}\n\n", errors.len(), errors.join("\n\t* "))
}
