//! Tells when single files change, wherever the links on the way to them lead:
//! written in place, replaced, removed, made, or swapped as the kubelet does,
//! by turning the link `..data`.
//!
//! All readers of a program share one descriptor, for a user may have few of
//! them: often 128 for all the pods of a node together. Where the kernel gives
//! none, or cannot watch a directory, the files are looked at once a second.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use super::register;
use crate::tasks::Tasks;

/// Links that are followed on the way to a file, as many as the kernel does.
const MAX_LINKS: usize = 40;
/// Between two looks at files that the kernel tells nothing of.
const POLL: Duration = Duration::from_secs(1);
/// Bytes for events; what does not fit comes with the next read.
const BUFFER: usize = 4096;

/// A watcher of files; clones are the same one.
#[derive(Clone, Debug)]
pub struct Files(Arc<Shared>);

/// Tells of changes of some files, as long as it is kept.
#[derive(Debug)]
pub struct Changes {
    files: Files,
    id: u64,
    notify: Arc<Notify>,
}

type OnFailure = dyn Fn(&Path, &io::Error) + Send + Sync;

struct Shared {
    state: Mutex<State>,
    /// Some files have begun to be looked at.
    polls: Notify,
    on_failure: Box<OnFailure>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    watches: Option<Watches>,
    entries: HashMap<u64, Entry>,
    next: u64,
    names: Names,
}

/// Whom a change of a directory's entry concerns.
type Names = HashMap<WatchDescriptor, HashMap<OsString, BTreeSet<u64>>>;

#[derive(Debug)]
struct Entry {
    paths: Vec<PathBuf>,
    notify: Arc<Notify>,
    /// What the files looked like, where the kernel does not tell.
    polled: Option<Vec<Look>>,
}

/// What is seen of a file without reading it.
type Look = Option<(u64, u64, u64, [i64; 4])>;

impl Files {
    /// Begins; nothing is watched yet. `on_failure` is told of every path that
    /// has to be looked at because the kernel does not watch it.
    pub fn start(tasks: &Tasks, on_failure: impl Fn(&Path, &io::Error) + Send + Sync + 'static) -> Self {
        let (watches, inotify) = match Inotify::init().and_then(|inotify| {
            let watches = inotify.watches();
            Ok((watches, register(inotify)?))
        }) {
            Ok((watches, inotify)) => (Some(watches), Some(inotify)),
            Err(error) => {
                on_failure(Path::new("/"), &error);
                (None, None)
            }
        };
        let state = Mutex::new(State { watches, ..State::default() });
        let shared = Arc::new(Shared { state, polls: Notify::new(), on_failure: Box::new(on_failure) });
        drop(tasks.spawn("file-watch", run(shared.clone(), inotify)));
        Self(shared)
    }

    /// Watches files from now on: what is read after this returns is either the
    /// newest, or there will be a change. They need not be there.
    #[must_use]
    pub fn watch<P: AsRef<Path>>(&self, paths: &[P]) -> Changes {
        let paths = paths.iter().map(|path| {
            let path = path.as_ref();
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
        });
        let notify = Arc::new(Notify::new());
        let mut state = self.0.state();
        let id = state.next;
        state.next += 1;
        let entry = Entry { paths: paths.collect(), notify: notify.clone(), polled: None };
        state.entries.insert(id, entry);
        self.0.refresh(&mut state);
        Changes { files: self.clone(), id, notify }
    }
}

impl Changes {
    /// Completes when something may have changed. May be dropped and called
    /// again: no change is missed.
    pub async fn changed(&mut self) {
        self.notify.notified().await;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut state = self.files.0.state();
        state.entries.remove(&self.id);
        self.files.0.refresh(&mut state);
    }
}

