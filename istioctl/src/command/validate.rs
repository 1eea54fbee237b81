//! `validate`: the same checks as istiod's, before anything is applied.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context as _;
use config::{Severity, yaml};
use source::file;

use crate::args::validate::Validate;
use crate::failure::Result;

/// Checks the files, and tells on standard error what is wrong with them.
///
/// # Errors
/// When a file cannot be read or is not valid; all others are checked before.
pub fn run(args: &Validate) -> Result {
    if args.files.is_empty() {
        return Err(anyhow::anyhow!("filename not specified (see --filename or -f)").into());
    }
    let mut errors = Vec::new();
    for path in &args.files {
        for file in files(path)? {
            let name = file.display().to_string();
            let text = match read(&file, file == *path) {
                Ok(text) => text,
                Err(error) => {
                    errors.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let contents = yaml::read(&name, &text);
            let has_errors = contents.has_errors();
            let mut warnings = String::new();
            for problem in contents.problems {
                match problem.severity {
                    Severity::Error => errors.push(problem.to_string()),
                    Severity::Warning => warnings += &format!("\t* {problem}\n"),
                }
            }
            if !warnings.is_empty() {
                eprintln!("{name:?} has warnings: \n{warnings}");
            } else if !has_errors {
                eprintln!("{name:?} is valid");
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    let errors_text = errors.join("\n\t* ");
    Err(anyhow::anyhow!("{} {plural} occurred:\n\t* {errors_text}\n", errors.len()).into())
}

/// What the user named may be a pipe; what lies in a directory is a file.
fn read(file: &Path, is_named: bool) -> std::result::Result<String, file::Error> {
    if file == Path::new("-") {
        file::text(io::stdin())
    } else if is_named {
        file::read_named(file)
    } else {
        file::read(file).map(|(text, _)| text)
    }
}

/// A file itself, or the YAML and JSON files below a directory.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
