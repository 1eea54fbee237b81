//! Reads the files of a directory and tells what is different from last time.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use config::{Key, Object, Position, Problem, Severity, yaml};

use crate::Update;

/// Directories below each other that are read; a loop of links ends here.
const DEPTH: usize = 16;

/// What one look at the directory found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) apply: Vec<Arc<Object>>,
    pub(super) delete: Vec<Key>,
    pub(super) problems: Vec<Problem>,
    /// Those that the look before did not find.
    pub(super) new_problems: Vec<Problem>,
    problems_changed: bool,
}

impl Reading {
    /// Whether anything is different from the look before.
    pub(super) fn has_news(&self) -> bool {
        !self.apply.is_empty() || !self.delete.is_empty() || self.problems_changed
    }

    pub(super) fn into_update(self) -> Update {
        Update { apply: self.apply, delete: self.delete, problems: self.problems }
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
}

#[derive(Debug)]
struct File {
    stamp: Option<Stamp>,
    /// What it last said without an error.
    good: Vec<Arc<Object>>,
    problems: Vec<Problem>,
}

/// The files of a directory and what they said.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    in_force: BTreeMap<Key, Arc<Object>>,
    problems: Vec<Problem>,
}

impl Directory {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into(), files: BTreeMap::new(), in_force: BTreeMap::new(), problems: Vec::new() }
    }

    /// Looks at all files; those that did not change are not read again.
    pub(super) fn read(&mut self) -> Reading {
        let mut found = Vec::new();
        let mut problems = Vec::new();
        list(&self.root, DEPTH, &mut found, &mut problems);
        found.sort();
        self.files.retain(|path, _| found.binary_search(path).is_ok());
        for path in found {
            self.read_file(path);
        }
        let mut next: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
        for file in self.files.values() {
            problems.extend(file.problems.iter().cloned());
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
        let same = |a: &Object, b: &Object| a.meta == b.meta && a.spec == b.spec;
        let apply = next
            .iter()
            .filter(|(key, object)| self.in_force.get(*key).is_none_or(|old| !same(old, object)))
            .map(|(_, object)| object.clone())
            .collect();
        let delete = self.in_force.keys().filter(|key| !next.contains_key(*key)).cloned().collect();
        let new_problems =
            problems.iter().filter(|problem| !self.problems.contains(problem)).cloned().collect();
        let problems_changed = problems != self.problems;
        self.in_force = next;
        self.problems.clone_from(&problems);
        Reading { apply, delete, problems, new_problems, problems_changed }
    }

    fn read_file(&mut self, path: PathBuf) {
        let stamp = fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata));
        if stamp.is_some() && self.files.get(&path).is_some_and(|file| file.stamp == stamp) {
            return;
        }
        let name = path.display().to_string();
        let good = self.files.remove(&path).map(|file| file.good).unwrap_or_default();
        let file = match fs::read_to_string(&path) {
            Ok(text) => {
                let contents = yaml::read(&name, &text);
                let is_bad = contents.has_errors();
                let objects: Vec<Arc<Object>> = contents.objects.into_iter().map(Arc::new).collect();
                // Of a file with an error, what can be used is used when it
                // said nothing before: a start with one bad object still serves the rest.
                let good = if is_bad && !good.is_empty() { good } else { objects };
                File { stamp, good, problems: contents.problems }
            }
            Err(error) => {
                let position = Position { file: name.into(), line: 0 };
                let message = format!("cannot be read: {error}");
                let problem = Problem {
                    severity: Severity::Error,
                    object: None,
                    position,
                    field: String::new(),
                    message,
                };
                File { stamp: None, good, problems: vec![problem] }
            }
        };
        self.files.insert(path, file);
    }
}

/// The YAML and JSON files below a directory, without hidden ones and those of editors.
fn list(dir: &Path, depth: usize, found: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let position = Position { file: dir.display().to_string().into(), line: 0 };
            let message = format!("cannot be read: {error}");
            problems.push(Problem {
                severity: Severity::Error,
                object: None,
                position,
                field: String::new(),
                message,
            });
            return;
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '#']) || name.ends_with('~') {
            continue;
        }
        if path.is_dir() {
            list(&path, depth, found, problems);
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, port: u16) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n---\n"
        )
    }

    fn keys(reading: &Reading) -> Vec<String> {
        reading.apply.iter().map(|object| object.key.name.to_string()).collect()
    }

    #[test]
    fn a_bad_file_keeps_what_it_said_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, service("one", 80) + &service("two", 80)).unwrap();
        let mut directory = Directory::new(dir.path());
        assert_eq!(keys(&directory.read()), ["one", "two"]);
        assert!(!directory.read().has_news());
        // Half of the file: the second object is cut off in the middle.
        let whole = service("one", 81) + &service("two", 81);
        fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let reading = directory.read();
        assert!(reading.apply.is_empty() && reading.delete.is_empty());
        assert_eq!(reading.new_problems.len(), 1, "{:?}", reading.new_problems);
        assert!(reading.problems[0].to_string().contains("a.yaml:"));
        fs::write(&path, whole).unwrap();
        let reading = directory.read();
        assert_eq!(keys(&reading), ["one", "two"]);
        assert!(reading.problems.is_empty());
        fs::remove_file(&path).unwrap();
        assert_eq!(directory.read().delete.len(), 2);
    }

    #[test]
    fn the_first_file_counts_and_the_second_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b.yaml"), service("one", 81)).unwrap();
        fs::write(dir.path().join("a.yaml"), service("one", 80)).unwrap();
        fs::write(dir.path().join(".hidden.yaml"), "[").unwrap();
        fs::write(dir.path().join("c.yaml~"), "[").unwrap();
        let mut directory = Directory::new(dir.path());
        let reading = directory.read();
        assert_eq!(reading.apply.len(), 1);
        assert!(reading.apply[0].position.file.ends_with("a.yaml"));
        let [problem] = &reading.problems[..] else { panic!("{:?}", reading.problems) };
        assert!(problem.to_string().contains("a.yaml:1 already"), "{problem}");
    }
}
