//! The files of a workload outside of Kubernetes.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::api::{Api, PostParams};
use serde_json::Value;

use super::files::{Around, Group, host, mesh};
use crate::args::Global;
use crate::args::workload::Configure as Args;
use crate::failure::Result;
use crate::kubernetes::Kubernetes;
use crate::output;

/// ConfigMap with the roots of the mesh, in every namespace.
const ROOTS: (&str, &str) = ("istio-ca-root-cert", "root-cert.pem");
/// For whom the token is.
const AUDIENCE: &str = "istio-ca";
/// Anybody may read what is no secret.
const PUBLIC: u32 = 0o644;
/// The token is for its owner.
const PRIVATE: u32 = 0o600;

pub(super) async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let namespace = global.namespace.as_deref().unwrap_or_default();
    if args.file.is_none() && (args.name.is_empty() || namespace.is_empty()) {
        return Err(anyhow!(
            "expecting a WorkloadGroup artifact file or the name and namespace of an existing WorkloadGroup"
        )
        .into());
    }
    let Some(dir) = &args.output else { return Err(anyhow!("expecting an output directory").into()) };
    if !args.internal_ip.is_empty() && !args.external_ip.is_empty() {
        return Err(anyhow!("the flags --internalIP and --externalIP are mutually exclusive").into());
    }
    for (flag, ip) in [
        ("--internalIP", &args.internal_ip),
        ("--externalIP", &args.external_ip),
        ("--ingressIP", &args.ingress_ip),
    ] {
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            return Err(anyhow!("{flag} {ip:?}: expected an IP address").into());
        }
    }
    let cluster = Kubernetes::open(global).await?;
    let group = group(args, namespace, &cluster).await?;
    let written = Written { args, cluster: &cluster, istio: &global.istio_namespace, group: &group, dir };
    written.all().await?;
    Ok(writeln!(out, "Configuration generation into directory {} was successful", dir.display())?)
}

async fn group(args: &Args, namespace: &str, cluster: &Kubernetes) -> anyhow::Result<Group> {
    let Some(file) = &args.file else {
        let path =
            format!("/apis/networking.istio.io/v1/namespaces/{namespace}/workloadgroups/{}", args.name);
        let found = cluster.json(&path).await?;
        let found = found
            .with_context(|| format!("workloadgroup {} not found in namespace {namespace}", args.name))?;
        return Group::read(&found);
    };
    let text = source::file::read_named(file).with_context(|| file.display().to_string())?;
    let what = || file.display().to_string();
    let object: Value = serde_saphyr::from_str(&text).with_context(what)?;
    let mut group = Group::read(&object).with_context(what)?;
    if group.namespace.is_empty() {
        namespace.clone_into(&mut group.namespace);
    }
    if group.namespace.is_empty() {
        bail!("{}: the WorkloadGroup has no metadata.namespace; -n names it", file.display());
    }
    Ok(group)
}

/// What is written.
struct Written<'a> {
    args: &'a Args,
    cluster: &'a Kubernetes,
    /// Namespace of the control plane.
    istio: &'a str,
    group: &'a Group,
    dir: &'a Path,
}

