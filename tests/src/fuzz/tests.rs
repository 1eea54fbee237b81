use std::path::{Path, PathBuf};

use config::{Key, Object, Severity};
use pilot::cache::Client;
use proto::envoy::config::listener::v3::Listener;
use proto::reflect;
use xds::session::Asked;

use super::*;
use crate::oracle::{accept, difference};
use crate::plane::Plane;

/// Numbers that look like chance and are the same in each run.
struct Sequence(u64);

impl Sequence {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut next = || {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        (0..length).map(|_| next()).collect()
    }
}

/// Where the sequence starts, so that a longer search can look elsewhere.
#[expect(clippy::disallowed_methods, reason = "the environment of a search by hand")]
fn start(default: u64) -> (u64, u64) {
    let number =
        |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    (number("ISTIO_TEST_SEED", 1), number("ISTIO_TEST_COUNT", default))
}

#[test]
fn no_bytes_make_a_target_panic() {
    let (seed, _) = start(0);
    for (_, target) in TARGETS.iter().filter(|(name, _)| *name != "translate") {
        let mut sequence = Sequence(seed * 7919 + 17);
        for length in 0..400 {
            let bytes = sequence.bytes(length);
            target(&bytes);
            // Text that nearly is what is expected gets deeper.
            let world = &worlds()[length % worlds().len()];
            let mut text = world.objects.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n");
            for (byte, at) in bytes.iter().zip(sequence.bytes(bytes.len())).take(4) {
                let at = (usize::from(at) * 131) % text.len().max(1);
                if text.is_char_boundary(at) {
                    text.insert(at, char::from(*byte));
                }
            }
            target(text.as_bytes());
        }
    }
}

#[test]
fn objects_that_were_never_checked_do_no_harm() {
    let (seed, count) = start(400);
    let mut sequence = Sequence(seed * 104_729 + 3);
    for number in 0..count {
        let bytes = sequence.bytes(64);
        let result = std::panic::catch_unwind(|| translate(&bytes));
        assert!(result.is_ok(), "input {number} of seed {seed}, of {}", mutate::world(&bytes).name);
    }
}

#[expect(clippy::disallowed_methods, reason = "the environment of tests")]
fn envoy() -> Option<PathBuf> {
    std::env::var(crate::program::ENVOY).ok().map(PathBuf::from).filter(|path| path.is_file())
}

fn refused(world: &World, envoy: &Path) -> Option<String> {
    let store = world.store(config::yaml::read);
    let snapshot = Snapshot::build(&store, &world.settings);
    let scratch = tempfile::tempdir().unwrap();
    accept::check(&snapshot, &world.proxy, envoy, scratch.path()).err().map(|error| format!("{error:#}"))
}

