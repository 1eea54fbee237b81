//! `experimental precheck`: whether Istio can be installed in a cluster.

use std::io::Write;
use std::time::SystemTime;

use analysis::{Code, DOCUMENTATION, Level, Message, Scope, World, analyzer, messages};
use anyhow::{Context as _, anyhow, bail};
use futures_util::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt as _;
use kube::api::{Api, PostParams};

use super::analyze::{live, output};
use crate::args::Global;
use crate::args::analyze::Analyze;
use crate::args::precheck::Precheck as Args;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;

/// Oldest version of Kubernetes, 1.MINOR, that Istio 1.32 is for.
const KUBERNETES: u32 = 32;
/// What an installation makes: in the namespace of the control plane or in none, group, resource.
const MADE: [(bool, &str, &str); 11] = [
    (false, "", "namespaces"),
    (false, "rbac.authorization.k8s.io", "clusterroles"),
    (false, "rbac.authorization.k8s.io", "clusterrolebindings"),
    (false, "apiextensions.k8s.io", "customresourcedefinitions"),
    (true, "rbac.authorization.k8s.io", "roles"),
    (true, "", "serviceaccounts"),
    (true, "", "services"),
    (true, "apps", "deployments"),
    (true, "", "configmaps"),
    (false, "admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    (false, "admissionregistration.k8s.io", "validatingwebhookconfigurations"),
];
/// Group of the Gateway API.
const GATEWAY: &str = "gateway.networking.k8s.io";
/// Kinds of it that must be served in a version, and that will have to be.
const SERVED: [(&str, &[&str], Code); 2] = [
    (
        "v1beta1",
        &["Gateway", "GatewayClass", "HTTPRoute", "ReferenceGrant"],
        Code::UnsupportedGatewayAPIVersion,
    ),
    ("v1", &["Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute"], Code::FutureUnsupportedGatewayAPIVersion),
];
/// Last version in which proxies sent traces to a Service of this name by themselves.
const TRACED: (u32, &str) = (21, "zipkin");
/// Finds annotations whose meaning may change.
const ALPHA: &str = "annotations.AlphaAnalyzer";

/// Says what is in the way.
///
/// # Errors
/// When something is, or the cluster does not answer.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let format = args.output.to_ascii_lowercase();
    if !["log", "json", "yaml"].contains(&format.as_str()) {
        return Err(anyhow!("invalid format: {format:?}; it is one of log, json and yaml").into());
    }
    let from = minor(&args.from_version)?;
    let mut all = Vec::new();
    if !args.skip_controlplane {
        let cluster = Kubernetes::open(global).await?;
        all.extend(version(&cluster).await?);
        all.extend(permissions(&cluster, &global.istio_namespace).await);
        let definitions = cluster.list::<CustomResourceDefinition>("").await?;
        all.extend(gateways(&definitions));
        if args.output_threshold == Level::Info {
            all.extend(annotations(global).await?);
        }
    }
    if from.is_some_and(|minor| minor <= TRACED.0) {
        all.extend(tracing(&Kubernetes::open(global).await?).await?);
    }
    all.sort_by_cached_key(|message| {
        (
            std::cmp::Reverse(message.level()),
            message.code.as_str(),
            message.origin.clone(),
            message.text.clone(),
        )
    });
    all.dedup();
    let told: Vec<&Message> = all.iter().filter(|message| message.level() >= args.output_threshold).collect();
    let has_issues = all.iter().any(|message| message.level() >= Level::Warning);
    if !told.is_empty() || format != "log" {
        output::write(&told, &format, output::has_colors(args.terminal.as_deref()), out)?;
    }
    if told.is_empty() {
        eprintln!("{}", nothing(has_issues, args.output_threshold));
    }
    if has_issues {
        return Err(anyhow!(
            "Issues found when checking the cluster. Istio may not be safe to install or upgrade.\n\
             See {DOCUMENTATION} for more information about causes and resolutions."
        )
        .into());
    }
    Ok(())
}

/// What is said when no message is told.
fn nothing(has_issues: bool, threshold: Level) -> String {
    if has_issues {
        return format!(
            "Nothing at or above the level {threshold}; a lower --output-threshold tells what there is."
        );
    }
    "\u{2714} No issues found when checking the cluster. Istio is safe to install or upgrade!\n  \
     To get started, check out https://istio.io/latest/docs/setup/getting-started/."
        .to_owned()
}

/// The minor number of a version; none, if none is given.
fn minor(version: &str) -> anyhow::Result<Option<u32>> {
    if version.is_empty() {
        return Ok(None);
    }
    let Some((major, minor)) = version.split_once('.') else {
        bail!("invalid version {version}, expected format like '1.0'");
    };
    if major != "1" {
        bail!("expected major version 1, got {version}");
    }
    // What fixes have changed does not count.
    let minor = minor.split('.').next().unwrap_or(minor);
    Ok(Some(minor.parse().with_context(|| format!("minor version is not a number: {minor}"))?))
}

fn about(code: Code, values: &[&str], origin: &str) -> Message {
    Message { code, text: code.fill(values), origin: Some(origin.to_owned()), reference: None, cluster: None }
}

async fn version(cluster: &Kubernetes) -> anyhow::Result<Option<Message>> {
    let info = cluster.client.apiserver_version().await;
    let info = info.context("failed to get the Kubernetes version")?;
    // Some append what they have changed: `32+`.
    let digits: String = info.minor.chars().take_while(char::is_ascii_digit).collect();
    let minor: u32 =
        digits.parse().with_context(|| format!("the Kubernetes version {:?}", info.git_version))?;
    let is_old = info.major == "1" && minor < KUBERNETES;
    let oldest = format!("1.{KUBERNETES}");
    Ok(is_old.then(|| about(Code::UnsupportedKubernetesVersion, &[&info.git_version, &oldest], "Cluster")))
}

