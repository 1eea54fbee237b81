//! Reads the files of a directory and tells what is different from last time.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::{Key, Object, Position, Problem, Severity, yaml};
use runtime::watch::{Tree, Writer};

use super::list::Listing;
use crate::{Update, file};

/// A file that nobody is known to write counts as finished when it is this old.
const QUIET: Duration = Duration::from_millis(100);
/// Files that are gone together with their directory may be on their way back:
/// they count until nothing has happened for so long.
const GRACE: Duration = Duration::from_secs(1);
/// How long a file may be written to before that is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) update: Update,
    /// Problems that the look before did not find.
    pub(super) new_problems: Vec<Problem>,
    /// When to look again, though nothing may be told: something is unfinished.
    pub(super) again: Option<Duration>,
    problems_changed: bool,
}

impl Reading {
    /// Whether anything is different from the look before.
    pub(super) fn has_news(&self) -> bool {
        let Update { apply, moved, delete, .. } = &self.update;
        !apply.is_empty() || !moved.is_empty() || !delete.is_empty() || self.problems_changed
    }

    fn look_in(&mut self, wait: Duration) {
        self.again = Some(self.again.map_or(wait, |again| again.min(wait)));
    }
}

/// What identifies a state of a file.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Another file under the same name, as atomic replacement makes it.
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() }
    }

    /// How long ago the file was changed.
    fn age(&self) -> Option<Duration> {
        SystemTime::now().duration_since(self.modified?).ok()
    }
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    /// What it last said without an error.
    good: Vec<Arc<Object>>,
    problems: Vec<Problem>,
    /// Since when it is being written and left alone.
    held: Option<Instant>,
    /// Since when it is gone, while it still counts.
    gone: Option<Instant>,
}