impl Written<'_> {
    async fn all(&self) -> anyhow::Result<()> {
        let Self { args, istio, group, dir, .. } = self;
        let cluster_id = match &args.cluster_id {
            Some(name) => name.clone(),
            None => self.cluster_id().await.context("failed to automatically determine the --clusterID")?,
        };
        let map = self.of_revision("istio");
        let mesh_text = self.value(istio, &map, "mesh").await?;
        let around = Around {
            mesh: &mesh_text,
            namespace: istio,
            revision: &args.revision,
            cluster: &cluster_id,
            captures_dns: args.capture_dns,
            registers: args.autoregister,
            internal: &args.internal_ip,
            external: &args.external_ip,
        };
        let proxy = around.proxy(group)?;
        let variables = around.variables(group, &proxy)?;
        let roots = self.value(&group.namespace, ROOTS.0, ROOTS.1).await?;
        let token = self.token().await?;
        let hosts = self.hosts().await?;
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for (name, text, mode) in [
            ("mesh.yaml", mesh(&proxy)?, PUBLIC),
            ("cluster.env", variables, PUBLIC),
            ("root-cert.pem", roots, PUBLIC),
            ("istio-token", token, PRIVATE),
            ("hosts", hosts, PUBLIC),
        ] {
            let path = dir.join(name);
            output::replace(&path, text.as_bytes(), mode).with_context(|| path.display().to_string())?;
        }
        eprintln!(
            "Warning: a security token for namespace {:?} and service account {:?} has been generated and stored at {:?}",
            group.namespace,
            group.service_account(),
            dir.join("istio-token").display().to_string()
        );
        Ok(())
    }

    /// The name of a ConfigMap of the control plane.
    fn of_revision(&self, name: &str) -> String {
        match self.args.revision.as_str() {
            "" | "default" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    async fn value(&self, namespace: &str, name: &str, key: &str) -> anyhow::Result<String> {
        let map = self.cluster.get::<ConfigMap>(namespace, name).await?;
        let map = map.with_context(|| format!("configmap {name} was not found in namespace {namespace}"))?;
        let value = map.data.and_then(|mut data| data.remove(key));
        value.with_context(|| format!("configmap {name} in namespace {namespace} has no key {key}"))
    }

    /// The name of the cluster, as the injector says it.
    async fn cluster_id(&self) -> anyhow::Result<String> {
        let values = self.value(self.istio, &self.of_revision("istio-sidecar-injector"), "values").await?;
        let values: Value = serde_saphyr::from_str(&values).context("the injector's values")?;
        let name = values.pointer("/global/multiCluster/clusterName").and_then(Value::as_str);
        Ok(name.unwrap_or_default().to_owned())
    }

    async fn token(&self) -> anyhow::Result<String> {
        let Self { args, group, cluster, .. } = self;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: vec![AUDIENCE.into()],
                expiration_seconds: Some(args.token_duration),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let account = group.service_account();
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), &group.namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.with_context(|| {
            format!(
                "could not create a token under service account {account} in namespace {}",
                group.namespace
            )
        })?;
        Ok(answer.status.map(|status| status.token).unwrap_or_default())
    }

    /// The line that leads istiod's name to the gateway.
    async fn hosts(&self) -> anyhow::Result<String> {
        let Self { args, istio, cluster, .. } = self;
        let host = host(istio, &args.revision);
        let mut address = args.ingress_ip.clone();
        if address.is_empty() {
            let named = &args.ingress_service;
            let (name, namespace) = named.split_once('.').unwrap_or((named, istio));
            if let Some(service) = cluster.get::<Service>(namespace, name).await? {
                address = address_of(&service).unwrap_or_default();
            }
        }
        if address.parse::<IpAddr>().is_err() {
            eprintln!(
                "Warning: Could not auto-detect IP for {host}/{istio}. Use --ingressIP to manually specify the Gateway address to reach istiod from the VM."
            );
            return Ok(String::new());
        }
        Ok(format!("{address} {host}\n"))
    }
}

/// Where a gateway is reached from outside.
fn address_of(service: &Service) -> Option<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let given = balancer.and_then(|balancer| balancer.ingress.as_ref()?.first()?.ip.clone());
    given.or_else(|| service.spec.as_ref()?.external_ips.as_ref()?.first().cloned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gateway_is_where_its_balancer_is() {
        let service = |value: Value| -> Service { serde_json::from_value(value).unwrap() };
        let external = json!({"spec": {"externalIPs": ["2.2.2.2"]}});
        assert_eq!(address_of(&service(external.clone())).unwrap(), "2.2.2.2");
        let mut both = external;
        both["status"] = json!({"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}});
        assert_eq!(address_of(&service(both)).unwrap(), "1.1.1.1");
        assert_eq!(address_of(&service(json!({}))), None);
    }
}
