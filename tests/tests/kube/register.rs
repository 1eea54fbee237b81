//! Workloads on plain hosts that register themselves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use istio_tests::grpc::{Channel, Exchange};
use istio_tests::kube::Istiod;
use istio_tests::netns::pause;
use names::TypeUrl;
use nix::sys::signal::Signal;
use prost_types::value::Kind;
use prost_types::{Struct, Value as Wire};
use proto::envoy::config::core::v3::Node;
use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::google::rpc::Status;
use serde_json::{Value, json};

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("a_workload_has_an_entry_as_long_as_it_is_connected", life),
    ("a_workload_that_goes_to_another_istiod_keeps_its_entry", moves),
    ("a_workload_registers_only_as_what_it_is", refused),
    ("an_entry_that_somebody_wrote_takes_the_health_of_its_workload", written),
    ("a_workload_gets_its_configuration_while_the_api_server_is_away", away),
    ("what_a_killed_istiod_leaves_is_cleaned_up", left),
];

const API: &str = "networking.istio.io/v1";
const NAMESPACE: &str = "vms";
const AUDIENCE: &str = "istio-ca";
/// Entries go soon after their workloads.
const GRACE: (&str, &str) = ("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "2s");
/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_secs(60);

type Stream = Exchange<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// The metadata of a node.
fn metadata(texts: &[(&str, &str)]) -> Struct {
    let mut fields: BTreeMap<String, Wire> = texts
        .iter()
        .map(|(key, text)| ((*key).to_owned(), wire(Kind::StringValue((*text).into()))))
        .collect();
    let port = [("port".to_owned(), wire(Kind::NumberValue(8080.0)))];
    let get = [("httpGet".to_owned(), wire(Kind::StructValue(Struct { fields: port.into() })))];
    let probe = [("readinessProbe".to_owned(), wire(Kind::StructValue(Struct { fields: get.into() })))];
    fields.insert("PROXY_CONFIG".into(), wire(Kind::StructValue(Struct { fields: probe.into() })));
    Struct { fields }
}

fn wire(kind: Kind) -> Wire {
    Wire { kind: Some(kind) }
}

fn group(name: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "WorkloadGroup", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "metadata": {"labels": {"app": name}, "annotations": {"note": "x"}},
            "template": {"serviceAccount": "web", "ports": {"http": 8080}, "locality": "r/z"},
        },
    })
}

impl Stage {
    fn with_group(&self, name: &str) -> anyhow::Result<()> {
        self.define()?;
        self.cluster.namespace(NAMESPACE, &[])?;
        self.cluster.account(NAMESPACE, "web")?;
        self.cluster.apply(&[group(name)])
    }

    fn registrar(&self, environment: &[(&str, &str)]) -> anyhow::Result<Istiod> {
        let mut istiod = Istiod::of(&self.cluster, &self.program, environment)?;
        istiod.wait_ready()?;
        Ok(istiod)
    }

