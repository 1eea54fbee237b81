use super::*;

fn name() -> Name {
    "mesh-1".parse().unwrap()
}

#[test]
fn a_name_is_a_single_plain_folder() {
    for good in ["istio-demo", "a", "2", &"x".repeat(MAX_NAME)] {
        assert_eq!(good.parse::<Name>().unwrap().dir(), Path::new(ROOT).join(good));
    }
    for bad in ["", "-x", "../../x", "a/b", "a.b", ".", "A", "a b", "ä", &"x".repeat(MAX_NAME + 1)] {
        let error = bad.parse::<Name>().unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")) && error.contains("expected 1 to 40"), "{error}");
    }
}

#[test]
fn what_somebody_else_made_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("mesh-1");
    let refused = || {
        let error = Place::take_in(root.path(), &name()).unwrap_err().to_string();
        assert!(error.contains("is not the directory of a mesh"), "{error}");
        assert!(matches!(Place::open(&dir, &name()), Err(Error::Foreign(_))));
    };
    fs::create_dir(&dir).unwrap();
    refused();
    fs::write(dir.join("data"), "precious").unwrap();
    refused();
    fs::write(dir.join(MARKER), "of another program\n").unwrap();
    refused();
    assert_eq!(fs::read_to_string(dir.join("data")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(dir.join(MARKER)).unwrap(), "of another program\n");

    // Nor is a link followed, neither to a directory nor from the marker.
    let elsewhere = root.path().join("elsewhere");
    fs::rename(&dir, &elsewhere).unwrap();
    fs::write(elsewhere.join(MARKER), format!("{TITLE}\n1\n")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
    refused();
    fs::remove_file(&dir).unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(elsewhere.join(MARKER), dir.join(MARKER)).unwrap();
    refused();
    assert!(elsewhere.join("data").exists());
}

#[test]
fn one_at_a_time_and_nothing_stays() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::take_in(root.path(), &name()).unwrap();
    fs::create_dir(place.dir().join("log")).unwrap();
    fs::write(place.dir().join("log/a"), "").unwrap();
    let error = Place::take_in(root.path(), &name()).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(error.contains(&format!("mesh-1 is running (process {pid})")), "{error}");
    assert!(error.contains("scripts/demo stop --name mesh-1"), "{error}");
    assert!(place.dir().join("log/a").exists());
    // Another name is another mesh, also when it begins alike.
    let other = Place::take_in(root.path(), &"mesh-1-2".parse().unwrap()).unwrap();
    place.remove();
    assert!(!place.dir().exists());
    assert!(other.dir().exists());
    other.remove();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_second_removal_touches_nothing_of_a_new_mesh() {
    let root = tempfile::tempdir().unwrap();
    let first = Place::take_in(root.path(), &name()).unwrap();
    first.remove();
    let second = Place::take_in(root.path(), &name()).unwrap();
    first.remove();
    assert!(second.dir().exists());
    second.remove();
}

#[test]
fn remains_of_a_dead_process_are_removed() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("mesh-1");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(MARKER), format!("{TITLE}\n1\n")).unwrap();
    fs::write(dir.join(KEPT), "").unwrap();
    fs::write(dir.join("old"), "").unwrap();
    let place = Place::take_in(root.path(), &name()).unwrap();
    assert!(!dir.join("old").exists() && !dir.join(KEPT).exists());
    place.remove();
}
