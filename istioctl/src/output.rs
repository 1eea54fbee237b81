//! Files that are written as a whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

/// Rights of a file that is anybody's, before those that the user does not want.
const ANYBODY: u32 = 0o666;

/// The directory of a file.
pub(crate) fn dir(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file where the user says; what is there keeps its rights, and may also be
/// a link, a pipe or a device.
///
/// # Errors
/// When it cannot be written; then it is as it was.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Ok(found) = fs::metadata(path) else {
        let permissions = Permissions::from_mode(ANYBODY);
        let file = Builder::new().prefix(".istioctl.").permissions(permissions).tempfile_in(dir(path))?;
        return put(file, path, bytes);
    };
    if !found.is_file() {
        return fs::write(path, bytes);
    }
    let path = fs::canonicalize(path)?;
    let file = Builder::new().prefix(".istioctl.").tempfile_in(dir(&path))?;
    file.as_file().set_permissions(found.permissions())?;
    put(file, &path, bytes)
}

/// Writes a file that has certain rights from its begin on, and follows no link.
///
/// # Errors
/// When it cannot be written; then it is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = Builder::new().prefix(".istioctl.").tempfile_in(dir(path))?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    put(file, path, bytes)
}

fn put(mut file: NamedTempFile, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_written_through_links_and_keeps_its_rights() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("link"));
        write(&path, b"1").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        write(&link, b"2").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"2".to_vec(), 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // What is no file is written to.
        write(Path::new("/dev/null"), b"3").unwrap();
        // Nothing but the two is left.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_private_file_goes_to_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let (other, link) = (dir.path().join("other"), dir.path().join("link"));
        fs::write(&other, "kept").unwrap();
        symlink(&other, &link).unwrap();
        replace(&link, b"key", 0o600).unwrap();
        assert_eq!(
            (fs::read(&other).unwrap(), fs::read(&link).unwrap()),
            (b"kept".to_vec(), b"key".to_vec())
        );
        assert_eq!(mode(&link), 0o600);
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_replaced_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(replace(&dir.path().join("a"), b"1", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