    /// Connects as a workload; without a token, over the port that asks for none.
    fn connect(
        &self,
        istiod: &Istiod,
        token: Option<&str>,
        address: &str,
        texts: &[(&str, &str)],
    ) -> anyhow::Result<(Stream, DeltaDiscoveryResponse)> {
        let mut all = vec![("NAMESPACE", NAMESPACE), ("SERVICE_ACCOUNT", "web")];
        all.extend(texts);
        let first = DeltaDiscoveryRequest {
            node: Some(Node {
                id: format!("sidecar~{address}~vm.{NAMESPACE}~{NAMESPACE}.svc.cluster.local"),
                metadata: Some(metadata(&all)),
                ..Node::default()
            }),
            type_url: TypeUrl::Cluster.as_str().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let roots = if token.is_some() { self.wait_roots(NAMESPACE)? } else { String::new() };
        self.cluster.run(async {
            let channel = match token {
                Some(_) => Channel::tls(istiod.secure, &roots).await?,
                None => Channel::plain(istiod.grpc).await?,
            };
            let mut stream = channel.delta(token, first).await?;
            let answer = tokio::time::timeout(PATIENCE, stream.next()).await.context("no answer")??;
            Ok((stream, answer))
        })
    }

    fn token(&self) -> anyhow::Result<String> {
        self.cluster.token(NAMESPACE, "web", &[AUDIENCE])
    }

    fn tell(&self, stream: &Stream, why: Option<&str>) -> anyhow::Result<()> {
        let request = DeltaDiscoveryRequest {
            type_url: TypeUrl::Health.as_str().to_owned(),
            error_detail: why.map(|why| Status { code: 13, message: why.into(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        self.cluster.run(stream.send(request))
    }

    fn entry(&self, name: &str) -> anyhow::Result<Option<Value>> {
        self.cluster.get(API, "WorkloadEntry", NAMESPACE, name)
    }

    /// The entry once it is as it should be.
    fn wait_entry(&self, what: &str, name: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begin = Instant::now();
        loop {
            let entry = self.entry(name)?.unwrap_or_default();
            if fits(&entry) {
                return Ok(entry);
            }
            ensure!(begin.elapsed() < PATIENCE, "{what}: {entry:#}");
            pause();
        }
    }

    fn wait_gone(&self, name: &str) -> anyhow::Result<()> {
        self.wait_entry("it is still there", name, Value::is_null).map(drop)
    }
}

fn mark<'a>(entry: &'a Value, name: &str) -> &'a Value {
    &entry["metadata"]["annotations"][format!("istio.io/{name}")]
}

fn is_well(entry: &Value) -> Option<bool> {
    let conditions = entry["status"]["conditions"].as_array()?;
    let healthy = conditions.iter().find(|one| one["type"] == "Healthy")?;
    Some(healthy["status"] == "True")
}

fn metric(istiod: &Istiod, name: &str) -> anyhow::Result<String> {
    let page = istiod.get(istiod.monitoring, "/metrics")?;
    let name = format!("auto_registration_{name}_total ");
    Ok(page.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default().to_owned())
}

fn life(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    let istiod = stage.registrar(&[GRACE])?;
    let labels = [("AUTO_REGISTER_GROUP", "web"), ("NETWORK", "n1")];
    let (stream, _) = stage.connect(&istiod, Some(&stage.token()?), "10.9.0.7", &labels)?;
    let name = "web-10.9.0.7-n1";
    // It is there before the workload gets anything.
    let entry = stage.entry(name)?.context("no entry")?;
    let expected = json!({
        "address": "10.9.0.7", "labels": {"app": "web"}, "locality": "r/z", "network": "n1",
        "ports": {"http": 8080}, "serviceAccount": "web",
    });
    ensure!(entry["spec"] == expected, "{}", entry["spec"]);
    let metadata = &entry["metadata"];
    ensure!(
        metadata["labels"] == json!({"app": "web"}) && metadata["annotations"]["note"] == "x",
        "{metadata}"
    );
    ensure!(metadata["annotations"]["proxy.istio.io/health-checks-enabled"] == "true", "{metadata}");
    ensure!(*mark(&entry, "autoRegistrationGroup") == "web", "{metadata}");
    let controller = mark(&entry, "workloadController");
    ensure!(controller.is_string() && mark(&entry, "connectedAt").is_string(), "{metadata}");
    let owner = stage.cluster.get(API, "WorkloadGroup", NAMESPACE, "web")?.context("no group")?;
    let owners = json!([{
        "apiVersion": API, "kind": "WorkloadGroup", "name": "web", "controller": true,
        "uid": owner["metadata"]["uid"],
    }]);
    ensure!(metadata["ownerReferences"] == owners, "{metadata}");
    ensure!(is_well(&entry).is_none(), "{entry}");

    stage.tell(&stream, Some("no answer"))?;
    let entry = stage.wait_entry("it is not well", name, |entry| is_well(entry) == Some(false))?;
    let condition = &entry["status"]["conditions"][0];
    ensure!(condition["message"] == "no answer" && condition["lastProbeTime"].is_string(), "{condition}");
    stage.tell(&stream, None)?;
    let entry = stage.wait_entry("it is well", name, |entry| is_well(entry) == Some(true))?;
    ensure!(entry["status"]["conditions"].as_array().map_or(0, Vec::len) == 1, "{}", entry["status"]);

    // Somebody deletes it, which istiod has to see: its workload is still there.
    let begin = Instant::now();
    while !istiod.get(istiod.monitoring, "/debug/configz")?.contains(name) {
        ensure!(begin.elapsed() < PATIENCE, "istiod does not see it");
        pause();
    }
    stage.cluster.delete(API, "WorkloadEntry", NAMESPACE, name)?;
    stage.wait_entry("it is made again", name, |entry| *mark(entry, "workloadController") == *controller)?;

    drop(stream);
    let is_left = |entry: &Value| mark(entry, "disconnectedAt").is_string();
    let entry = stage.wait_entry("it has left", name, is_left)?;
    ensure!(mark(&entry, "connectedAt").is_null(), "{entry}");
    stage.wait_gone(name)?;
    for (name, count) in
        [("success", "2"), ("updates", "0"), ("unregister", "1"), ("deletes", "1"), ("errors", "0")]
    {
        ensure!(metric(&istiod, name)? == count, "{name}: {:?}", metric(&istiod, name)?);
    }
    Ok(())
}

fn moves(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    let istiods =
        [stage.registrar(&[GRACE, ("POD_NAME", "a")])?, stage.registrar(&[GRACE, ("POD_NAME", "b")])?];
    let token = stage.token()?;
    let labels = [("AUTO_REGISTER_GROUP", "web")];
    let name = "web-10.9.0.8";
    // Two connections at a time, as proxies have.
    let first = stage.connect(&istiods[0], Some(&token), "10.9.0.8", &labels)?;
    let second = stage.connect(&istiods[0], Some(&token), "10.9.0.8", &labels)?;
    let entry = stage.entry(name)?.context("no entry")?;
    ensure!(*mark(&entry, "workloadController") == "a", "{entry}");
    drop(first);
    drop(second);
    stage.wait_entry("it has left", name, |entry| mark(entry, "disconnectedAt").is_string())?;
    let there = stage.connect(&istiods[1], Some(&token), "10.9.0.8", &labels)?;
    let moved = stage.entry(name)?.context("no entry")?;
    ensure!(*mark(&moved, "workloadController") == "b", "{moved}");
    ensure!(mark(&moved, "disconnectedAt").is_null() && mark(&moved, "connectedAt").is_string(), "{moved}");
    // Also from one to the other without a moment in between.
    let back = stage.connect(&istiods[0], Some(&token), "10.9.0.8", &labels)?;
    drop(there);
    std::thread::park_timeout(Duration::from_secs(3));
    let kept = stage.entry(name)?.context("it is gone")?;
    ensure!(kept["metadata"]["uid"] == entry["metadata"]["uid"], "{kept}");
    ensure!(*mark(&kept, "workloadController") == "a" && mark(&kept, "disconnectedAt").is_null(), "{kept}");
    // What was told to one of them counts no more at the other.
    stage.tell(&back.0, None)?;
    stage.wait_entry("it is well", name, |entry| is_well(entry) == Some(true))?;
    drop(back);
    stage.wait_gone(name)
}

fn refused(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    stage.cluster.account(NAMESPACE, "other")?;
    let istiod = stage.registrar(&[GRACE])?;
    let token = stage.token()?;
    let other = stage.cluster.token(NAMESPACE, "other", &[AUDIENCE])?;
    let ask = |token: Option<&str>, texts: &[(&str, &str)]| -> anyhow::Result<String> {
        let answer = stage.connect(&istiod, token, "10.9.0.9", texts);
        Ok(format!("{:#}", answer.err().context("it was let in")?))
    };
    /// Token, metadata of the node, and words of the refusal.
    type Refused<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a str);
    let cases: &[Refused<'_>] = &[
        // It says truly who it is, and may not be of the group.
        (
            Some(&other),
            &[("AUTO_REGISTER_GROUP", "web"), ("SERVICE_ACCOUNT", "other")],
            "service account vms/web",
        ),
        // Nobody has shown who it is.
        (None, &[("AUTO_REGISTER_GROUP", "web")], "shows who it is"),
        (Some(&token), &[("AUTO_REGISTER_GROUP", "none")], "WorkloadGroup vms/none"),
        (Some(&token), &[("WORKLOAD_ENTRY", "none")], "WorkloadEntry vms/none"),
    ];
    for (token, texts, want) in cases {
        let answer = ask(*token, texts)?;
        ensure!(answer.contains(want), "{texts:?}: {answer}");
    }
    ensure!(stage.entry("web-10.9.0.9")?.is_none(), "it has an entry");
    let off = stage.registrar(&[("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", "false")])?;
    drop(stage.connect(&off, Some(&token), "10.9.0.9", &[("AUTO_REGISTER_GROUP", "web")])?);
    ensure!(stage.entry("web-10.9.0.9")?.is_none(), "it has an entry");
    Ok(())
}

fn written(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    stage.cluster.apply(&[json!({
        "apiVersion": API, "kind": "WorkloadEntry",
        "metadata": {
            "name": "own", "namespace": NAMESPACE,
            "annotations": {"proxy.istio.io/health-checks-enabled": "true"},
        },
        "spec": {"address": "10.9.0.10", "serviceAccount": "web"},
    })])?;
    let istiod = stage.registrar(&[GRACE])?;
    // The entry may not have come to istiod yet.
    let begin = Instant::now();
    let (stream, _) = loop {
        match stage.connect(&istiod, Some(&stage.token()?), "10.9.0.10", &[("WORKLOAD_ENTRY", "own")]) {
            Ok(connected) => break connected,
            Err(error) => ensure!(begin.elapsed() < PATIENCE, "{error:#}"),
        }
        pause();
    };
    stage.tell(&stream, None)?;
    stage.wait_entry("it is well", "own", |entry| is_well(entry) == Some(true))?;
    drop(stream);
    // It stays, and nobody knows any more how its workload is.
    let entry = stage.wait_entry("nobody knows", "own", |entry| is_well(entry).is_none())?;
    ensure!(mark(&entry, "disconnectedAt").is_string() && entry["spec"]["address"] == "10.9.0.10", "{entry}");
    stage.cluster.delete(API, "WorkloadEntry", NAMESPACE, "own")
}

fn away(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    // Tokens are not checked while the API server is away.
    let istiod = stage.registrar(&[GRACE, ("ISTIO_WORKLOAD_ENTRY_VALIDATE_IDENTITY", "false")])?;
    // It has to know the group.
    let known = stage.connect(&istiod, None, "10.9.0.11", &[("AUTO_REGISTER_GROUP", "web")])?;
    stage.cluster.kill_api()?;
    let (stream, answer) = stage.connect(&istiod, None, "10.9.0.12", &[("AUTO_REGISTER_GROUP", "web")])?;
    ensure!(!answer.resources.is_empty(), "it got no clusters");
    // The other one leaves meanwhile.
    drop(known);
    stage.cluster.start_api()?;
    stage.wait_entry("its entry", "web-10.9.0.12", |entry| mark(entry, "connectedAt").is_string())?;
    stage.wait_gone("web-10.9.0.11")?;
    drop(stream);
    stage.wait_gone("web-10.9.0.12")
}

fn left(stage: &mut Stage) -> anyhow::Result<()> {
    stage.with_group("web")?;
    let environment = [("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "500ms"), ("ENABLE_LEADER_ELECTION", "false")];
    let mut istiod = stage.registrar(&environment)?;
    let connected =
        stage.connect(&istiod, Some(&stage.token()?), "10.9.0.13", &[("AUTO_REGISTER_GROUP", "web")])?;
    istiod.process.signal(Signal::SIGKILL);
    istiod.process.wait(PATIENCE)?;
    drop(connected);
    let entry = stage.entry("web-10.9.0.13")?.context("no entry")?;
    ensure!(mark(&entry, "disconnectedAt").is_null(), "{entry}");
    let config = stage.cluster.kubeconfig();
    let flags: [&dyn AsRef<std::ffi::OsStr>; 4] =
        [&"--kubeconfig", &config, &"--keepaliveMaxServerConnectionAge", &"2s"];
    let mut next = Istiod::start(&stage.program, &flags, &environment)?;
    next.wait_ready()?;
    stage.wait_gone("web-10.9.0.13")
}
