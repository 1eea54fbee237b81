//! What istiod sees of a cluster.

use std::fs;
use std::time::Duration;

use anyhow::ensure;
use istio_tests::kube::{Cut, Istiod};
use serde_json::{Value, json};

use super::{Case, NODE, Stage, cluster_of, differences, service};

pub(super) const CASES: &[Case] = &[
    ("a_cluster_without_istios_kinds_is_served_and_they_count_when_they_come", kinds_come_later),
    ("an_api_server_takes_an_object_of_every_kind", every_kind),
    ("a_cluster_is_served_as_the_directory_with_the_same_objects", as_directory),
    ("objects_that_are_made_changed_and_deleted_are_seen", changes),
    ("of_one_namespace_nothing_else_is_seen", one_namespace),
    ("the_mesh_configuration_is_that_of_the_config_map", mesh_configuration),
    ("nothing_is_lost_on_a_way_that_is_cut_all_the_time", cut),
];

/// The kinds and versions that the suite has objects of.
const DUMPED: &[(&str, &str)] = &[
    ("v1", "Namespace"),
    ("v1", "Service"),
    ("v1", "Pod"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("networking.istio.io/v1", "VirtualService"),
    ("networking.istio.io/v1", "DestinationRule"),
    ("security.istio.io/v1", "PeerAuthentication"),
];

fn kinds_come_later(stage: &mut Stage) -> anyhow::Result<()> {
    let istiod = stage.istiod()?;
    stage.cluster.apply(&[service("default", "early")])?;
    let early = cluster_of("default", "early");
    istiod.wait_clusters(NODE, "a service", |names| names.contains(&early))?;
    stage.define()?;
    stage.cluster.apply(&[json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "late", "namespace": "default"},
        "spec": {
            "hosts": ["late.example.com"], "resolution": "DNS",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        },
    })])?;
    istiod.wait_clusters(NODE, "an entry", |names| {
        names.contains(&"outbound|80||late.example.com".to_owned())
    })?;
    stage.cluster.delete("networking.istio.io/v1", "ServiceEntry", "default", "late")?;
    stage.cluster.delete("v1", "Service", "default", "early")?;
    istiod.wait_clusters(NODE, "both gone", |names| {
        !names.iter().any(|name| name.contains("late") || *name == early)
    })?;
    Ok(())
}

fn every_kind(stage: &mut Stage) -> anyhow::Result<()> {
    stage.define()?;
    stage.cluster.namespace("kinds", &[])?;
    let text = include_str!("../../data/kube/kinds.yaml");
    stage.cluster.apply_yaml(text)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let kinds = config::Kind::ALL.iter().filter(|kind| kind.is_istio()).count();
    ensure!(objects.len() == kinds, "{} objects of {kinds} kinds", objects.len());
    // A field that the definition does not have would be gone.
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let found = stage.cluster.get(&version, &kind, "kinds", "a")?.unwrap_or_default();
        ensure!(found["spec"] == object["spec"], "{kind}: {} is not {}", found["spec"], object["spec"]);
        stage.cluster.delete(&version, &kind, "kinds", "a")?;
    }
    Ok(())
}

fn as_directory(stage: &mut Stage) -> anyhow::Result<()> {
    stage.bookinfo()?;
    let istiod = stage.istiod()?;
    let dir = tempfile::tempdir()?;
    let mut objects = Vec::new();
    for (version, kind) in DUMPED {
        objects.extend(stage.cluster.list(version, kind)?);
    }
    fs::write(
        dir.path().join("objects.json"),
        json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string(),
    )?;
    let mut other = Istiod::start(&stage.program, &[&"--configDir", &dir.path()], &[])?;
    other.wait_ready()?;
    for (name, account) in [("productpage-v1", "productpage"), ("reviews-v1", "reviews")] {
        let address = if name == "reviews-v1" { "10.77.0.12" } else { "10.77.0.11" };
        let node = format!("sidecar~{address}~{name}.default~default.svc.cluster.local");
        let (a, b) = (istiod.resources(&node, &["9080"])?, other.resources(&node, &["9080"])?);
        let counts: Vec<usize> = a.values().map(|resources| resources.len()).collect();
        ensure!(a["clusters"].len() > 6 && a["endpoints"].len() > 4, "{account}: {counts:?}");
        let different = differences(&a, &b);
        ensure!(different.is_empty(), "{account}: {different:?}");
    }
    Ok(())
}

fn changes(stage: &mut Stage) -> anyhow::Result<()> {
    let istiod = stage.istiod()?;
    let names: Vec<String> = (0..20).map(|number| format!("made-{number}")).collect();
    let services: Vec<Value> = names.iter().map(|name| service("default", name)).collect();
    stage.cluster.apply(&services)?;
    let all: Vec<String> = names.iter().map(|name| cluster_of("default", name)).collect();
    istiod.wait_clusters(NODE, "all services", |found| all.iter().all(|name| found.contains(name)))?;
    let mut changed = service("default", "made-0");
    changed["spec"]["ports"][0]["port"] = 81.into();
    stage.cluster.apply(&[changed])?;
    let other = all[0].replace("|80|", "|81|");
    istiod.wait_clusters(NODE, "another port", |found| found.contains(&other) && !found.contains(&all[0]))?;
    for name in &names {
        stage.cluster.delete("v1", "Service", "default", name)?;
    }
    istiod.wait_clusters(NODE, "none", |found| !found.iter().any(|name| name.contains("made-")))?;
    Ok(())
}

