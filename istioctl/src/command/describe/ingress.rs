//! Through which gateways a Service is reached from outside.

use std::collections::BTreeSet;
use std::io::Write;

use analysis::Kind;
use anyhow::Context as _;
use serde_json::Value;

use super::pod::{is_selected, items, protocol, target};
use super::{Describer, LINE, PAGE, envoy, stale, virtual_service};
use crate::dump::ConfigDump;
use crate::failure::Result;
use crate::proxies::Proxy;
use crate::proxies::objects::meta;

/// Label of the pods of gateways.
const GATEWAY: (&str, &str) = ("istio", "ingressgateway");
/// The gateway that stands for all sidecars.
const MESH: &str = "mesh";
const UNKNOWN: &str = "unknown";

/// A Service of gateways.
struct Ingress<'a> {
    service: &'a Value,
    pods: Vec<&'a Value>,
}

impl Ingress<'_> {
    fn address(&self) -> &str {
        let balancer = &self.service["status"]["loadBalancer"]["ingress"][0];
        let known = [&balancer["ip"], &balancer["hostname"], &self.pods[0]["status"]["hostIP"]];
        known.into_iter().find_map(Value::as_str).unwrap_or(UNKNOWN)
    }

    /// The lines of the ports that speak HTTP.
    fn text(&self) -> String {
        let ports = items(&self.service["spec"]["ports"]).iter();
        let http = ports.filter(|port| {
            port["protocol"].as_str().unwrap_or("TCP") == "TCP"
                && matches!(protocol(port), "HTTP" | "HTTP2")
                && matches!(port["name"].as_str(), Some("http" | "http2"))
                && target(port, self.pods[0]).is_some()
        });
        let lines = http.map(|port| {
            let number = port["port"].as_i64().unwrap_or_default();
            let suffix = if number == 80 { String::new() } else { format!(":{number}") };
            format!("Exposed on Ingress Gateway http://{}{suffix}\n", self.address())
        });
        lines.collect()
    }
}

/// Tells it.
pub(super) async fn describe(
    of: &Describer<'_>,
    services: &[Value],
    pods: &[&Value],
    out: &mut impl Write,
) -> Result {
    let all = of.mesh.objects(Kind::Pod, None).await.context("Could not find ingress gateway pods")?;
    let is_gateway = |pod: &&Value| {
        pod["metadata"]["labels"][GATEWAY.0] == GATEWAY.1 && pod["status"]["phase"] == "Running"
    };
    let gateways: Vec<&Value> = all.iter().filter(is_gateway).collect();
    if gateways.is_empty() {
        return Ok(writeln!(out, "Skipping Gateway information (no ingress gateway pods)")?);
    }
    let namespaces: BTreeSet<&str> = gateways.iter().map(|pod| meta(pod, "namespace")).collect();
    let mut known = Vec::new();
    for namespace in namespaces {
        known.extend(of.mesh.objects(Kind::Service, Some(namespace)).await?);
    }
    let mut ingresses: Vec<Ingress<'_>> = known
        .iter()
        .map(|service| {
            let own = gateways.iter().copied().filter(|pod| {
                meta(pod, "namespace") == meta(service, "namespace")
                    && is_selected(&service["spec"]["selector"], pod)
            });
            Ingress { service, pods: own.collect() }
        })
        .filter(|one| !one.pods.is_empty())
        .collect();
    if ingresses.is_empty() {
        writeln!(out, "Skipping Gateway information (no ingress gateway service)")?;
    }
    ingresses.sort_by(|one, other| one.address().cmp(other.address()));
    let mut told = BTreeSet::new();
    for gateway in &gateways {
        let named = Proxy {
            name: meta(gateway, "name").to_owned(),
            namespace: meta(gateway, "namespace").to_owned(),
        };
        let text = of.mesh.admin(&named, of.args.proxy_admin_port).get(PAGE).await;
        let text = text.with_context(|| format!("ingress gateway {named}"))?;
        let dump = ConfigDump::parse(&text).with_context(|| format!("ingress gateway {named}"))?;
        for service in services {
            for port in items(&service["spec"]["ports"]) {
                let number = port["port"].as_i64().unwrap_or_default();
                let text = routed(of, &dump, &ingresses, (service, number), pods, &mut told).await?;
                out.write_all(text.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// What gateways do for a Service's port.
async fn routed(
    of: &Describer<'_>,
    dump: &ConfigDump<'_>,
    ingresses: &[Ingress<'_>],
    (service, port): (&Value, i64),
    pods: &[&Value],
    told: &mut BTreeSet<String>,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let Some((name, namespace)) = envoy::virtual_service(dump, service, port)? else { return Ok(text) };
    let Some(routes) = of.mesh.object(Kind::VirtualService, &namespace, &name).await? else {
        let line = stale("virtual service", &name, &namespace);
        return Ok(if told.insert(line.clone()) { line } else { text });
    };
    for named in items(&routes["spec"]["gateways"]).iter().filter_map(Value::as_str) {
        let (home, gateway) = named.split_once('/').unwrap_or((&namespace, named));
        if matches!(named, "" | MESH) || !told.insert(format!("{home}/{gateway}")) {
            continue;
        }
        let Some(found) = of.mesh.object(Kind::Gateway, home, gateway).await? else {
            text +=
                &format!("WARNING: Proxy is stale; it references to non-existent gateway {home}/{gateway}\n");
            continue;
        };
        let selector = &found["spec"]["selector"];
        if selector.as_object().is_none_or(serde_json::Map::is_empty) {
            text += &format!("Ingress Gateway {home}/{gateway} be applied all workloads\n");
            continue;
        }
        let chosen = ingresses.iter().filter(|one| one.pods.iter().any(|pod| is_selected(selector, pod)));
        let lines: Vec<String> = chosen.map(Ingress::text).collect();
        if lines.is_empty() {
            continue;
        }
        let (subsets, rule) = of.rule(dump, service, port, pods, None).await?;
        text += LINE;
        text += &lines.concat();
        text += &virtual_service::text(&routes, &of.name(&routes), service, &subsets, rule.as_deref(), 0);
    }
    Ok(text)
}
