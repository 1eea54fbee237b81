use config::yaml;
use mesh::MeshConfig;

use super::*;

const ACCOUNT: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";

fn objects(text: &str) -> Vec<Arc<config::Object>> {
    yaml::read("a.yaml", text).objects.into_iter().map(Arc::new).collect()
}

fn builder() -> Builder {
    let mut builder = Builder::new(MeshConfig::default(), "c");
    assert!(builder.take(Update { apply: objects(ACCOUNT), ..Update::default() }));
    builder
}

#[tokio::test]
async fn objects_that_moved_wake_nobody() {
    let mut builder = builder();
    let (world, mut seen) = watch::channel(Arc::new(builder.empty()));
    let (problems, _) = watch::channel(Problems::default());
    let to = Publisher { world, problems, metrics: Arc::default() };
    to.publish(&mut builder);
    let version = seen.borrow_and_update().version.clone();
    let moved = Update { moved: objects(&format!("# comment\n{ACCOUNT}")), ..Update::default() };
    assert!(!builder.take(moved));
    to.replace(&mut builder);
    assert!(!seen.has_changed().unwrap());
    let position = seen.borrow().store.objects().next().unwrap().position.to_string();
    assert_eq!(position, "a.yaml:2");
    assert_eq!(seen.borrow().version, version);
}

#[test]
fn what_is_changed_back_in_time_makes_no_world() {
    let mut builder = builder();
    assert_eq!(builder.build().unwrap().serial, 1);
    let other = ACCOUNT.replace("name: a", "name: a, labels: {b: c}");
    assert!(builder.take(Update { apply: objects(&other), ..Update::default() }));
    assert!(builder.take(Update { apply: objects(ACCOUNT), ..Update::default() }));
    assert!(builder.build().is_none());
    builder.force();
    let world = builder.build().unwrap();
    assert_eq!((world.serial, world.forced), (2, 2));
}
