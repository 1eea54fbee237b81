//! Where log lines go.

use std::fs::File;
use std::io::{self, Write as _};

/// A log file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--log_target {path}: {source}")]
pub struct Error {
    path: String,
    source: io::Error,
}

/// Standard output, standard error, files; standard output alone by default.
#[derive(Debug)]
pub struct Targets(Vec<Target>);

#[derive(Debug)]
enum Target {
    Stdout,
    Stderr,
    File(File),
}

impl Default for Targets {
    fn default() -> Self {
        Self(vec![Target::Stdout])
    }
}

impl Targets {
    /// Opens what is named: `stdout`, `stderr`, or files, to which is appended.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn open(names: &[String]) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let open = |name: &String| match name.as_str() {
            "stdout" => Ok(Target::Stdout),
            "stderr" => Ok(Target::Stderr),
            path => {
                let path = path.strip_prefix("file://").unwrap_or(path);
                let file = File::options().append(true).create(true).open(path);
                file.map(Target::File).map_err(|source| Error { path: path.into(), source })
            }
        };
        names.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Writes a line to all of them. Nobody is left to be told when one is gone.
    pub(super) fn write(&self, line: &[u8]) {
        for target in &self.0 {
            drop(match target {
                Target::Stdout => io::stdout().lock().write_all(line),
                Target::Stderr => io::stderr().lock().write_all(line),
                Target::File(file) => (&*file).write_all(line),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_to_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").to_string_lossy().into_owned();
        for line in ["a\n", "b\n"] {
            Targets::open(&[path.clone(), format!("file://{path}")]).unwrap().write(line.as_bytes());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\na\nb\nb\n");
        let error = Targets::open(&["/nowhere/log".into()]).unwrap_err().to_string();
        assert!(error.starts_with("--log_target /nowhere/log: "), "{error}");
    }
}
