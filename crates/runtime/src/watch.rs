//! Tells when something below a directory has changed, and which files are
//! being written; [`files`] watches single files.

pub mod files;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Directories below each other that are followed; a loop of links ends here.
const DEPTH: usize = 16;
/// Bytes for events; what does not fit comes with the next read.
const BUFFER: usize = 16 * 1024;
/// A file that nothing was written to for so long counts as finished, though
/// its writer has not closed it.
const ABANDONED: Duration = Duration::from_secs(30);

/// What is known of the writer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// No event has told: nothing was written, or before watching began.
    Unknown,
    /// It writes, and has not closed the file.
    Writing,
    /// It has closed the file, or put a finished one in its place.
    Done,
}

#[derive(Debug)]
struct State {
    writer: Writer,
    /// Counts events, so that two looks at a file can be compared.
    serial: u64,
    when: Instant,
}

/// Why a directory is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// It is the tree's, or below it.
    Inside(PathBuf),
    /// The tree is somewhere below the entry of that name, which may be moved
    /// away or, as a link, turned to something else.
    Above(Box<OsStr>),
}

/// Watches a directory and those below it, by their paths: a directory that is
/// moved away and put back, or a link that is turned, is followed.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    inotify: AsyncFd<Inotify>,
    watches: Watches,
    /// One directory may be there under several paths.
    roles: HashMap<WatchDescriptor, Vec<Role>>,
    files: HashMap<PathBuf, State>,
    serial: u64,
    /// Something has changed that [`Tree::changed`] has not told yet.
    has_news: bool,
    buffer: Vec<u8>,
}

impl Tree {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn new(root: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut watches = inotify.watches();
        watches.add(root, inside())?;
        let mut tree = Self {
            root: std::path::absolute(root)?,
            inotify: register(inotify)?,
            watches,
            roles: HashMap::new(),
            files: HashMap::new(),
            serial: 0,
            has_news: false,
            buffer: vec![0; BUFFER],
        };
        tree.refresh();
        Ok(tree)
    }

    /// Completes when something has been written, moved or removed. A file
    /// that is being written counts when its writer closes it.
    ///
    /// # Errors
    /// When the kernel tells nothing any more.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            self.drain()?;
            if std::mem::take(&mut self.has_news) {
                return Ok(());
            }
            self.inotify.readable().await?.clear_ready();
        }
    }

    /// Watches what is there now under the paths of the tree, then takes in the
    /// events so far; to be called before looking through the tree. A directory
    /// that cannot be watched is tried again next time.
    pub fn refresh(&mut self) {
        let mut roles = HashMap::new();
        let root = self.root.clone();
        let mut below = &*root;
        while let (Some(parent), Some(name)) = (below.parent(), below.file_name()) {
            self.add(parent, above(), Role::Above(name.into()), &mut roles);
            below = parent;
        }
        self.add_inside(&root, DEPTH, &mut roles);
        for (gone, _) in std::mem::replace(&mut self.roles, roles) {
            if !self.roles.contains_key(&gone) {
                // It is gone with its directory already, or else of no use.
                drop(self.watches.remove(gone));
            }
        }
        if let Err(error) = self.drain() {
            tracing::warn!(root = %self.root.display(), %error, "watch");
        }
        // What these events tell is about to be looked at.
        self.has_news = false;
    }

    fn add_inside(&mut self, dir: &Path, depth: usize, roles: &mut HashMap<WatchDescriptor, Vec<Role>>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if !self.add(dir, inside(), Role::Inside(dir.into()), roles) {
            return;
        }
        for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                self.add_inside(&path, depth, roles);
            }
        }
    }

    fn add(
        &mut self,
        dir: &Path,
        mask: WatchMask,
        role: Role,
        roles: &mut HashMap<WatchDescriptor, Vec<Role>>,
    ) -> bool {
        // With MASK_ADD, as a directory may have several roles.
        match self.watches.add(dir, mask | WatchMask::MASK_ADD | WatchMask::ONLYDIR) {
            Ok(watch) => {
                roles.entry(watch).or_default().push(role);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes in the events that are there. Each is a fact of the past when this
    /// returns: no write that a reader could have seen is missing.
    ///
    /// # Errors
    /// When the kernel tells nothing any more.
    pub fn drain(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            let events = match self.inotify.get_mut().read_events(&mut buffer) {
                Ok(events) => events,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            };
            let events: Vec<_> = events.map(|event| event.to_owned()).collect();
            for event in events {
                self.take(&event.wd, event.mask, event.name.as_deref());
            }
        };
        self.buffer = buffer;
        result
    }

    fn take(&mut self, watch: &WatchDescriptor, mask: EventMask, name: Option<&OsStr>) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            // The end of a write may be among what was lost.
            self.files.clear();
            self.has_news = true;
            return;
        }
        if mask.contains(EventMask::IGNORED) {
            return;
        }
        for role in self.roles.get(watch).cloned().unwrap_or_default() {
            match (role, name) {
                (Role::Above(below), name) => self.has_news |= name == Some(&*below) && is_entry(mask),
                (Role::Inside(dir), Some(name)) if !mask.contains(EventMask::ISDIR) => {
                    self.file(&dir.join(name), mask);
                }
                (Role::Inside(_), _) => self.has_news = true,
            }
        }
    }

    fn file(&mut self, path: &Path, mask: EventMask) {
        self.serial += 1;
        let mut set = |writer| {
            let state = State { writer, serial: self.serial, when: Instant::now() };
            self.files.insert(path.into(), state);
        };
        if mask.contains(EventMask::MODIFY) {
            return set(Writer::Writing);
        }
        if mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) {
            set(Writer::Done);
        } else if mask.intersects(EventMask::MOVED_FROM | EventMask::DELETE) {
            self.files.remove(path);
        }
        self.has_news = true;
    }

    /// What is known of the writer of a file, and a number that is another one
    /// after each of its writes.
    #[must_use]
    pub fn writer(&self, path: &Path) -> (Writer, u64) {
        let Some(state) = self.files.get(path) else { return (Writer::Unknown, 0) };
        let is_abandoned = state.writer == Writer::Writing && state.when.elapsed() >= ABANDONED;
        (if is_abandoned { Writer::Unknown } else { state.writer }, state.serial)
    }

    /// Forgets the files that are finished; to be called when they have been read.
    pub fn forget_finished(&mut self) {
        self.files.retain(|_, state| state.writer == Writer::Writing && state.when.elapsed() < ABANDONED);
    }
}