#[test]
fn what_validation_lets_through_envoy_takes() {
    let Some(envoy) = envoy() else {
        eprintln!("left out: {} names no Envoy", crate::program::ENVOY);
        return;
    };
    let (seed, count) = start(60);
    let mut sequence = Sequence(seed * 15_485_863 + 29);
    let mut failures = Vec::new();
    for _ in 0..count {
        let bytes = sequence.bytes(48);
        let world = mutate::world(&bytes);
        if let Some(why) = refused(&world, &envoy) {
            let warned = world.store(config::yaml::read).len();
            let objects: Vec<String> = world.objects.iter().map(ToString::to_string).collect();
            failures.push(format!("{} ({warned} objects): {why}\n{}", world.name, objects.join("\n---\n")));
        }
    }
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn recorded_meshes_are_read_whole() {
    assert!(worlds().len() > 20);
    for world in worlds() {
        let text: Vec<String> = world.objects.iter().map(ToString::to_string).collect();
        let contents = config::yaml::read("a.yaml", &text.join("\n---\n"));
        let errors = contents.problems.iter().filter(|problem| problem.severity == Severity::Error);
        assert_eq!(errors.count(), 0, "{}: {:?}", world.name, contents.problems);
    }
}

fn objects(world: &World) -> Vec<Object> {
    let text: Vec<String> = world.objects.iter().map(ToString::to_string).collect();
    config::yaml::read_unchecked("fuzz.yaml", &text.join("\n---\n")).objects
}

/// Names of a type that a proxy asks for by name.
fn asked(
    snapshot: &Snapshot,
    proxy: &Proxy,
    type_url: &TypeUrl,
) -> std::collections::BTreeSet<std::sync::Arc<str>> {
    match type_url {
        TypeUrl::Route => {
            let mut listeners: Vec<Listener> =
                accept::of_type(snapshot, proxy, &TypeUrl::Listener, &Wanted::All).unwrap();
            accept::route_names(&mut listeners).unwrap()
        }
        _ => pilot::generate(snapshot, proxy, &TypeUrl::Cluster, &Wanted::All)
            .into_iter()
            .map(|cluster| cluster.name)
            .collect(),
    }
}

/// A resource without the identities of servers: a service that has lost its
/// last endpoint keeps those that its clusters know, since the same endpoints
/// mostly come back.
fn json(type_url: &TypeUrl, resource: &xds::Resource) -> serde_json::Value {
    const SERVERS: &str = "transportSocket/typedConfig/commonTlsContext/combinedValidationContext/\
                           defaultValidationContext/matchSubjectAltNames";
    let message = type_url.as_str().trim_start_matches("type.googleapis.com/");
    let mut value = reflect::to_json(message, &resource.body).unwrap();
    if *type_url == TypeUrl::Cluster {
        difference::remove(&mut value, SERVERS);
        difference::remove(&mut value, &format!("transportSocketMatches/*/{SERVERS}"));
    }
    value
}

#[test]
fn changes_lead_where_all_objects_at_once_lead() {
    let (seed, count) = start(40);
    let mut sequence = Sequence(seed * 32_452_843 + 7);
    for number in 0..count {
        let mut world = mutate::world(&sequence.bytes(8));
        let mut plane = Plane::new(&world.settings, objects(&world));
        let elsewhere = Proxy { namespace: "istio-system".into(), ..world.proxy.clone() };
        let proxies = [world.proxy.clone(), world.other_proxy(), elsewhere];
        let mut clients = proxies.clone().map(|proxy| Client::new(proxy.into()));
        for step in 0..6 {
            for (proxy, client) in proxies.iter().zip(&mut clients) {
                let fresh = Snapshot::build(&plane.store, &world.settings);
                for type_url in [
                    TypeUrl::Cluster,
                    TypeUrl::Endpoint,
                    TypeUrl::Listener,
                    TypeUrl::Route,
                    TypeUrl::NameTable,
                ] {
                    let at = || {
                        format!("{number}, step {step} of seed {seed}: {} {}", world.name, type_url.short())
                    };
                    let names = asked(&fresh, proxy, &type_url);
                    let (all, wanted) = match type_url {
                        TypeUrl::Route | TypeUrl::Endpoint => {
                            (Asked::Names(&names), Wanted::Names(names.clone()))
                        }
                        _ => (Asked::All, Wanted::All),
                    };
                    let want = |mut resources: Vec<xds::Resource>| {
                        resources.sort_by(|one, other| one.name.cmp(&other.name));
                        resources
                    };
                    let made = want(pilot::generate(&fresh, proxy, &type_url, &wanted));
                    let kept = want(client.resources(plane.now(), &type_url, all));
                    let names =
                        |all: &[xds::Resource]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
                    assert_eq!(names(&made), names(&kept), "{}", at());
                    for (made, kept) in made.iter().zip(&kept).filter(|(made, kept)| made != kept) {
                        let found =
                            difference::first(&json(&type_url, made), &json(&type_url, kept), &|_| false);
                        assert!(found.is_none(), "{}: {}: {found:?}", at(), made.name);
                    }
                }
            }
            let bytes = sequence.bytes(20);
            mutate::change_objects(&mut world, mutate::Choices::new(&bytes));
            let next = objects(&world);
            let gone = |key: &&Key| !next.iter().any(|object| object.key == **key);
            let old: Vec<Key> = plane.store.objects().map(|object| object.key.clone()).collect();
            let gone: Vec<Key> = old.iter().filter(gone).cloned().collect();
            plane.change(next, &gone);
        }
    }
}
