use std::fs::File;
use std::io::Write as _;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n---\n"
    )
}

/// A directory that is followed, without the task around it.
struct Followed {
    directory: Directory,
    tree: Tree,
}

impl Followed {
    fn new(root: &Path) -> Self {
        Self { directory: Directory::new(root), tree: Tree::new(root).unwrap() }
    }

    fn look(&mut self) -> Reading {
        self.directory.read(&mut self.tree)
    }

    /// Looks again until nothing is unfinished; what the last look found.
    async fn settle(&mut self) -> Reading {
        loop {
            let reading = self.look();
            let Some(wait) = reading.again else { return reading };
            tokio::time::sleep(wait).await;
            self.directory.tell_all();
        }
    }
}

fn keys(reading: &Reading) -> Vec<String> {
    reading.update.apply.iter().map(|object| object.key.name.to_string()).collect()
}

#[tokio::test]
async fn a_bad_file_keeps_what_it_said_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, service("one", 80) + &service("two", 80)).unwrap();
    let mut followed = Followed::new(dir.path());
    assert_eq!(keys(&followed.settle().await), ["one", "two"]);
    assert!(!followed.look().has_news());
    // Half of the file: the second object is cut off in the middle.
    let whole = service("one", 81) + &service("two", 81);
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let reading = followed.look();
    assert!(reading.update.apply.is_empty() && reading.update.delete.is_empty());
    assert_eq!(reading.new_problems.len(), 1, "{:?}", reading.new_problems);
    assert!(reading.update.problems[0].to_string().contains("a.yaml:"));
    fs::write(&path, whole).unwrap();
    let reading = followed.look();
    assert_eq!(keys(&reading), ["one", "two"]);
    assert!(reading.update.problems.is_empty());
    fs::remove_file(&path).unwrap();
    assert_eq!(followed.look().update.delete.len(), 2);
}

#[tokio::test]
async fn the_first_file_counts_and_the_second_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.yaml"), service("one", 81)).unwrap();
    fs::write(dir.path().join("a.yaml"), service("one", 80)).unwrap();
    fs::write(dir.path().join(".hidden.yaml"), "[").unwrap();
    fs::write(dir.path().join("c.yaml~"), "[").unwrap();
    let reading = Followed::new(dir.path()).settle().await;
    assert_eq!(reading.update.apply.len(), 1);
    assert!(reading.update.apply[0].position.file.ends_with("a.yaml"));
    let [problem] = &reading.update.problems[..] else { panic!("{:?}", reading.update.problems) };
    assert!(problem.to_string().contains("a.yaml:1 already"), "{problem}");
}

#[tokio::test]
async fn a_file_that_is_being_written_counts_when_it_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    fs::write(&path, service("one", 80) + &service("two", 80)).unwrap();
    let mut followed = Followed::new(dir.path());
    assert_eq!(keys(&followed.settle().await).len(), 2);
    let mut writer = File::create(&path).unwrap();
    fs::write(&other, service("three", 80)).unwrap();
    let reading = followed.look();
    assert_eq!(keys(&reading), ["three"]);
    assert!(reading.update.delete.is_empty() && reading.again.is_some());
    writer.write_all(service("one", 81).as_bytes()).unwrap();
    // Not even when it is quiet for long: it is open.
    tokio::time::sleep(PATIENCE).await;
    let reading = followed.look();
    assert!(reading.update.apply.is_empty() && reading.update.delete.is_empty());
    let [problem] = &reading.new_problems[..] else { panic!("{:?}", reading.new_problems) };
    assert!(problem.to_string().contains("a.yaml: is still being written"), "{problem}");
    drop(writer);
    let reading = followed.look();
    assert_eq!((keys(&reading), reading.update.delete.len()), (vec!["one".to_owned()], 1));
    assert!(reading.again.is_none() && reading.update.problems.is_empty());
}

#[tokio::test]
async fn what_no_event_told_of_counts_when_it_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    let mut writer = File::create(&path).unwrap();
    writer.write_all(service("one", 80).as_bytes()).unwrap();
    // Begun before anybody watched.
    let mut followed = Followed::new(dir.path());
    let reading = followed.look();
    assert!(keys(&reading).is_empty() && reading.again.is_some());
    assert_eq!(keys(&followed.settle().await), ["one"]);
}

#[tokio::test]
async fn a_directory_that_is_away_for_a_moment_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let (root, old) = (dir.path().join("cfg"), dir.path().join("old"));
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("a.yaml"), service("one", 80)).unwrap();
    fs::write(root.join("sub/b.yaml"), service("two", 80)).unwrap();
    let mut followed = Followed::new(&root);
    assert_eq!(keys(&followed.settle().await).len(), 2);
    fs::rename(&root, &old).unwrap();
    let reading = followed.look();
    assert!(reading.update.delete.is_empty(), "{reading:?}");
    assert!(reading.new_problems[0].to_string().contains("cfg: cannot be read"), "{reading:?}");
    tokio::time::sleep(GRACE).await;
    assert!(followed.look().update.delete.is_empty());
    // It comes back file by file.
    fs::create_dir_all(root.join("sub")).unwrap();
    assert!(followed.look().update.delete.is_empty());
    fs::write(root.join("a.yaml"), service("one", 81)).unwrap();
    let reading = followed.look();
    assert!(reading.update.delete.is_empty() && reading.again.is_some(), "{reading:?}");
    fs::write(root.join("sub/c.yaml"), service("three", 80)).unwrap();
    let reading = followed.look();
    assert_eq!(keys(&reading), ["three"], "{reading:?}");
    // What is still not there then is gone.
    tokio::time::sleep(GRACE).await;
    let reading = followed.look();
    assert_eq!(reading.update.delete.len(), 1, "{reading:?}");
    assert_eq!(&*reading.update.delete[0].name, "two");
    assert!(reading.again.is_none());
}

#[tokio::test]
async fn follows_the_links_of_a_mounted_config_map() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let publish = |version: &str, port| {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), service("one", port)).unwrap();
        std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish("..1", 80);
    std::os::unix::fs::symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let mut followed = Followed::new(dir.path());
    assert_eq!(keys(&followed.settle().await), ["one"]);
    publish("..2", 81);
    fs::remove_dir_all(at("..1")).unwrap();
    let changed = tokio::time::timeout(Duration::from_secs(5), followed.tree.changed());
    changed.await.unwrap().unwrap();
    assert_eq!(keys(&followed.settle().await), ["one"]);
}

#[tokio::test]
async fn pipes_and_devices_are_told_and_do_not_block() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("a.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("b.yaml")).unwrap();
    fs::write(dir.path().join("c.yaml"), service("one", 80)).unwrap();
    let mut followed = Followed::new(dir.path());
    let reading = followed.settle().await;
    assert_eq!(keys(&reading), ["one"]);
    assert_eq!(reading.update.problems.len(), 2);
    assert!(reading.update.problems[0].to_string().contains("a.yaml: is not a regular file"));
}

#[tokio::test]
async fn positions_follow_their_objects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.yaml");
    fs::write(&path, service("one", 80)).unwrap();
    let mut followed = Followed::new(dir.path());
    followed.settle().await;
    fs::write(&path, format!("# a\n# b\n{}", service("one", 80))).unwrap();
    let update = followed.look().update;
    assert!(update.apply.is_empty() && update.delete.is_empty());
    assert_eq!(update.moved[0].position.line, 3);
    fs::rename(&path, dir.path().join("b.yaml")).unwrap();
    let update = followed.look().update;
    assert!(update.apply.is_empty() && update.delete.is_empty());
    assert!(update.moved[0].position.file.ends_with("b.yaml"));
}
