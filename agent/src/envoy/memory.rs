//! Whether the kernel has killed for want of memory, as the control group of
//! the container tells. A SIGKILL alone may come from anybody.

use std::fs;
use std::path::{Path, PathBuf};

/// Which control groups this process is in.
const OWN: &str = "/proc/self/cgroup";
/// Where they are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// The counter of kills, and what it showed at the start.
#[derive(Debug)]
pub(super) struct Kills {
    file: PathBuf,
    before: u64,
}

impl Kills {
    /// Looks now; `None` when the system does not tell.
    #[must_use]
    pub(super) fn now() -> Option<Self> {
        files(&fs::read_to_string(OWN).ok()?, Path::new(ROOT)).into_iter().find_map(|file| {
            let before = count(&file)?;
            Some(Self { file, before })
        })
    }

    /// Whether the kernel has killed since then.
    #[must_use]
    pub(super) fn are_more(&self) -> bool {
        count(&self.file).is_some_and(|now| now > self.before)
    }
}

/// The files that may hold the counter, the most likely one first. In a
/// container its own group is mostly mounted as the root.
fn files(own: &str, root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, name) = match controllers {
            "" => (root.to_owned(), "memory.events"),
            list if list.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.oom_control"),
            _ => continue,
        };
        found.push(base.join(path.trim_start_matches('/')).join(name));
        found.push(base.join(name));
    }
    found
}

/// `oom_kill N` of the file, which both versions of control groups have.
fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_counter_of_either_version() {
        let root = Path::new("/c");
        let names = |own: &str| {
            files(own, root).into_iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("0::/a/b\n"), ["/c/a/b/memory.events", "/c/memory.events"]);
        assert_eq!(names("0::/\n"), ["/c/memory.events", "/c/memory.events"]);
        let first = "12:cpu,cpuacct:/x\n5:memory:/pod:1/y\n";
        assert_eq!(names(first), ["/c/memory/pod:1/y/memory.oom_control", "/c/memory/memory.oom_control"]);
        assert!(names("nonsense\n").is_empty());
    }

    #[test]
    fn counts_kills_since_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        fs::write(&file, "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n").unwrap();
        let kills = Kills { before: count(&file).unwrap(), file };
        assert!(!kills.are_more());
        fs::write(&kills.file, "oom 2\noom_kill 2\n").unwrap();
        assert!(kills.are_more());
        fs::remove_file(&kills.file).unwrap();
        assert!(!kills.are_more());
    }
}
