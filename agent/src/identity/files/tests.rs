use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use pki::csr::Csr;
use pki::issuer::{Issuer, San};
use pki::key::{Algorithm, PrivateKey};
use tokio::time::timeout;

use super::*;
use crate::identity::Identity;

const PATIENCE: Duration = Duration::from_secs(40);
const HOUR: Duration = Duration::from_secs(3600);

/// A chain and its key, PEM.
fn pair(issuer: &Issuer) -> (String, String) {
    let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
    let san = San::Spiffe("spiffe://cluster.local/ns/a/sa/b".parse().unwrap());
    let chain = issuer.issue(&Csr::of_key(&key).unwrap(), &[san], HOUR, SystemTime::now()).unwrap();
    (pki::certificate::join_pem(&chain), key.to_pkcs8_pem().to_string())
}

fn issuer() -> Issuer {
    Issuer::self_signed("cluster.local", 24 * HOUR, SystemTime::now()).unwrap().0
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    metrics: Arc<crate::metrics::Metrics>,
    tasks: Tasks,
}

impl World {
    fn new() -> Self {
        let (dir, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
        let metrics = Arc::new(crate::metrics::Metrics::default());
        let files = Files::start(&tasks, |path, error| panic!("{}: {error}", path.display()));
        let store = Store::new(files, Duration::from_millis(10), tasks.clone(), metrics.files.clone());
        Self { dir, store, metrics, tasks }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn pair(&self) -> Paths {
        Paths::Pair { chain: self.at("chain"), key: self.at("key") }
    }

    fn has_metric(&self, line: &str) -> bool {
        self.metrics.render(SystemTime::now()).lines().any(|found| found.starts_with(line))
    }
}

/// Waits until the state is like that.
async fn until(current: &mut Current, what: &str, condition: impl Fn(&State) -> bool) -> State {
    let found = timeout(PATIENCE, current.wait_for(|state| condition(state))).await;
    found.unwrap_or_else(|_| panic!("{what}")).unwrap().clone()
}

fn chain_of(state: &State) -> &str {
    match state.material.as_deref() {
        Some(Material::Pair(pair)) => &pair.chain_pem,
        other => panic!("{other:?} {:?}", state.failure),
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_without_a_change_of_the_file_is_tried_again() {
    use std::io::Write as _;

    let (world, pair) = (World::new(), pair(&issuer()));
    world.write("key", &pair.1);
    // A file that is not closed: the kernel tells nothing of what is written.
    let mut chain = fs::File::create(world.at("chain")).unwrap();
    let mut current = world.store.follow(&world.pair());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(current.borrow().failure.is_some());
    chain.write_all(pair.0.as_bytes()).unwrap();
    let state = until(&mut current, "read at last", |state| state.failure.is_none()).await;
    assert_eq!(chain_of(&state), pair.0);
}

#[tokio::test]
async fn a_pair_is_taken_when_both_files_belong_together() {
    let (world, issuer) = (World::new(), issuer());
    let (first, second) = (pair(&issuer), pair(&issuer));
    world.write("chain", &first.0);
    world.write("key", &first.1);
    let mut current = world.store.follow(&world.pair());
    assert_eq!(chain_of(&current.borrow()), first.0, "it is there at once");
    let label = format!("istio_agent_cert_expiry_seconds{{resource_name=\"{}\"}} 3", world.pair());
    assert!(world.has_metric(&label), "{}", world.metrics.render(SystemTime::now()));

    world.write("chain", &second.0);
    let state = until(&mut current, "a mismatch", |state| state.failure.is_some()).await;
    assert_eq!(chain_of(&state), first.0, "what was good stays");
    assert!(state.failure.unwrap().contains("the key is not that of the certificate"));
    world.write("key", &second.1);
    let state = until(&mut current, "the second pair", |state| state.failure.is_none()).await;
    assert_eq!(chain_of(&state), second.0);

    fs::remove_file(world.at("key")).unwrap();
    let state = until(&mut current, "a missing file", |state| state.failure.is_some()).await;
    assert_eq!(chain_of(&state), second.0);
    drop(current);
    timeout(PATIENCE, async {
        while world.has_metric("istio_agent_cert_expiry_seconds") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(world.store.0.followed.lock().unwrap().is_empty(), "nobody follows it");
}

#[tokio::test]
async fn the_kubelets_swap_is_followed() {
    let (world, issuer) = (World::new(), issuer());
    let (first, second) = (pair(&issuer), pair(&issuer));
    for (version, pair) in [("..1", &first), ("..2", &second)] {
        fs::create_dir(world.at(version)).unwrap();
        fs::write(world.at(version).join("chain"), &pair.0).unwrap();
        fs::write(world.at(version).join("key"), &pair.1).unwrap();
    }
    let point = |to: &str| {
        symlink(to, world.at("..data_tmp")).unwrap();
        fs::rename(world.at("..data_tmp"), world.at("..data")).unwrap();
    };
    point("..1");
    for name in ["chain", "key"] {
        symlink(Path::new("..data").join(name), world.at(name)).unwrap();
    }
    let mut current = world.store.follow(&world.pair());
    assert_eq!(chain_of(&current.borrow_and_update()), first.0);
    point("..2");
    fs::remove_dir_all(world.at("..1")).unwrap();
    let state = until(&mut current, "the second", |state| chain_of(state) == second.0).await;
    assert_eq!(state.failure, None);
    point("..nowhere");
    let state = until(&mut current, "nothing there", |state| state.failure.is_some()).await;
    assert_eq!(chain_of(&state), second.0);
    point("..2");
    until(&mut current, "the second again", |state| state.failure.is_none()).await;
}

#[tokio::test]
async fn bad_roots_are_left_out_and_files_that_appear_late_are_taken() {
    let (world, issuer) = (World::new(), issuer());
    let paths = Paths::Roots(world.at("sub/roots"));
    let mut current = world.store.follow(&paths);
    let failure = current.borrow_and_update().failure.clone().unwrap();
    assert!(failure.contains("sub/roots: No such file"), "{failure}");
    fs::create_dir(world.at("sub")).unwrap();
    world.write("sub/roots", "nothing");
    until(&mut current, "no roots", |state| {
        state.failure.as_ref().is_some_and(|text| text.contains("it holds no PEM of the kind CERTIFICATE"))
    })
    .await;
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    world.write("sub/roots", &format!("{bad}{}", issuer.root_pem()));
    let state = until(&mut current, "the good root", |state| state.material.is_some()).await;
    assert_eq!(state.failure, None);
    assert_eq!(*state.material.unwrap(), Material::Roots(issuer.root_pem().to_owned()));
}

#[tokio::test]
async fn lists_of_revoked_certificates_need_not_be_there() {
    let world = World::new();
    let mut current = world.store.follow(&Paths::Revoked(world.at("crl")));
    let state = current.borrow_and_update().clone();
    assert!(state.material.is_none() && state.failure.is_none());
    world.write("crl", "garbage");
    until(&mut current, "a failure", |state| state.failure.is_some()).await;
    fs::remove_file(world.at("crl")).unwrap();
    until(&mut current, "no failure", |state| state.failure.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn what_stays_bad_is_counted_and_kept_apart_from_what_was_good() {
    let world = World::new();
    let current = world.store.follow(&world.pair());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(current.borrow().failure.is_some());
    assert!(world.has_metric("istio_agent_num_file_secret_failures_total 1"), "once for all the tries");
}

#[tokio::test]
async fn the_workloads_identity_is_that_of_the_files() {
    let (world, issuer) = (World::new(), issuer());
    let files = crate::config::certificates::Files {
        chain: world.at("chain"),
        key: world.at("key"),
        roots: world.at("roots"),
    };
    let (sender, mut identity) = watch::channel::<Option<Arc<Identity>>>(None);
    let run = run(files, world.store.clone(), world.metrics.clone(), sender);
    drop(world.tasks.spawn("identity", run));
    let first = pair(&issuer);
    world.write("chain", &first.0);
    world.write("key", &first.1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(identity.borrow().is_none(), "there are no roots yet");
    world.write("roots", issuer.root_pem());
    let found =
        timeout(PATIENCE, identity.wait_for(Option::is_some)).await.unwrap().unwrap().clone().unwrap();
    assert_eq!((&found.chain_pem, &**found.key_pem), (&first.0, &first.1));
    assert_eq!(found.uris, ["spiffe://cluster.local/ns/a/sa/b"]);
    assert_eq!(found.roots_pem, issuer.root_pem());
    assert!(world.has_metric("istio_agent_cert_expiry_seconds{resource_name=\"default\"} 3"));
    let second = pair(&issuer);
    world.write("key", &second.1);
    world.write("chain", &second.0);
    let renewed = identity.wait_for(|now| now.as_ref().is_some_and(|now| now.chain_pem == second.0));
    timeout(PATIENCE, renewed).await.unwrap().unwrap();
}