/// Hands out what the kernel tells, until the tasks are stopped.
async fn run(shared: Arc<Shared>, mut inotify: Option<AsyncFd<Inotify>>) {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; BUFFER];
    loop {
        let polls = shared.state().entries.values().any(|entry| entry.polled.is_some());
        tokio::select! {
            Some(ready) = readable(&mut inotify) => {
                let events = ready.map(|inotify| drain(inotify, &mut buffer)).and_then(|events| events);
                match events {
                    Ok(events) => shared.take(events),
                    Err(error) => {
                        // Nothing is told any more: everything is looked at from now on.
                        inotify = None;
                        (shared.on_failure)(Path::new("/"), &error);
                        let mut state = shared.state();
                        state.watches = None;
                        shared.refresh(&mut state);
                        state.entries.values().for_each(|entry| entry.notify.notify_one());
                    }
                }
            }
            () = shared.polls.notified() => {}
            _ = ticks.tick(), if polls => shared.look(),
        }
    }
}

async fn readable(inotify: &mut Option<AsyncFd<Inotify>>) -> Option<io::Result<&mut Inotify>> {
    match inotify {
        Some(inotify) => {
            match inotify.readable_mut().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => return Some(Err(error)),
            }
            Some(Ok(inotify.get_mut()))
        }
        None => std::future::pending().await,
    }
}

type Event = (WatchDescriptor, EventMask, Option<OsString>);

fn drain(inotify: &mut Inotify, buffer: &mut [u8]) -> io::Result<Vec<Event>> {
    let mut all = Vec::new();
    loop {
        match inotify.read_events(buffer) {
            Ok(events) => {
                all.extend(events.map(|event| (event.wd, event.mask, event.name.map(OsStr::to_owned))));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(all),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those whom the events concern.
    fn take(&self, events: Vec<Event>) {
        let mut state = self.state();
        let mut concerned = BTreeSet::new();
        for (watch, mask, name) in events {
            if mask.contains(EventMask::Q_OVERFLOW) {
                concerned.extend(state.entries.keys().copied());
            }
            let Some(names) = state.names.get(&watch) else { continue };
            match name {
                Some(name) => concerned.extend(names.get(&name).into_iter().flatten()),
                // The directory itself is gone.
                None => concerned.extend(names.values().flatten()),
            }
        }
        if concerned.is_empty() {
            return;
        }
        self.refresh(&mut state);
        for entry in concerned.iter().filter_map(|id| state.entries.get(id)) {
            entry.notify.notify_one();
        }
    }

    /// Looks at the files that the kernel does not tell of.
    fn look(&self) {
        for entry in self.state().entries.values_mut() {
            let Some(before) = &mut entry.polled else { continue };
            let now = look(&entry.paths);
            if *before != now {
                *before = now;
                entry.notify.notify_one();
            }
        }
    }

    /// Watches the ways that lead to the files now, and no others.
    fn refresh(&self, state: &mut State) {
        let State { watches, entries, names, .. } = state;
        let mut now = Names::new();
        for (id, entry) in entries {
            let mut failure = None;
            match watches {
                Some(watches) => {
                    for path in &entry.paths {
                        let failed = follow(path, *id, watches, &mut now);
                        failure = failure.or(failed.map(|error| (path, error)));
                    }
                    if failure.is_none() {
                        entry.polled = None;
                        continue;
                    }
                }
                None if entry.polled.is_some() => continue,
                None => {}
            }
            if entry.polled.is_none() {
                if let Some((path, error)) = failure {
                    (self.on_failure)(path, &error);
                }
                entry.polled = Some(look(&entry.paths));
                self.polls.notify_one();
            }
        }
        for (gone, _) in std::mem::replace(names, now) {
            if !names.contains_key(&gone)
                && let Some(watches) = watches
            {
                // It may be gone with its directory already.
                drop(watches.remove(gone));
            }
        }
    }
}

/// Watches every directory on the way to a file; returns why one cannot be.
fn follow(path: &Path, id: u64, watches: &mut Watches, names: &mut Names) -> Option<io::Error> {
    let mut rest: VecDeque<OsString> = parts(path).collect();
    let mut dir = PathBuf::from("/");
    let (mut links, mut failure) = (0, None);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            dir.pop();
            continue;
        }
        match watches.add(&dir, mask()) {
            Ok(watch) => {
                names.entry(watch).or_default().entry(name.clone()).or_default().insert(id);
            }
            // It went away meanwhile, which is an event of the directory above.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return failure;
            }
            Err(error) => failure = failure.or(Some(error)),
        }
        // Looked at after the watch is there, so that no change falls between.
        let next = dir.join(&name);
        let is_link = fs::symlink_metadata(&next).map(|metadata| metadata.is_symlink());
        match is_link {
            Err(_) => return failure,
            Ok(false) => dir = next,
            Ok(true) => {
                links += 1;
                let Ok(target) = fs::read_link(&next) else { return failure };
                if links > MAX_LINKS {
                    return failure;
                }
                if target.is_absolute() {
                    dir = PathBuf::from("/");
                }
                for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                    rest.push_front(part);
                }
            }
        }
    }
    failure
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::ONLYDIR
}

