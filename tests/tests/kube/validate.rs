//! The webhooks that the API server asks before it stores an object of ours.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use istio_tests::kube::{Cluster, Istiod};
use istio_tests::netns::pause;
use istio_tests::oracle::validate::cases;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Case, Stage, service};

pub(super) const CASES: &[Case] = &[
    ("the_validator_refuses_what_is_wrong_and_warns_of_what_leads_nowhere", validates),
    ("a_ca_bundle_that_is_removed_is_repaired", repairs),
    ("failure_policy_becomes_fail_once_the_validator_is_called_unless_it_is_to_stay", hardens),
    ("definitions_and_validator_together_store_what_was_recorded", recorded),
];

/// Folder with recorded answers of Istio.
const ORACLE: &str = "ISTIO_TEST_ORACLE";
/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const GROUP: &str = "admissionregistration.k8s.io/v1";
const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";
/// Names of the configurations that cases make.
const NAMES: [(&str, &str); 3] = [
    (VALIDATING, "istio-validator-istio-system"),
    (VALIDATING, "istiod-default-validator"),
    (MUTATING, "istio-sidecar-injector"),
];

/// An answer of the API server: status, warnings and body.
struct Said {
    status: u16,
    warnings: String,
    body: Value,
}

fn ask(
    cluster: &Cluster,
    method: Method,
    path: &str,
    media_type: &str,
    body: &Value,
) -> anyhow::Result<Said> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, media_type)
        .body(Body::from(body.to_string().into_bytes()))?;
    let client = cluster.client();
    cluster.run(async {
        let answer: Response<Body> = client.send(request).await?;
        let warnings = answer.headers().get_all(http::header::WARNING).iter();
        let warnings: Vec<String> =
            warnings.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(Said { status, warnings: warnings.join("\n"), body: serde_json::from_slice(&body)? })
    })
}

/// Asks the API server to store an object.
fn create(cluster: &Cluster, object: &Value, is_dry_run: bool) -> anyhow::Result<Said> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind =
        config::Kind::ALL.iter().find(|kind| kind.as_str() == text("/kind")).context("no kind of ours")?;
    let namespace = text("/metadata/namespace");
    let dry_run = if is_dry_run { "?dryRun=All" } else { "" };
    let path = format!("/apis/{}/namespaces/{namespace}/{}{dry_run}", text("/apiVersion"), kind.plural());
    ask(cluster, Method::POST, &path, "application/json", object)
}

