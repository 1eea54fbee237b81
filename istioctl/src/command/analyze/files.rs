//! The files that are looked at.

use std::fs;
use std::io::{self, BufReader, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use analysis::read::{self, Options};
use analysis::{Resource, Scope};
use anyhow::Context as _;

use crate::failure::Result;

const ENDS: [&str; 3] = ["json", "yaml", "yml"];

/// A file that is to be read.
pub(super) struct File {
    /// What the user calls it.
    pub(super) name: String,
    content: Content,
}

enum Content {
    Text(String),
    /// What begins as JSON does: it is read when it is its turn, an object after the
    /// other. Its text would need more memory than its objects.
    Json(PathBuf),
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
            all.push(File { name: name.clone(), content });
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
    let content = if is_json(path).with_context(|| name.clone())? {
        Content::Json(path.to_owned())
    } else {
        Content::Text(source::file::read_named(path).with_context(|| name.clone())?)
    };
    all.push(File { name, content });
    Ok(())
}

/// Whether a file can be read twice, is not too long, and begins as JSON does.
fn is_json(path: &Path) -> io::Result<bool> {
    let about = fs::metadata(path)?;
    if !about.is_file() || about.len() > config::yaml::MAX_FILE as u64 {
        return Ok(false);
    }
    for byte in BufReader::new(fs::File::open(path)?).bytes() {
        let byte = byte?;
        if !byte.is_ascii_whitespace() {
            return Ok(byte == b'{');
        }
    }
    Ok(false)
}

fn contents(name: &str, content: Content, options: &Options<'_>) -> anyhow::Result<read::Contents> {
    let text = match content {
        Content::Text(text) => text,
        Content::Json(path) => {
            let file = fs::File::open(&path).with_context(|| name.to_owned())?;
            let most = config::yaml::MAX_FILE as u64;
            if let Some(contents) = read::json(name, BufReader::new(file.take(most)), options) {
                return Ok(contents);
            }
            source::file::read_named(&path).with_context(|| name.to_owned())?
        }
    };
    Ok(read::file(name, text, options))
}

/// Reads the objects of files; what could not be understood is the answer.
pub(super) fn read(
    files: Vec<File>,
    namespace: &str,
    scope: Scope,
    resources: &mut Vec<Resource>,
) -> Result<Option<String>> {
    let mut problems = Vec::new();
    for File { name, content } in files {
        let contents = contents(&name, content, &Options { namespace, scope })?;
        resources.extend(contents.resources);
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