fn look(paths: &[PathBuf]) -> Vec<Look> {
    let look = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        Some((found.dev(), found.ino(), found.len(), times))
    };
    paths.iter().map(look).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn told(changes: &mut Changes) {
        timeout(PATIENCE, changes.changed()).await.unwrap();
    }

    /// Nothing that has happened so far is told any more.
    async fn quiet(changes: &mut Changes) {
        while timeout(Duration::from_millis(50), changes.changed()).await.is_ok() {}
    }

    fn start(tasks: &Tasks) -> Files {
        Files::start(tasks, |path, error| panic!("{}: {error}", path.display()))
    }

    #[tokio::test]
    async fn tells_of_writing_replacing_removing_and_making() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let path = dir.path().join("sub/a.pem");
        let files = start(&tasks);
        let mut changes = files.watch(&[&path]);
        fs::create_dir(dir.path().join("sub")).unwrap();
        told(&mut changes).await;
        fs::write(&path, "1").unwrap();
        told(&mut changes).await;
        quiet(&mut changes).await;
        fs::write(&path, "2").unwrap();
        told(&mut changes).await;
        quiet(&mut changes).await;
        fs::write(dir.path().join("sub/new"), "3").unwrap();
        fs::rename(dir.path().join("sub/new"), &path).unwrap();
        told(&mut changes).await;
        quiet(&mut changes).await;
        fs::remove_dir_all(dir.path().join("sub")).unwrap();
        told(&mut changes).await;
        quiet(&mut changes).await;
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(&path, "4").unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn follows_the_kubelets_swap_and_ignores_what_lies_beside() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let at = |name: &str| dir.path().join(name);
        for version in ["..one", "..two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.pem"), version).unwrap();
        }
        symlink("..one", at("..data")).unwrap();
        symlink("..data/a.pem", at("a.pem")).unwrap();
        let files = start(&tasks);
        let mut changes = files.watch(&[at("a.pem")]);
        fs::write(at("b.pem"), "").unwrap();
        fs::write(at("..two/b.pem"), "").unwrap();
        assert!(timeout(Duration::from_millis(100), changes.changed()).await.is_err());
        symlink("..two", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        told(&mut changes).await;
        quiet(&mut changes).await;
        fs::remove_dir_all(at("..one")).unwrap();
        assert!(timeout(Duration::from_millis(100), changes.changed()).await.is_err());
        fs::write(at("..two/a.pem"), "3").unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn every_reader_hears_of_its_own_files_only() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let files = start(&tasks);
        let (mut of_a, mut of_both) = (files.watch(&[&a]), files.watch(&[&a, &b]));
        fs::write(&b, "1").unwrap();
        told(&mut of_both).await;
        assert!(timeout(Duration::from_millis(100), of_a.changed()).await.is_err());
        drop(of_both);
        fs::write(&a, "1").unwrap();
        told(&mut of_a).await;
        drop(of_a);
        assert!(files.0.state().names.is_empty(), "nobody reads any more");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_itself_where_the_kernel_does_not_tell() {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let path = dir.path().join("a");
        let files = start(&tasks);
        files.0.state().watches = None;
        let mut changes = files.watch(&[&path]);
        fs::write(&path, "1").unwrap();
        told(&mut changes).await;
        fs::write(&path, "22").unwrap();
        told(&mut changes).await;
        assert!(timeout(3 * POLL, changes.changed()).await.is_err());
    }
}
