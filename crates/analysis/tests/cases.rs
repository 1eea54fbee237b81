//! Every code by objects of which some are told with it, and others are not.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use istio_analysis::analyzer;
use istio_analysis::read::{self, Options};
use istio_analysis::{Code, Kind, Resource, Scope, World, messages};
use mesh::{MeshConfig, MeshNetworks};
use serde_json::json;

/// Codes that come from elsewhere: from looking at a cluster before an upgrade
/// (`x precheck`), at sockets of pods, or at several clusters (see below).
const ELSEWHERE: [&str; 9] =
    ["IST0001", "IST0141", "IST0142", "IST0143", "IST0156", "IST0168", "IST0169", "IST0170", "IST0172"];

/// Values of lines `# name: value` of a file.
fn said<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mark = format!("# {name}: ");
    text.lines().filter_map(|line| line.strip_prefix(&mark)).collect()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// What is wrong with the answers to a file.
fn wrong(file: &Path) -> Option<String> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let text = fs::read_to_string(file).unwrap();
    let mesh = MeshConfig::from_yaml(said(&text, "mesh").first().unwrap_or(&"")).unwrap();
    let networks = MeshNetworks::from_yaml(said(&text, "networks").first().unwrap_or(&"")).unwrap();
    let names = said(&text, "analyzer");
    let scope = Scope::Everything;
    let contents = read::file(&*name, text.clone(), &Options { namespace: "", scope });
    assert_eq!(contents.problems, [], "{name}");
    let world = World::new(contents.resources, mesh, networks, "istio-system", scope, now());
    let outcome = analyzer::run(&world, &analyzer::named(&names));
    let mut found: Vec<(String, String)> = messages(&outcome.findings, None, &[])
        .into_iter()
        .filter(|message| name.starts_with(message.code.as_str()))
        .map(|message| (message.origin.unwrap_or_default(), message.reference.unwrap_or_default()))
        .collect();
    let all = format!("{found:?}");
    for expected in said(&text, "expect") {
        let mut words = expected.split(' ');
        let origin = format!("{} {}", words.next().unwrap(), words.next().unwrap());
        let line = words.next().map(|line| format!("{name}:{line}"));
        let fits = |(of, at): &(String, String)| *of == origin && line.as_ref().is_none_or(|line| line == at);
        match found.iter().position(fits) {
            Some(at) => drop(found.remove(at)),
            None => return Some(format!("{name}: {expected} is not told, but {all}")),
        }
    }
    (!found.is_empty()).then(|| format!("{name}: {found:?} is told as well"))
}

#[test]
fn every_code_is_told_of_what_it_is_about_and_of_nothing_else() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/analyze");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let wrong: Vec<String> = files.iter().filter_map(|file| wrong(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let has_case = |code: &str| files.iter().any(|file| file.to_string_lossy().contains(code));
    let missing: Vec<&str> = Code::ALL
        .iter()
        .map(|code| code.as_str())
        .filter(|code| !ELSEWHERE.contains(code) && !has_case(code))
        .collect();
    assert!(missing.is_empty(), "{missing:?} have no case");
}

fn world(resources: Vec<Resource>, scope: Scope) -> World {
    let (mesh, networks) = (MeshConfig::default(), MeshNetworks::default());
    World::new(resources, mesh, networks, "istio-system", scope, now())
}

#[test]
fn services_that_differ_between_clusters_are_told() {
    let service = |cluster: &str, spec: serde_json::Value| {
        let object = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
        let one = Resource::read(Kind::Service, object, "").unwrap();
        Resource { cluster: cluster.into(), ..one }
    };
    let port = json!([{"name": "http", "port": 80}]);
    let same = world(
        vec![service("east", json!({"ports": port})), service("west", json!({"ports": port}))],
        Scope::Everything,
    );
    assert!(
        analyzer::run(&same, &analyzer::named(&["services.MultiClusterServiceAnalyzer"])).findings.is_empty()
    );
    let headless = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 81}]});
    let other =
        world(vec![service("east", json!({"ports": port})), service("west", headless)], Scope::Everything);
    let outcome = analyzer::run(&other, &analyzer::named(&["services.MultiClusterServiceAnalyzer"]));
    let texts: Vec<&str> = outcome.findings.iter().map(|finding| finding.text.as_str()).collect();
    let want = "The service a in namespace \"shop\" is inconsistent across clusters [\"east\" \"west\"], which can \
                lead to undefined behaviors. The inconsistent behaviors are: service has mixed mode like headless \
                and clusterIP; service ports are inconsistent.";
    assert_eq!(texts, [want]);
}

