//! The archive: files as they come, in a tar that is compressed as it is written.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

/// Directory of all files in the archive.
const ROOT: &str = "bug-report";
/// Name of the archive.
const NAME: &str = "bug-report.tar.gz";
/// What is not secret may still be private.
const MODE: u32 = 0o600;

/// An archive that grows.
pub(super) struct Archive {
    builder: Builder<GzEncoder<File>>,
    /// Where it grows.
    partial: PathBuf,
    /// Where it goes when it is whole.
    path: PathBuf,
    time: u64,
}

/// Where the archive goes.
pub(super) fn path(dir: Option<&Path>) -> PathBuf {
    dir.unwrap_or(Path::new(".")).join(NAME)
}

impl Archive {
    /// Begins it, in a directory of its own if one is given.
    ///
    /// # Errors
    /// When a directory cannot be written.
    pub(super) fn create(path: &Path, growing: Option<&Path>) -> io::Result<Self> {
        let dir = growing.or_else(|| path.parent()).unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let partial = dir.join(format!(".{NAME}.{}", std::process::id()));
        let file = File::options().write(true).create(true).truncate(true).mode(MODE).open(&partial)?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let builder = Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self { builder, partial, path: path.to_owned(), time })
    }

    /// Adds a file; one that says nothing is left out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(self.time);
        self.builder.append_data(&mut header, format!("{ROOT}/{name}"), text.as_bytes())
    }

    /// Ends it; it is at its place then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.builder.finish()?;
        self.builder.get_mut().try_finish()?;
        if fs::rename(&self.partial, &self.path).is_err() {
            // Another file system.
            fs::copy(&self.partial, &self.path)?;
            fs::remove_file(&self.partial)?;
        }
        Ok(())
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // What was not ended is of no use; what was is no longer there.
        drop(fs::remove_file(&self.partial));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn an_archive_holds_what_was_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(Some(&dir.path().join("new")));
        let mut archive = Archive::create(&path, None).unwrap();
        archive.add("istio/a/b/log", "text").unwrap();
        archive.add("empty", " \n").unwrap();
        archive.finish().unwrap();
        let mut found = Vec::new();
        let mut read = tar::Archive::new(GzDecoder::new(File::open(&path).unwrap()));
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            found.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(found, [("bug-report/istio/a/b/log".to_owned(), "text".to_owned())]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        // Nothing is left of one that was given up.
        let other = tempfile::tempdir().unwrap();
        drop(Archive::create(&path, Some(other.path())).unwrap());
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }
}
