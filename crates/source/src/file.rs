//! Reads files that may be anything: never waits for a writer, and never takes
//! more than a file may have.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use config::yaml::MAX_FILE;
use nix::fcntl::OFlag;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system says so.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a directory, a pipe, a device or a socket.
    #[error("is not a regular file: put a file there, or remove it")]
    NotRegular,
    /// It is too long.
    #[error("has more than the {MAX_FILE} bytes allowed: split it")]
    TooLong,
    /// It is no text.
    #[error("is not text: line {line} has bytes that are not UTF-8: save it as UTF-8")]
    NotText {
        /// Where.
        line: usize,
    },
}

/// The text of a regular file and what the file was when it was opened.
///
/// # Errors
/// When it is anything but a regular file of text.
pub fn read(path: &Path) -> Result<(String, Metadata), Error> {
    // Without O_NONBLOCK, opening a pipe waits for its writer.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::NotRegular);
    }
    Ok((text(file)?, metadata))
}

/// The text that a reader gives, standard input perhaps.
///
/// # Errors
/// When it is too long or no text.
pub fn text(reader: impl Read) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        return Err(Error::TooLong);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Error::NotText { line: good.iter().filter(|byte| **byte == b'\n').count() + 1 }
    })
}

/// Opens what a user named, which may be a pipe.
///
/// # Errors
/// As [`text`].
pub fn read_named(path: &Path) -> Result<String, Error> {
    text(File::open(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_regular_files_of_text_only() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("good"), "a: 1\n").unwrap();
        assert_eq!(read(&at("good")).unwrap().0, "a: 1\n");
        std::fs::write(at("binary"), b"a: 1\nb: \xff\n").unwrap();
        let error = read(&at("binary")).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(read(&at("pipe")), Err(Error::NotRegular)));
        std::os::unix::fs::symlink("/dev/zero", at("zero")).unwrap();
        assert!(matches!(read(&at("zero")), Err(Error::NotRegular)));
        assert!(matches!(read_named(&at("zero")), Err(Error::TooLong)));
        assert!(matches!(read(dir.path()), Err(Error::NotRegular)));
        assert!(matches!(read(&at("none")), Err(Error::Io(_))));
    }
}