#[test]
fn what_runs_is_not_missed_in_files_of_configuration() {
    let text = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: nosuch}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
";
    let scope = Scope::Configuration;
    let contents = read::file("a.yaml", text.into(), &Options { namespace: "default", scope });
    let world = world(contents.resources, scope);
    let outcome = analyzer::run(&world, &analyzer::all());
    assert!(outcome.findings.is_empty(), "{:?}", outcome.findings);
    assert!(outcome.skipped.contains(&"destinationrule.SubsetSelectPodAnalyzer"));
    assert!(!outcome.skipped.contains(&"gateway.CertificateAnalyzer"));
}

#[test]
fn files_in_all_forms_say_the_same() {
    let rule = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "a"},
        "spec": {"host": "a.example.com", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}},
    });
    let list = json!({"apiVersion": "v1", "items": [rule], "kind": "List"});
    let mut bare = rule.clone();
    bare.as_object_mut().unwrap().retain(|name, _| name == "metadata" || name == "spec");
    let typed =
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRuleList", "items": [bare]});
    let scope = Scope::Configuration;
    for (name, text) in [
        ("a.json", rule.to_string()),
        ("a.yaml", rule.to_string()),
        ("b.json", list.to_string()),
        ("b.yaml", list.to_string()),
        ("c.json", typed.to_string()),
        ("c.yaml", format!("# YAML\n{typed}\n")),
        ("d.json", format!("{rule}\n---\n{rule}\n")),
    ] {
        let options = Options { namespace: "shop", scope };
        let streamed = read::json(name, text.as_bytes(), &options);
        assert_eq!(streamed.is_some(), name != "d.json" && name != "c.yaml", "{name}");
        let contents = read::file(name, text, &options);
        assert_eq!(contents.problems, [], "{name}");
        if let Some(streamed) = streamed {
            assert_eq!(format!("{streamed:?}"), format!("{contents:?}"), "{name}");
        }
        let world = world(contents.resources, scope);
        let outcome = analyzer::run(&world, &analyzer::all());
        let told = messages(&outcome.findings, Some("shop"), &[]);
        let codes: Vec<&str> = told.iter().map(|message| message.code.as_str()).collect();
        assert_eq!(codes, ["IST0128"], "{name}");
        let reference = told[0].reference.clone().unwrap();
        assert_eq!(reference.contains(':'), name.ends_with(".yaml"), "{reference}");
    }
}

#[test]
fn what_cannot_be_read_keeps_nothing_else_from_being_read() {
    let text = "defaultConfig: {}
---
a: [
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: [1]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b}
spec: {host: b.example.com}
";
    let options = Options { namespace: "shop", scope: Scope::Configuration };
    let contents = read::file("a.yaml", text.into(), &options);
    let at: Vec<usize> = contents.problems.iter().map(|(at, _)| *at).collect();
    assert_eq!((at, contents.resources.len()), (vec![0, 1, 2], 1));
    assert_eq!(contents.problems[0].1, "unable to parse resource with no group, version and kind");
}