#[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays open")]
fn register(inotify: Inotify) -> io::Result<AsyncFd<Inotify>> {
    // SAFETY: `Inotify` owns its descriptor; it is neither closed nor replaced
    // before the `AsyncFd` that holds it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?)
}

fn inside() -> WatchMask {
    above()
        | WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
}

fn above() -> WatchMask {
    WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE
}

/// Whether an entry of a directory became another one.
fn is_entry(mask: EventMask) -> bool {
    mask.intersects(EventMask::CREATE | EventMask::MOVED_TO | EventMask::MOVED_FROM | EventMask::DELETE)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    /// Waits for a change, as a reader does, and makes ready for the next.
    async fn next(tree: &mut Tree) {
        tokio::time::timeout(Duration::from_secs(5), tree.changed()).await.unwrap().unwrap();
        tree.refresh();
    }

    #[tokio::test]
    async fn sees_writes_in_old_and_new_directories() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        next(&mut tree).await;
        fs::create_dir(dir.path().join("sub")).unwrap();
        next(&mut tree).await;
        fs::write(dir.path().join("sub/b"), "1").unwrap();
        next(&mut tree).await;
    }

    #[tokio::test]
    async fn follows_the_path_when_the_directory_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (root, old) = (dir.path().join("cfg"), dir.path().join("old"));
        fs::create_dir_all(root.join("sub")).unwrap();
        let mut tree = Tree::new(&root).unwrap();
        fs::rename(&root, &old).unwrap();
        next(&mut tree).await;
        fs::create_dir_all(root.join("sub")).unwrap();
        next(&mut tree).await;
        fs::write(root.join("sub/a"), "1").unwrap();
        next(&mut tree).await;
        // What lies elsewhere now does not count.
        fs::write(old.join("sub/a"), "1").unwrap();
        tree.drain().unwrap();
        assert!(!tree.has_news);
        fs::remove_dir_all(&root).unwrap();
        next(&mut tree).await;
        fs::rename(&old, &root).unwrap();
        next(&mut tree).await;
        fs::write(root.join("a"), "1").unwrap();
        next(&mut tree).await;
    }

    #[tokio::test]
    async fn follows_links_that_are_turned() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one/cfg", "two/cfg"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let turn = |to: &str| {
            std::os::unix::fs::symlink(to, dir.path().join("draft")).unwrap();
            fs::rename(dir.path().join("draft"), dir.path().join("now")).unwrap();
        };
        turn("one");
        let mut tree = Tree::new(&dir.path().join("now/cfg")).unwrap();
        turn("two");
        next(&mut tree).await;
        fs::write(dir.path().join("two/cfg/a"), "1").unwrap();
        next(&mut tree).await;
        // Entries beside the way to the tree are nobody's concern.
        fs::write(dir.path().join("other"), "1").unwrap();
        tree.drain().unwrap();
        assert!(!tree.has_news);
    }

    #[tokio::test]
    async fn knows_which_files_are_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut tree = Tree::new(dir.path()).unwrap();
        assert_eq!(tree.writer(&path), (Writer::Unknown, 0));
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1").unwrap();
        tree.refresh();
        let (writer, before) = tree.writer(&path);
        assert_eq!(writer, Writer::Writing);
        file.write_all(b"2").unwrap();
        drop(file);
        next(&mut tree).await;
        let (writer, after) = tree.writer(&path);
        assert!(writer == Writer::Done && after != before);
        tree.forget_finished();
        assert_eq!(tree.writer(&path).0, Writer::Unknown);
    }
}