fn mesh_configuration(stage: &mut Stage) -> anyhow::Result<()> {
    let map = |text: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": text},
        })
    };
    let cluster = &stage.cluster;
    cluster.namespace("istio-system", &[])?;
    cluster.namespace("inside", &[("mesh", "yes")])?;
    cluster.namespace("outside", &[("mesh", "no")])?;
    cluster.apply(&[service("inside", "a"), service("outside", "a")])?;
    let selectors = "discoverySelectors: [{matchExpressions: [{key: mesh, operator: In, values: ['yes']}]}]";
    cluster.apply(&[map(selectors)])?;
    let istiod = stage.istiod()?;
    let (inside, outside) = (cluster_of("inside", "a"), cluster_of("outside", "a"));
    let only_inside = |found: &[String]| found.contains(&inside) && !found.contains(&outside);
    let both = |found: &[String]| found.contains(&inside) && found.contains(&outside);
    istiod.wait_clusters(NODE, "selected namespaces", only_inside)?;
    cluster.namespace("outside", &[("mesh", "yes")])?;
    istiod.wait_clusters(NODE, "a namespace joins", both)?;
    cluster.namespace("outside", &[("mesh", "no")])?;
    istiod.wait_clusters(NODE, "a namespace leaves", only_inside)?;
    // What cannot be used changes nothing; what can does.
    cluster.apply(&[map("{trustDomain: ")])?;
    cluster.apply(&[map("{}")])?;
    istiod.wait_clusters(NODE, "no selectors", both)?;
    cluster.delete("v1", "ConfigMap", "istio-system", "istio")?;
    for namespace in ["inside", "outside"] {
        cluster.delete("v1", "Service", namespace, "a")?;
    }
    Ok(())
}

fn cut(stage: &mut Stage) -> anyhow::Result<()> {
    let cut = Cut::start(stage.cluster.address(), Duration::from_millis(700))?;
    let kubeconfig = stage.cluster.kubeconfig_via("cut", &format!("https://{}", cut.address))?;
    let mut istiod = Istiod::start(&stage.program, &[&"--kubeconfig", &kubeconfig], &[])?;
    istiod.wait_ready()?;
    let mut expected = Vec::new();
    for round in 0..8 {
        let name = format!("cut-{round}");
        stage.cluster.apply(&[service("default", &name)])?;
        expected.push(cluster_of("default", &name));
        if round % 3 == 2 {
            let gone = format!("cut-{}", round - 1);
            stage.cluster.delete("v1", "Service", "default", &gone)?;
            expected.retain(|name| *name != cluster_of("default", &gone));
        }
        std::thread::park_timeout(Duration::from_millis(400));
    }
    istiod.wait_clusters(NODE, "all that there are", |found| {
        let ours: Vec<&String> = found.iter().filter(|name| name.contains("||cut-")).collect();
        ours.len() == expected.len() && expected.iter().all(|name| ours.contains(&name))
    })?;
    for round in 0..8 {
        stage.cluster.delete("v1", "Service", "default", &format!("cut-{round}"))?;
    }
    Ok(())
}

fn one_namespace(stage: &mut Stage) -> anyhow::Result<()> {
    stage.cluster.namespace("watched", &[])?;
    stage.cluster.apply(&[service("watched", "seen"), service("default", "unseen")])?;
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &[("ISTIO_WATCH_NAMESPACE", "watched")])?;
    istiod.wait_ready()?;
    let (seen, unseen) = (cluster_of("watched", "seen"), cluster_of("default", "unseen"));
    let took = |names: &[String]| names.contains(&seen) && !names.contains(&unseen);
    istiod.wait_clusters(NODE, "the service of the namespace alone", took)?;
    // It has its roots.
    let map = |namespace: &str| stage.cluster.get("v1", "ConfigMap", namespace, "istio-ca-root-cert");
    let begin = std::time::Instant::now();
    while map("watched")?.is_none() {
        ensure!(begin.elapsed() < Duration::from_secs(60), "no roots: {}", istiod.output());
        istio_tests::netns::pause();
    }
    // What comes in others later is not seen either: this one, which comes after it, is.
    stage.cluster.apply(&[service("default", "unseen-too"), service("watched", "seen-too")])?;
    let (seen, unseen) = (cluster_of("watched", "seen-too"), cluster_of("default", "unseen-too"));
    istiod.wait_clusters(NODE, "another service of it", |names| {
        names.contains(&seen) && !names.contains(&unseen)
    })?;
    stage.cluster.delete("v1", "Service", "default", "unseen")?;
    stage.cluster.delete("v1", "Service", "default", "unseen-too")?;
    for name in ["seen", "seen-too"] {
        stage.cluster.delete("v1", "Service", "watched", name)?;
    }
    Ok(())
}