#[test]
fn items_of_a_list_are_read_as_documents_are() {
    let route = |name: &str, gateway: &str| {
        format!(
            "- apiVersion: networking.istio.io/v1\n  kind: VirtualService\n  metadata:\n    name: {name}\n  spec:\n\
             \x20   hosts: [{name}.example.com]\n    gateways:\n    - {gateway}\n\
             \x20   http: [{{directResponse: {{status: 200}}}}]\n"
        )
    };
    let options = Options { namespace: "shop", scope: Scope::Configuration };
    let told = |text: &str| {
        let contents = read::file("a.yaml", text.into(), &options);
        let world = world(contents.resources, options.scope);
        let outcome = analyzer::run(&world, &analyzer::all());
        let told = messages(&outcome.findings, Some("shop"), &[]);
        let told = told.iter().filter(|message| message.code == Code::ReferencedResourceNotFound);
        let told: Vec<String> = told.map(|message| message.place()).collect();
        (told, contents.problems)
    };
    let head = "---\napiVersion: v1\nkind: List\nname: &gateway nosuch\nitems:\n";
    let (one, other) = (route("a", "nosuch"), route("b", "nosuch"));
    // What stands elsewhere in the list is known, too.
    let named = route("b", "*gateway");
    for text in [format!("{head}{one}# Next\n{other}"), format!("{head}{one}# Next\n{named}")] {
        let (places, problems) = told(&text);
        assert_eq!(problems, [], "{text}");
        let want = [" (VirtualService shop/a a.yaml:13)", " (VirtualService shop/b a.yaml:23)"];
        assert_eq!(places, want, "{text}");
    }
    // Nothing of a list that is no YAML counts, and nothing after what is no object.
    let (places, problems) = told(&format!("{head}{one}- a: [\n"));
    assert!(places.is_empty(), "{places:?}");
    assert!(problems[0].1.starts_with("failed converting YAML to JSON: line "), "{problems:?}");
    let (places, problems) = told(&format!("{head}{one}- a: 1\n{other}"));
    assert_eq!((places.len(), problems.len()), (1, 1), "{problems:?}");
}

/// So many that looking at all pairs of them would not end.
#[test]
fn many_objects_are_looked_at_by_what_they_have_in_common() {
    let count = 4000;
    let mut resources = Vec::new();
    for at in 0..count {
        let namespace = format!("ns-{}", at % 50);
        let meta =
            |name: &str| json!({"name": name, "namespace": namespace, "labels": {"app": format!("a{at}")}});
        let all = [
            (Kind::Pod, json!({"metadata": meta(&format!("pod-{at}")), "spec": {}})),
            (
                Kind::Service,
                json!({
                    "metadata": meta(&format!("svc-{at}")),
                    "spec": {"selector": {"app": format!("a{at}")}, "ports": [{"name": "http", "port": 80}]},
                }),
            ),
            (
                Kind::DestinationRule,
                json!({
                    "metadata": meta(&format!("rule-{at}")),
                    "spec": {"host": format!("svc-{at}"), "subsets": [{"name": "all", "labels": {}}]},
                }),
            ),
            (
                Kind::VirtualService,
                json!({
                    "metadata": meta(&format!("route-{at}")),
                    "spec": {
                        "hosts": [format!("svc-{at}")],
                        "http": [{"route": [{"destination": {"host": format!("svc-{at}"), "subset": "all"}}]}],
                    },
                }),
            ),
            (
                Kind::Sidecar,
                json!({
                    "metadata": meta(&format!("proxy-{at}")),
                    "spec": {"workloadSelector": {"labels": {"app": format!("a{at}")}}},
                }),
            ),
        ];
        resources.extend(all.into_iter().map(|(kind, object)| Resource::read(kind, object, "").unwrap()));
    }
    let world = world(resources, Scope::Everything);
    let outcome = analyzer::run(&world, &analyzer::all());
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in &outcome.findings {
        *codes.entry(finding.code.as_str()).or_default() += 1;
    }
    let unexpected = ["IST0101", "IST0110", "IST0109", "IST0173", "IST0174"];
    assert!(unexpected.iter().all(|code| !codes.contains_key(code)), "{codes:?}");
    assert!(outcome.skipped.is_empty());
}

#[test]
fn the_documentation_has_every_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/analyze.md");
    let text = fs::read_to_string(file).unwrap();
    for code in Code::ALL {
        let row = format!("| {code} | {} | {} | {} |", code.level(), code.name(), code.template());
        assert!(text.lines().any(|line| line == row), "docs/analyze.md lacks the row {row}");
    }
}