/// A configuration as the chart makes it, but that its webhook is at an address of this machine.
fn configuration(kind: &str, name: &str, hook: &str, istiod: &Istiod, rules: &Value) -> Value {
    let path = if kind == MUTATING { "inject" } else { "validate" };
    json!({
        "apiVersion": GROUP,
        "kind": kind,
        "metadata": {"name": name, "labels": {"istio.io/rev": "default"}},
        "webhooks": [{
            "name": hook,
            "clientConfig": {"url": format!("https://{}/{path}", istiod.webhooks)},
            "rules": [rules],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    })
}

fn validator(istiod: &Istiod) -> Value {
    let rules = json!({
        "operations": ["CREATE", "UPDATE"],
        "apiGroups": ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"],
        "apiVersions": ["*"],
        "resources": ["*"],
    });
    configuration(VALIDATING, NAMES[0].1, "validation.istio.io", istiod, &rules)
}

/// Runs a case with an istiod that the API server trusts at its address, and
/// takes the configurations away whatever comes of it.
fn with_istiod(
    stage: &Stage,
    case: impl FnOnce(&Cluster, &Istiod) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    stage.define()?;
    stage.cluster.namespace("istio-system", &[])?;
    let environment = [("ISTIOD_CUSTOM_HOST", "127.0.0.1"), ("POD_NAME", "istiod-test")];
    let mut istiod = Istiod::of(&stage.cluster, &stage.program, &environment)?;
    istiod.wait_ready()?;
    let result = case(&stage.cluster, &istiod).with_context(|| istiod.output());
    for (kind, name) in NAMES {
        stage.cluster.delete(GROUP, kind, "", name)?;
    }
    result
}

/// Waits until a field of the configuration's first webhook is as it should be.
fn wait_for(
    cluster: &Cluster,
    (kind, name): (&str, &str),
    field: &str,
    fits: impl Fn(&str) -> bool,
) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    loop {
        let object = cluster.get(GROUP, kind, "", name)?.context("the configuration is gone")?;
        let value =
            object.pointer(&format!("/webhooks/0/{field}")).and_then(Value::as_str).unwrap_or_default();
        if fits(value) {
            return Ok(begin.elapsed());
        }
        ensure!(begin.elapsed() < PATIENCE, "{name}: {field} is {value:?}");
        pause();
    }
}

fn wait_bundle(cluster: &Cluster, which: (&str, &str)) -> anyhow::Result<Duration> {
    wait_for(cluster, which, "clientConfig/caBundle", |bundle| !bundle.is_empty())
}

fn virtual_service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

/// Waits until the API server asks our webhook: it learns of a change a little later.
fn wait_called(cluster: &Cluster) -> anyhow::Result<()> {
    let wrong = virtual_service("wrong", &json!({"hosts": ["a"]}));
    let begin = Instant::now();
    loop {
        let said = create(cluster, &wrong, true)?;
        if said.body["message"].as_str().is_some_and(|message| message.contains("denied the request")) {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "not asked: {} {}", said.status, said.body);
        pause();
    }
}

fn validates(stage: &mut Stage) -> anyhow::Result<()> {
    with_istiod(stage, |cluster, istiod| {
        cluster.apply(&[validator(istiod), service("default", "validated")])?;
        wait_bundle(cluster, NAMES[0])?;
        wait_called(cluster)?;
        let route = |host: &str, more: Value| {
            let mut route = json!({"route": [{"destination": {"host": host}, "weight": 100}]});
            route
                .as_object_mut()
                .into_iter()
                .for_each(|map| map.extend(more.as_object().cloned().unwrap_or_default()));
            json!({"hosts": ["validated"], "http": [route]})
        };
        let wrong = virtual_service("wrong", &route("validated", json!({"timeout": "0.1ms"})));
        let said = create(cluster, &wrong, false)?;
        let message = said.body["message"].as_str().unwrap_or_default();
        ensure!(
            said.status >= 400 && message.contains("spec.http[0].timeout"),
            "{} {}",
            said.status,
            said.body
        );
        let lost = virtual_service("lost", &route("nowhere", json!({})));
        let begin = Instant::now();
        loop {
            let said = create(cluster, &lost, true)?;
            ensure!(said.status < 300, "{} {}", said.status, said.body);
            if said
                .warnings
                .contains("spec.http[0].route[0].destination: there is no service nowhere.default")
            {
                break;
            }
            ensure!(begin.elapsed() < PATIENCE, "warnings: {:?}", said.warnings);
            pause();
        }
        let good = virtual_service("good", &route("validated", json!({})));
        let begin = Instant::now();
        // The service may not have been seen yet.
        while !create(cluster, &good, true)?.warnings.is_empty() {
            ensure!(begin.elapsed() < PATIENCE, "a good object is warned of");
            pause();
        }
        let said = create(cluster, &good, false)?;
        ensure!(said.status == 201, "{} {}", said.status, said.body);
        let metrics = istiod.get(istiod.monitoring, "/metrics")?;
        for name in
            ["galley_validation_passed{", "galley_validation_failed{", "webhook_patch_attempts_total{"]
        {
            ensure!(metrics.contains(name), "no {name}: {metrics}");
        }
        cluster.delete("networking.istio.io/v1", "VirtualService", "default", "good")?;
        cluster.delete("v1", "Service", "default", "validated")
    })
}

fn repairs(stage: &mut Stage) -> anyhow::Result<()> {
    with_istiod(stage, |cluster, istiod| {
        let rules = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        let (kind, name) = NAMES[2];
        let mut injector = configuration(kind, name, "rev.object.sidecar-injector.istio.io", istiod, &rules);
        injector["webhooks"][0]["objectSelector"] = json!({"matchLabels": {"nobody": "has-it"}});
        let mut other = injector.clone();
        other["metadata"] = json!({"name": "other", "labels": {"istio.io/rev": "other"}});
        cluster.apply(&[validator(istiod), injector, other])?;
        let result = [NAMES[0], NAMES[2]].into_iter().try_for_each(|(kind, name)| {
            wait_bundle(cluster, (kind, name))?;
            let plural = format!("{}s", kind.to_ascii_lowercase());
            let removal = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
            let said = ask(
                cluster,
                Method::PATCH,
                &format!("/apis/{GROUP}/{plural}/{name}"),
                "application/json-patch+json",
                &removal,
            )?;
            ensure!(said.status == 200, "{} {}", said.status, said.body);
            let took = wait_bundle(cluster, (kind, name))?;
            println!("caBundle of {name} was repaired after {took:?}");
            Ok(())
        });
        let other = cluster.get(GROUP, MUTATING, "", "other")?.context("the other revision's is gone")?;
        cluster.delete(GROUP, MUTATING, "", "other")?;
        ensure!(other.pointer("/webhooks/0/clientConfig/caBundle").is_none(), "of another revision: {other}");
        result
    })
}

fn hardens(stage: &mut Stage) -> anyhow::Result<()> {
    with_istiod(stage, |cluster, istiod| {
        let mut soft = validator(istiod);
        soft["webhooks"][0]["failurePolicy"] = "Ignore".into();
        let mut kept = soft.clone();
        kept["metadata"]["annotations"] = json!({"istio.io/failure-policy": "keep"});
        cluster.apply(&[kept])?;
        wait_bundle(cluster, NAMES[0])?;
        wait_called(cluster)?;
        let mut other = soft.clone();
        other["metadata"]["name"] = NAMES[1].1.into();
        cluster.apply(&[other])?;
        wait_for(cluster, NAMES[1], "failurePolicy", |policy| policy == "Fail")?;
        let kept = cluster.get(GROUP, VALIDATING, "", NAMES[0].1)?.context("gone")?;
        ensure!(kept["webhooks"][0]["failurePolicy"] == "Ignore", "{kept}");
        ensure!(
            cluster.get("networking.istio.io/v1", "Gateway", "istio-system", "invalid-gateway")?.is_none(),
            "what the validator was tried with is stored"
        );
        Ok(())
    })
}

/// What is stored is what both a definition and the validator accept.
fn recorded(stage: &mut Stage) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the harness's environment")]
    let Ok(dir) = env::var(ORACLE) else {
        println!("{ORACLE} does not say where recorded answers are: left out");
        return Ok(());
    };
    stage.define()?;
    let mut wrong = Vec::new();
    let (mut equal, mut listed) = (0, 0);
    for case in cases(&Path::new(&dir).join("validate"))? {
        if case.operation.as_deref().unwrap_or("CREATE") != "CREATE" {
            continue;
        }
        let mut object = case.object.clone();
        let Some(kind) = config::Kind::ALL.iter().find(|kind| object["kind"] == kind.as_str()) else {
            continue;
        };
        let version =
            kind.versions().iter().find(|version| kind.as_str() != "ProxyConfig" || **version == "v1beta1");
        object["apiVersion"] = format!("{}/{}", kind.group(), version.context("no version")?).into();
        // Definitions say nothing of names; the validator was asked with the original ones.
        object["metadata"] = json!({"name": "recorded", "namespace": "default"});
        let said = create(&stage.cluster, &object, true)?;
        let fits = said.status < 300;
        let (refusal, _) = case.ours();
        let (ours, theirs) = (fits && refusal.is_none(), case.crd.accepted && case.webhook.allowed);
        if ours == theirs {
            equal += 1;
        } else if !ours && refusal.as_deref().is_some_and(|message| message.contains("minProtocolVersion"))
            || case.object["metadata"]["annotations"].to_string().contains("internal.istio.io/")
        {
            listed += 1;
        } else {
            let why = said.body["message"].as_str().unwrap_or_default().to_owned();
            wrong.push(format!("{}: stored {ours}, theirs {theirs}: {why} {refusal:?}", case.name));
        }
    }
    println!("of recorded objects {equal} come out alike, {listed} otherwise on purpose");
    ensure!(wrong.is_empty(), "{} come out otherwise:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
