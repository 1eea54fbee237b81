//! Which files a directory has.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Directories below each other that are read; a loop of links ends here.
const DEPTH: usize = 16;

/// What identifies a directory, whatever it is called.
type Id = (u64, u64);

/// What was found below a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// YAML and JSON files by name.
    pub(super) files: Vec<PathBuf>,
    /// Directories that were read.
    pub(super) dirs: BTreeMap<PathBuf, Id>,
    /// Directories that could not be read: nobody knows what is below them.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
}

impl Listing {
    pub(super) fn of(root: &Path) -> Self {
        let mut listing = Self::default();
        listing.add(root, DEPTH);
        listing.files.sort();
        listing
    }

    /// Whether the path is below a directory that could not be read.
    pub(super) fn is_hidden(&self, path: &Path) -> bool {
        self.unreadable.iter().any(|(dir, _)| path.starts_with(dir))
    }

    fn add(&mut self, dir: &Path, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Err(error) = self.entries(dir, depth) {
            self.unreadable.push((dir.into(), error));
        }
    }

    /// All files but hidden ones and those of editors.
    fn entries(&mut self, dir: &Path, depth: usize) -> io::Result<()> {
        let metadata = fs::metadata(dir)?;
        // Gathered first: a directory that fails half-way is not known at all.
        let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        self.dirs.insert(dir.into(), (metadata.dev(), metadata.ino()));
        for path in entries.into_iter().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(['.', '#']) || name.ends_with('~') {
                continue;
            }
            let is_ours = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.add(&path, depth),
                // What a file of ours is, reading tells.
                _ if is_ours => self.files.push(path),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It may be a directory.
                Err(error) => self.unreadable.push((path, error)),
            }
        }
        Ok(())
    }
}
