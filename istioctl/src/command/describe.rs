//! `experimental describe`: a pod or Service, and the configuration that it is under.

mod authentication;
mod envoy;
mod ingress;
mod pod;
mod rule;
mod virtual_service;

use std::io::Write;

use analysis::Kind;
use anyhow::{Context as _, anyhow};
use serde_json::Value;

use crate::args::Global;
use crate::args::describe::{Describe, What};
use crate::dump::ConfigDump;
use crate::failure::Result;
use crate::proxies::objects::meta;
use crate::proxies::{Mesh, Proxy};
use rule::Subsets;

/// Between parts of the answer.
const LINE: &str = "--------------------\n";
const PAGE: &str = "config_dump";

/// What a description needs to know.
struct Describer<'a> {
    mesh: Mesh,
    args: &'a What,
    istio_namespace: &'a str,
}

/// Describes it.
///
/// # Errors
/// When it is not there, or its Envoy does not answer.
pub async fn run(command: &Describe, global: &Global, out: &mut impl Write) -> Result {
    let (Describe::Pod(args) | Describe::Service(args)) = command;
    let what = if matches!(command, Describe::Pod(_)) { "pod" } else { "service" };
    let Some(name) = &args.name else {
        return Err(anyhow!("expecting {what} name; see istioctl x describe {what} --help").into());
    };
    let describer =
        Describer { mesh: Mesh::open(global).await?, args, istio_namespace: &global.istio_namespace };
    match command {
        Describe::Pod(_) => describer.pod(name, out).await,
        Describe::Service(_) => describer.service(name, out).await,
    }
}

