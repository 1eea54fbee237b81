//! An archive of `istioctl bug-report`, as tests look into it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use flate2::read::GzDecoder;

/// Directory of all its files.
const ROOT: &str = "bug-report/";

/// Its files by their paths.
///
/// # Errors
/// When it is no archive.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(file)).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).with_context(|| name.clone())?;
        let name = name.strip_prefix(ROOT).with_context(|| format!("{name} is not in {ROOT}"))?;
        files.insert(name.to_owned(), text);
    }
    ensure!(!files.is_empty(), "an empty archive");
    Ok(files)
}

/// Fails if one of some texts is in a file.
///
/// # Errors
/// When it is; where is told.
pub fn lacks(files: &BTreeMap<String, String>, secrets: &[&str]) -> anyhow::Result<()> {
    for (name, text) in files {
        for (index, secret) in secrets.iter().enumerate() {
            ensure!(!text.contains(secret), "{name} has secret {index}");
        }
    }
    Ok(())
}
