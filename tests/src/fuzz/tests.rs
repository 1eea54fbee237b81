mod broken;

use std::collections::BTreeMap;
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

/// Some bytes changed, put in, taken out or said twice.
fn changed(sequence: &mut Sequence, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..4 {
        let choice = sequence.bytes(8);
        let number = |at: usize| usize::from(u16::from_be_bytes([choice[at], choice[at + 1]]));
        let at = (number(0) << 4 | usize::from(choice[7] >> 4)) % (bytes.len() + 1);
        let end = (at + number(2) % 9).min(bytes.len());
        match choice[4] % 5 {
            0 => bytes.insert(at, choice[5]),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => bytes[at..end].fill(choice[5]),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 << (choice[6] % 8)),
        }
    }
    bytes
}

#[test]
fn no_bytes_make_a_target_panic() {
    let (seed, count) = start(300);
    for Target { name, run, seeds } in TARGETS.iter().filter(|target| target.name != "translate") {
        let mut sequence = Sequence(seed * 7919 + 17);
        let seeds = seeds();
        assert!(!seeds.is_empty(), "{name} has no good input");
        let random = (0..count / 3).map(|length| (length as usize, None));
        let near = (0..count).map(|number| (0, seeds.get(number as usize % seeds.len())));
        for (length, good) in random.chain(near) {
            let input = match good {
                None => sequence.bytes(length),
                Some(good) => changed(&mut sequence, good.clone()),
            };
            let result = std::panic::catch_unwind(|| run(&input));
            assert!(result.is_ok(), "{name} panics: {}", input.escape_ascii());
        }
        seeds.iter().for_each(|good| run(good));
    }
}

#[test]
#[ignore = "writes files for long searches"]
fn corpus_of_good_inputs_is_written() {
    for Target { name, seeds, .. } in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (number, good) in seeds().iter().enumerate() {
            std::fs::write(dir.join(format!("good-{number}")), good).unwrap();
        }
    }
}

#[test]
fn every_target_is_in_the_fuzz_crate() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for Target { name, .. } in TARGETS {
        let file = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(file.contains(&format!("::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = {name:?}")), "{name}");
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
