//! The archive: files as they come, in a tar that is compressed as it is written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};
use tempfile::NamedTempFile;

use crate::output;

/// Directory of all files in the archive.
const ROOT: &str = "bug-report";
/// Name of the archive.
const NAME: &str = "bug-report.tar.gz";
/// What is not secret may still be private.
const MODE: u32 = 0o600;

/// An archive that grows, in a file of a name that nobody knows before; it is gone with
/// the archive until that is whole.
pub(super) struct Archive {
    builder: Builder<GzEncoder<NamedTempFile>>,
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
        let dir = growing.unwrap_or_else(|| output::dir(path));
        fs::create_dir_all(dir)?;
        fs::create_dir_all(output::dir(path))?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let builder = Builder::new(GzEncoder::new(temporary(dir)?, Compression::default()));
        Ok(Self { builder, path: path.to_owned(), time })
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
    pub(super) fn finish(self) -> io::Result<()> {
        let file = self.builder.into_inner()?.finish()?;
        let Err(refused) = file.persist(&self.path) else { return Ok(()) };
        if refused.error.kind() != io::ErrorKind::CrossesDevices {
            return Err(refused.error);
        }
        // From another file system it is copied to its side first.
        let mut near = temporary(output::dir(&self.path))?;
        io::copy(&mut refused.file.reopen()?, &mut near)?;
        near.persist(&self.path)?;
        Ok(())
    }
}

/// A new file that only its owner reads.
fn temporary(dir: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(&format!(".{NAME}.")).tempfile_in(dir)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

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

    #[test]
    fn a_link_in_its_place_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "kept").unwrap();
        let path = path(Some(dir.path()));
        symlink(&victim, &path).unwrap();
        // The name of the file in which it grew before could be known.
        let known = dir.path().join(format!(".{NAME}.{}", std::process::id()));
        symlink(&victim, &known).unwrap();
        Archive::create(&path, None).unwrap().finish().unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "kept");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn an_archive_comes_from_another_file_system() {
        let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm"));
        // Where there is none, nothing is to be told.
        let Ok(far) = far else { return };
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        let path = path(Some(near.path()));
        let mut archive = Archive::create(&path, Some(far.path())).unwrap();
        archive.add("a", "text").unwrap();
        archive.finish().unwrap();
        assert!(device(&path) == device(near.path()) && fs::metadata(&path).unwrap().len() > 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(far.path()).unwrap().count(), 0);
    }
}