/// What an installation may not make.
async fn permissions(cluster: &Kubernetes, namespace: &str) -> Vec<Message> {
    let asked = MADE.iter().map(|(is_inside, group, resource)| async move {
        let namespace = is_inside.then_some(namespace);
        let why = denied(cluster, namespace, group, resource).await?;
        Some(about(Code::InsufficientPermissions, &[resource, &why], "Cluster"))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Why something may not be made, if it may not.
async fn denied(
    cluster: &Kubernetes,
    namespace: Option<&str>,
    group: &str,
    resource: &str,
) -> Option<String> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: namespace.map(ToOwned::to_owned),
                verb: Some("create".into()),
                group: Some(group.to_owned()),
                version: Some("v1".into()),
                resource: Some(resource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews = Api::<SelfSubjectAccessReview>::all(cluster.client.clone());
    match reviews.create(&PostParams::default(), &review).await {
        Err(error) => Some(error.to_string()),
        Ok(answer) => {
            let status = answer.status.unwrap_or_default();
            let why = status.reason.filter(|reason| !reason.is_empty());
            (!status.allowed).then(|| why.unwrap_or_else(|| "permission denied".into()))
        }
    }
}

/// Kinds of the Gateway API that are too old, where they are there.
fn gateways(definitions: &[CustomResourceDefinition]) -> Vec<Message> {
    let mut found = Vec::new();
    for one in definitions.iter().filter(|one| one.spec.group == GATEWAY) {
        let mut versions: Vec<&str> = one
            .spec
            .versions
            .iter()
            .filter(|version| version.served)
            .map(|version| version.name.as_str())
            .collect();
        versions.sort_unstable();
        let has = if versions.is_empty() { "none".to_owned() } else { versions.join(",") };
        for (wanted, kinds, code) in SERVED {
            if kinds.contains(&one.spec.names.kind.as_str()) && !versions.contains(&wanted) {
                let origin = format!("CustomResourceDefinition {}", one.name_any());
                found.push(about(code, &[&has, wanted], &origin));
            }
        }
    }
    found
}

async fn annotations(global: &Global) -> Result<Vec<Message>> {
    let args = Analyze::without_flags()?;
    let Some(found) = live::gather(&args, global).await? else { return Ok(Vec::new()) };
    let (mesh, networks) = (found.mesh.unwrap_or_default(), found.networks.unwrap_or_default());
    let now = SystemTime::now();
    let world = World::new(found.resources, mesh, networks, &global.istio_namespace, Scope::Everything, now);
    let outcome = analyzer::run(&world, &analyzer::named(&[ALPHA]));
    Ok(messages(&outcome.findings, global.namespace.as_deref(), &[]))
}

/// Traces that proxies send no more.
async fn tracing(cluster: &Kubernetes) -> anyhow::Result<Option<Message>> {
    let found = cluster.get::<Service>("istio-system", TRACED.1).await?;
    let release = format!("1.{}", TRACED.0);
    let what = "tracing is no longer by default enabled to send to 'zipkin.istio-system.svc'; \
                follow https://istio.io/latest/docs/tasks/observability/distributed-tracing/telemetry-api/";
    let values = ["meshConfig.defaultConfig.tracer", &release, what, &release];
    Ok(found.map(|_| about(Code::UpdateIncompatibility, &values, "Service istio-system/zipkin")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn issues_that_are_not_told_are_no_success() {
        assert!(nothing(true, Level::Error).starts_with("Nothing at or above the level Error"));
        assert!(nothing(false, Level::Warning).contains("No issues found"));
    }

    #[test]
    fn a_version_has_a_number_behind_its_dot() {
        assert_eq!(
            (minor("").unwrap(), minor("1.21").unwrap(), minor("1.9.3").unwrap()),
            (None, Some(21), Some(9))
        );
        for (wrong, what) in
            [("2", "expected format"), ("2.1", "major version 1"), ("1.x", "not a number: x")]
        {
            assert!(format!("{:#}", minor(wrong).unwrap_err()).contains(what), "{wrong}");
        }
    }

    #[test]
    fn old_versions_of_the_gateway_api_are_told() {
        let definition = |kind: &str, versions: &[(&str, bool)]| -> CustomResourceDefinition {
            let versions: Vec<_> = versions
                .iter()
                .map(|(name, served)| json!({"name": name, "served": served, "storage": true}))
                .collect();
            serde_json::from_value(json!({
                "metadata": {"name": format!("{}s.{GATEWAY}", kind.to_lowercase())},
                "spec": {"group": GATEWAY, "scope": "Namespaced", "names": {"kind": kind, "plural": "x"}, "versions": versions},
            }))
            .unwrap()
        };
        let told = |all: &[CustomResourceDefinition]| -> Vec<String> {
            gateways(all).iter().map(ToString::to_string).collect()
        };
        assert!(told(&[definition("Gateway", &[("v1", true), ("v1beta1", true)])]).is_empty());
        assert_eq!(
            told(&[
                definition("Gateway", &[("v1beta1", true), ("v1alpha2", true), ("v1", false)]),
                definition("GRPCRoute", &[]),
                definition("TCPRoute", &[]),
            ]),
            [
                "Warning [IST0172] (CustomResourceDefinition gateways.gateway.networking.k8s.io) The Gateway API CRD version v1alpha2,v1beta1 is lower than the minimum version: v1",
                "Warning [IST0172] (CustomResourceDefinition grpcroutes.gateway.networking.k8s.io) The Gateway API CRD version none is lower than the minimum version: v1",
            ]
        );
    }
}