impl Describer<'_> {
    /// The short name of an object: without its namespace where it is that of who names none.
    fn name(&self, object: &Value) -> String {
        let (name, namespace) = (meta(object, "name"), meta(object, "namespace"));
        if namespace == self.mesh.namespace() { name.to_owned() } else { format!("{name}.{namespace}") }
    }

    async fn wanted(&self, kind: Kind, named: &Proxy) -> anyhow::Result<Value> {
        if let Some(found) = self.mesh.object(kind, &named.namespace, &named.name).await? {
            return Ok(found);
        }
        let word = kind.as_str().to_lowercase();
        // Elsewhere is told only to who may know it.
        let all = self.mesh.objects(kind, None).await.unwrap_or_default();
        let mut elsewhere = all.iter().filter(|one| meta(one, "name") == named.name);
        let hint = elsewhere
            .next()
            .map(|one| format!("; there is one in the namespace {}: give -n", meta(one, "namespace")))
            .unwrap_or_default();
        Err(anyhow!("there is no {word} {:?} in the namespace {:?}{hint}", named.name, named.namespace))
    }

    async fn pod(&self, name: &str, out: &mut impl Write) -> Result {
        let named = match self.mesh.proxy(name).await {
            // A mesh without Kubernetes knows pods that no file describes.
            Ok(found) if !self.mesh.is_tunneled() => found,
            _ => self.mesh.named(name),
        };
        let pod = self.wanted(Kind::Pod, &named).await?;
        let revision = pod::revision(&pod);
        out.write_all(pod::text(&pod, &self.name(&pod), &revision, self.args.ignore_unmeshed).as_bytes())?;
        let services = self.mesh.objects(Kind::Service, Some(&named.namespace)).await?;
        let matching: Vec<Value> =
            services.into_iter().filter(|one| pod::is_selected(&one["spec"]["selector"], &pod)).collect();
        if matching.is_empty() && !self.args.ignore_unmeshed {
            writeln!(
                out,
                "Warning: No Kubernetes Services select pod {} (see https://istio.io/docs/setup/kubernetes/additional-setup/requirements/ )",
                self.name(&pod)
            )?;
        }
        out.write_all(LINE.as_bytes())?;
        let pods = [&pod];
        self.services(&named, &pod, &matching, &pods, out).await?;
        out.write_all(LINE.as_bytes())?;
        let text = authentication::text(&self.mesh, &pod, &revision, self.istio_namespace).await?;
        out.write_all(text.as_bytes())?;
        ingress::describe(self, &matching, &pods, out).await
    }

    async fn service(&self, name: &str, out: &mut impl Write) -> Result {
        let named = self.mesh.named(name);
        let service = self.wanted(Kind::Service, &named).await?;
        let all = self.mesh.objects(Kind::Pod, Some(&named.namespace)).await?;
        let selected: Vec<&Value> =
            all.iter().filter(|pod| pod::is_selected(&service["spec"]["selector"], pod)).collect();
        let mut pods = Vec::new();
        for pod in &selected {
            match pod::problem(pod) {
                None => pods.push(*pod),
                Some(why) => writeln!(out, "{}", why.replace("{}", &self.name(pod)))?,
            }
        }
        let Some(pod) = pods.first() else {
            let own = self.name(&service);
            if selected.is_empty() {
                writeln!(out, "Service {own:?} has no pods.")?;
            } else {
                writeln!(out, "Service {own:?} has no Istio pods.  ({} pods in service).", selected.len())?;
                writeln!(
                    out,
                    "Use `istioctl kube-inject` or redeploy with Istio automatic sidecar injection."
                )?;
            }
            return Ok(());
        };
        // All have the same configuration, but for subsets.
        let own = Proxy { name: meta(pod, "name").to_owned(), namespace: named.namespace.clone() };
        let services = [service];
        self.services(&own, pod, &services, &pods, out).await?;
        ingress::describe(self, &services, &pods, out).await
    }

    /// Services, and what the Envoy of a pod knows of each of their ports.
    async fn services(
        &self,
        named: &Proxy,
        pod: &Value,
        services: &[Value],
        pods: &[&Value],
        out: &mut impl Write,
    ) -> Result {
        let text = match self.mesh.admin(named, self.args.proxy_admin_port).get(PAGE).await {
            Ok(text) => text,
            Err(_) if self.args.ignore_unmeshed => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let dump = ConfigDump::parse(&text).with_context(|| named.to_string())?;
        for (index, service) in services.iter().enumerate() {
            if index > 0 {
                out.write_all(LINE.as_bytes())?;
            }
            writeln!(out, "Service: {}", self.name(service))?;
            let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
            out.write_all(pod::ports(ports, pod).as_bytes())?;
            for port in ports {
                let number = port["port"].as_i64().unwrap_or_default();
                if ports.len() > 1 {
                    writeln!(out, "{number}:")?;
                }
                let indent = if ports.len() > 1 { 3 } else { 0 };
                let mut told = String::new();
                let (subsets, rule) =
                    self.rule(&dump, service, number, pods, Some((indent, &mut told))).await?;
                let routed = envoy::virtual_service(&dump, service, number)?;
                if let Some((name, namespace)) = &routed {
                    match self.mesh.object(Kind::VirtualService, namespace, name).await? {
                        Some(found) => {
                            told += &virtual_service::text(
                                &found,
                                &self.name(&found),
                                service,
                                &subsets,
                                rule.as_deref(),
                                indent,
                            );
                        }
                        None => told += &stale("virtual service", name, namespace),
                    }
                }
                let policies = envoy::policies(&dump, pod::target(port, pod))?;
                if !policies.is_empty() {
                    let prefix = if ports.len() > 1 { format!("{number} ") } else { String::new() };
                    told += &format!("{prefix}RBAC policies: {}\n", policies.join(", "));
                }
                out.write_all(told.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The subsets of a Service's port that pods belong to, and the name of the
    /// DestinationRule that says so; it is described in `told`.
    async fn rule(
        &self,
        dump: &ConfigDump<'_>,
        service: &Value,
        port: i64,
        pods: &[&Value],
        told: Option<(usize, &mut String)>,
    ) -> anyhow::Result<(Subsets, Option<String>)> {
        let Some((name, namespace)) = envoy::destination_rule(dump, service, port)? else {
            return Ok(Default::default());
        };
        let Some(found) = self.mesh.object(Kind::DestinationRule, &namespace, &name).await? else {
            if let Some((_, told)) = told {
                *told += &stale("destination rule", &name, &namespace);
            }
            return Ok(Default::default());
        };
        let subsets = Subsets::of(&found, pods);
        let name = self.name(&found);
        if let Some((indent, told)) = told {
            *told += &rule::text(&found, &name, &subsets, indent);
        }
        Ok((subsets, Some(name)))
    }
}

/// Said of an object that only Envoy knows.
fn stale(what: &str, name: &str, namespace: &str) -> String {
    format!("WARNING: Proxy is stale; it references to non-existent {what} {name}.{namespace}\n")
}

#[cfg(test)]
mod tests;