/// The files of a directory and what they said.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    listing: Listing,
    in_force: BTreeMap<Key, Arc<Object>>,
    problems: Vec<Problem>,
    last_change: Instant,
}

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            files: BTreeMap::new(),
            listing: Listing::default(),
            in_force: BTreeMap::new(),
            problems: Vec::new(),
            last_change: Instant::now(),
        }
    }

    /// Looks at all files; those that did not change are not read again, and
    /// those that are being written keep what they said before.
    pub(super) fn read(&mut self, tree: &mut Tree) -> Reading {
        tree.refresh();
        let mut reading = Reading::default();
        let listing = Listing::of(&self.root);
        for path in &listing.files {
            self.read_file(path, tree, &mut reading);
        }
        tree.forget_finished();
        self.drop_gone(&listing, &mut reading);
        let mut problems: Vec<Problem> = listing
            .unreadable
            .iter()
            .map(|(dir, error)| {
                let what = "what the files below it said before stays in force";
                problem(Severity::Error, dir, format!("cannot be read ({what}): {error}"))
            })
            .collect();
        self.listing = listing;
        self.settle(&mut problems, &mut reading);
        reading
    }

    /// Makes the next look tell everything, as the first one does.
    pub(super) fn tell_all(&mut self) {
        self.in_force.clear();
        self.problems.clear();
    }

    fn read_file(&mut self, path: &Path, tree: &mut Tree, reading: &mut Reading) {
        let stamp = fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        let file = self.files.entry(path.into()).or_default();
        file.gone = None;
        if stamp.is_some() && file.stamp == stamp {
            file.held = None;
            return;
        }
        let (writer, before) = tree.writer(path);
        let is_quiet = |age: Option<Duration>| age.is_none_or(|age| age >= QUIET);
        let is_finished = match writer {
            Writer::Done => true,
            Writer::Writing => false,
            Writer::Unknown => is_quiet(stamp.as_ref().and_then(Stamp::age)),
        };
        // What was written to while it was read was perhaps read in halves.
        let text = is_finished.then(|| file::read(path)).filter(|_| {
            drop(tree.drain());
            tree.writer(path).1 == before
        });
        let Some(text) = text else {
            self.last_change = Instant::now();
            let held = *file.held.get_or_insert_with(Instant::now);
            reading.look_in(if held.elapsed() < PATIENCE { QUIET } else { PATIENCE });
            return;
        };
        let good = std::mem::take(&mut file.good);
        *file = match text {
            Ok((text, metadata)) => {
                self.last_change = Instant::now();
                let contents = yaml::read(&path.display().to_string(), &text);
                let is_bad = contents.has_errors();
                let objects: Vec<Arc<Object>> = contents.objects.into_iter().map(Arc::new).collect();
                // Of a file with an error, what can be used is used when it
                // said nothing before: a start with one bad object still serves the rest.
                let good = if is_bad && !good.is_empty() { good } else { objects };
                File {
                    stamp: Some(Stamp::of(&metadata)),
                    good,
                    problems: contents.problems,
                    ..File::default()
                }
            }
            Err(error) => {
                let problems = vec![problem(Severity::Error, path, error.to_string())];
                // It is not read again and again: a change of it gives another stamp.
                let stamp = stamp.filter(|_| !matches!(error, file::Error::Io(_)));
                File { stamp, good, problems, ..File::default() }
            }
        };
    }

    /// Forgets files that are gone. That a file was taken out of a directory is
    /// somebody's wish; that the directory is another one, or cannot be read,
    /// says nothing of what should be in it.
    fn drop_gone(&mut self, listing: &Listing, reading: &mut Reading) {
        let (last_change, old) = (self.last_change, &self.listing.dirs);
        self.files.retain(|path, file| {
            if listing.files.binary_search(path).is_ok() {
                return true;
            }
            if listing.is_hidden(path) {
                file.gone = None;
                return true;
            }
            let id = |dirs: &BTreeMap<PathBuf, _>| path.parent().and_then(|dir| dirs.get(dir).copied());
            let was_taken_out = id(old).is_some() && id(old) == id(&listing.dirs);
            if was_taken_out && file.gone.is_none() {
                return false;
            }
            let since = (*file.gone.get_or_insert_with(Instant::now)).max(last_change);
            let left = GRACE.saturating_sub(since.elapsed());
            if !left.is_zero() {
                reading.look_in(left);
            }
            !left.is_zero()
        });
    }

    /// Puts together what all files say, and compares with the look before.
    fn settle(&mut self, problems: &mut Vec<Problem>, reading: &mut Reading) {
        let mut next: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        for (path, file) in &self.files {
            problems.extend(file.problems.iter().cloned());
            if file.held.is_some_and(|since| since.elapsed() >= PATIENCE) {
                let message = "is still being written: what it said before stays in force until then";
                problems.push(problem(Severity::Warning, path, message.into()));
            }
            for object in &file.good {
                match next.get(&object.key) {
                    None => {
                        next.insert(object.key.clone(), object.clone());
                    }
                    Some(first) => problems.push(Problem {
                        severity: Severity::Error,
                        object: Some(object.key.clone()),
                        position: object.position.clone(),
                        field: String::new(),
                        message: format!(
                            "is defined in {} already, which counts: remove one of them",
                            first.position
                        ),
                    }),
                }
            }
        }
        let update = &mut reading.update;
        for (key, object) in &next {
            match self.in_force.get(key) {
                Some(old) if old.meta == object.meta && old.spec == object.spec => {
                    if old.position != object.position {
                        update.moved.push(object.clone());
                    }
                }
                _ => update.apply.push(object.clone()),
            }
        }
        update.delete = self.in_force.keys().filter(|key| !next.contains_key(*key)).cloned().collect();
        let known: HashSet<&Problem> = self.problems.iter().collect();
        reading.new_problems = problems.iter().filter(|problem| !known.contains(problem)).cloned().collect();
        reading.problems_changed = *problems != self.problems;
        update.problems.clone_from(problems);
        self.in_force = next;
        self.problems = std::mem::take(problems);
    }
}

fn problem(severity: Severity, path: &Path, message: String) -> Problem {
    let position = Position { file: path.display().to_string().into(), line: 0 };
    Problem { severity, object: None, position, field: String::new(), message }
}

#[cfg(test)]
mod tests;
