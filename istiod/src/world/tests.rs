use config::yaml;
use mesh::MeshConfig;
use pilot::depend::Part;

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

#[test]
fn keys_that_change_concern_those_that_take_tokens_by_them() {
    let policy = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                  metadata: {name: a, namespace: shop}\n\
                  spec: {jwtRules: [{issuer: i, jwksUri: 'https://a.example/keys'}]}\n";
    let mut builder = builder();
    assert!(builder.take(Update { apply: objects(policy), ..Update::default() }));
    builder.build().unwrap();
    let keys = |uri: &str, text: &str| Arc::new([(uri.to_owned(), text.to_owned())].into());

    builder.set_keys(keys("https://b.example/keys", "{}"));
    assert!(builder.repositioned().is_none(), "keys are pending");
    assert!(builder.build().is_none(), "nobody takes them");

    builder.set_keys(keys("https://a.example/keys", "{}"));
    let world = builder.build().unwrap();
    assert_eq!(world.snapshot.settings.key_sets.len(), 1);
    let changed = |part, namespace: &str| world.stamps.of(part, namespace) == world.serial;
    assert!(changed(Part::OwnListeners, "shop") && changed(Part::Gateways, "shop"));
    assert!(!changed(Part::OwnListeners, "other") && !changed(Part::Clusters, "shop"));

    builder.set_keys(keys("https://a.example/keys", "{}"));
    assert!(builder.build().is_none(), "they are the same");
}
