//! `graph`: the mesh as a picture, from what its sidecars tell.

use std::io::Write;
use std::net::IpAddr;

use analysis::Kind;
use anyhow::{Context as _, anyhow, bail};
use futures_util::StreamExt as _;
use serde_json::Value;

use super::proxy_config::file;
use crate::args::Global;
use crate::args::graph::{Format, Graph as Args};
use crate::dump::ConfigDump;
use crate::dump::view::Listener;
use crate::failure::Result;
use crate::graph::measure::{Counts, End, between, of_clusters, of_metrics};
use crate::graph::{Graph, Mtls, Pod, graph, html, svg};
use crate::output;
use crate::proxies::objects::meta;
use crate::proxies::{Mesh, Proxy};
use crate::render::plain::warn;

/// So many sidecars are asked at a time.
const AT_ONCE: usize = 16;
const METRICS: &str = "stats/prometheus?usedonly&filter=istio_(requests_total|tcp_)";
const CLUSTERS: &str = "clusters?format=json";
const BOOTSTRAP: &str = "config_dump?mask=bootstrap";
const LISTENERS: &str = "config_dump?mask=dynamic_listeners";
const INBOUND: &str = "virtualInbound";
const SIDECAR: &str = "istio-proxy";
/// Ports on which a sidecar serves by itself.
const OWN: [u32; 3] = [15006, 15020, 15021];

/// Writes it.
///
/// # Errors
/// When no sidecar answers, or the file cannot be written.
pub async fn run(args: &Args, global: &Global, out: &mut impl Write) -> Result {
    let format = format(args)?;
    let graph = match &args.file {
        Some(path) => read(&file(path)?).with_context(|| format!("--file {}", path.display()))?,
        None => live(args, global).await?,
    };
    let text = match format {
        Format::Html => html::page(&graph),
        Format::Svg => svg::file(&graph),
        Format::Json => serde_json::to_string_pretty(&graph)? + "\n",
    };
    match &args.output {
        Some(path) => {
            output::write(path, text.as_bytes()).with_context(|| format!("--output {}", path.display()))?;
        }
        None => out.write_all(text.as_bytes())?,
    }
    Ok(())
}

fn format(args: &Args) -> anyhow::Result<Format> {
    let end = args.output.as_ref().and_then(|path| path.extension()).and_then(|end| end.to_str());
    Ok(match (args.format, end) {
        (Some(format), _) => format,
        (None, None | Some("html" | "htm")) => Format::Html,
        (None, Some("svg")) => Format::Svg,
        (None, Some("json")) => Format::Json,
        (None, Some(end)) => bail!("--output: what {end:?} is is not known; say --format html, svg or json"),
    })
}

fn read(text: &str) -> anyhow::Result<Graph> {
    let mut graph: Graph =
        serde_json::from_str(text).context("it is not what istioctl graph -o json writes")?;
    graph.normalize();
    Ok(graph)
}

async fn live(args: &Args, global: &Global) -> anyhow::Result<Graph> {
    let mesh = &Mesh::open(global).await?;
    let all = mesh.objects(Kind::Pod, global.namespace.as_deref()).await?;
    let proxies: Vec<Proxy> = all
        .iter()
        .filter(|pod| has_sidecar(pod))
        .map(|pod| Proxy { name: meta(pod, "name").to_owned(), namespace: meta(pod, "namespace").to_owned() })
        .collect();
    if proxies.is_empty() {
        let within =
            global.namespace.as_ref().map(|name| format!(" in the namespace {name:?}")).unwrap_or_default();
        return Err(anyhow!("there are no running pods with a sidecar{within}"));
    }
    let port = args.proxy_admin_port;
    let asked = futures_util::stream::iter(&proxies)
        .map(|proxy| async move { (proxy, pod(mesh, proxy, port).await) });
    let asked: Vec<_> = asked.buffered(AT_ONCE).collect().await;
    let (mut pods, mut notes) = (Vec::new(), Vec::new());
    for (proxy, answer) in asked {
        match answer {
            Ok(pod) => pods.push((proxy, pod)),
            Err(error) => notes.push(format!("{proxy} is left out: {error:#}")),
        }
    }
    if pods.is_empty() {
        bail!("no sidecar answers: {}", notes.join("; "));
    }
    if let Some(interval) = args.interval {
        tokio::time::sleep(interval).await;
        let again = futures_util::stream::iter(pods).map(|(proxy, pod)| async move {
            // A pod that is gone meanwhile has no traffic in that time.
            let now = counts(mesh, proxy, port, &end(&pod)).await.unwrap_or_else(|_| pod.counts.clone());
            (proxy, Pod { counts: between(&pod.counts, &now), ..pod })
        });
        pods = again.buffered(AT_ONCE).collect().await;
    }
    for note in &notes {
        warn(note);
    }
    let pods: Vec<Pod> = pods.into_iter().map(|(_, pod)| pod).collect();
    Ok(Graph { seconds: args.interval.map(|time| time.as_secs_f64()), notes, ..graph(&pods) })
}

/// Whether a pod runs and has a sidecar.
fn has_sidecar(pod: &Value) -> bool {
    let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
    let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
    pod["status"]["phase"] == "Running" && all.any(|container| container["name"] == SIDECAR)
}

fn end(pod: &Pod) -> End {
    End::Workload(pod.namespace.clone(), pod.workload.clone())
}

async fn pod(mesh: &Mesh, proxy: &Proxy, port: u16) -> anyhow::Result<Pod> {
    let admin = mesh.admin(proxy, port);
    let text = admin.get(BOOTSTRAP).await?;
    let mut pod = named(&text, proxy)?;
    let text = admin.get(LISTENERS).await?;
    pod.mtls = mtls(&text)?;
    pod.counts = counts(mesh, proxy, port, &end(&pod)).await?;
    Ok(pod)
}

/// What a sidecar has counted.
async fn counts(mesh: &Mesh, proxy: &Proxy, port: u16, from: &End) -> anyhow::Result<Counts> {
    let admin = mesh.admin(proxy, port);
    let counts = of_metrics(&admin.get(METRICS).await?);
    if !counts.is_empty() {
        return Ok(counts);
    }
    Ok(of_clusters(&admin.get(CLUSTERS).await?, from)?)
}

/// Who a pod is, as its sidecar was started.
fn named(text: &str, proxy: &Proxy) -> anyhow::Result<Pod> {
    let dump = ConfigDump::parse(text)?;
    let node = dump.bootstrap()?.bootstrap.node;
    let of = |name: &str| node.metadata.iter().find(|(known, _)| &***known == name).map(|(_, value)| value);
    let word = |name: &str| of(name).and_then(crate::json::Value::as_str).unwrap_or_default();
    let label = |name: &str| of("LABELS").and_then(|labels| labels.get(name)?.as_str()).unwrap_or_default();
    let or = |word: &str, other: &str| if word.is_empty() { other.to_owned() } else { word.to_owned() };
    let versions = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    let mut addresses: Vec<IpAddr> =
        word("INSTANCE_IPS").split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    addresses.extend(node.id.split('~').nth(1).and_then(|ip| ip.parse::<IpAddr>().ok()));
    Ok(Pod {
        namespace: or(word("NAMESPACE"), &proxy.namespace),
        workload: or(word("WORKLOAD_NAME"), &proxy.name),
        version: versions
            .iter()
            .map(|name| label(name))
            .find(|version| !version.is_empty())
            .unwrap_or_default()
            .to_owned(),
        addresses,
        ..Pod::default()
    })
}

/// Whether a sidecar takes plaintext on the ports of its application.
fn mtls(text: &str) -> anyhow::Result<Mtls> {
    let dump = ConfigDump::parse(text)?;
    let (mut plain, mut secured) = (false, false);
    for resource in dump.listeners()? {
        let listener: Listener<'_> = resource.read()?;
        if &*listener.name != INBOUND {
            continue;
        }
        for chain in &listener.filter_chains {
            let matched = chain.filter_chain_match.as_ref();
            let is_own = matched.and_then(|one| one.destination_port).is_some_and(|port| OWN.contains(&port));
            if is_own || &*chain.name == "virtualInbound-blackhole" {
                continue;
            }
            // TLS that is passed on as it is, is the application's own.
            secured |= chain.transport_socket.is_some();
            plain |= chain.transport_socket.is_none()
                && matched.is_none_or(|one| &*one.transport_protocol != "tls");
        }
    }
    Ok(match (secured, plain) {
        (true, true) => Mtls::Permissive,
        (true, false) => Mtls::Strict,
        (false, true) => Mtls::Disabled,
        (false, false) => Mtls::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn listeners(chains: &Value) -> String {
        json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [
            {"name": INBOUND, "active_state": {"listener": {"name": INBOUND, "filter_chains": chains}}},
        ]}]})
        .to_string()
    }

    #[test]
    fn what_a_workload_takes_is_told_by_its_inbound_chains() {
        let tls =
            json!({"filter_chain_match": {"transport_protocol": "tls"}, "transport_socket": {"name": "tls"}});
        let plain = json!({"filter_chain_match": {"transport_protocol": "raw_buffer"}});
        let own =
            json!({"filter_chain_match": {"destination_port": 15006}, "name": "virtualInbound-blackhole"});
        for (chains, wanted) in [
            (json!([tls, own]), Mtls::Strict),
            (json!([tls, plain, own]), Mtls::Permissive),
            (json!([plain]), Mtls::Disabled),
            (json!([own]), Mtls::Unknown),
        ] {
            assert_eq!(mtls(&listeners(&chains)).unwrap(), wanted, "{chains}");
        }
    }

    #[test]
    fn a_pod_is_who_its_sidecar_was_started_as() {
        let text = json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {
            "id": "sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local",
            "metadata": {"WORKLOAD_NAME": "web", "NAMESPACE": "shop", "INSTANCE_IPS": "10.0.0.1,fd00::1", "LABELS": {"version": "v1"}},
        }}}]});
        let pod =
            named(&text.to_string(), &Proxy { name: "web-0".into(), namespace: "other".into() }).unwrap();
        assert_eq!(
            (pod.workload.as_str(), pod.namespace.as_str(), pod.version.as_str()),
            ("web", "shop", "v1")
        );
        assert!(pod.addresses.contains(&"fd00::1".parse().unwrap()));
    }

    #[test]
    fn a_format_is_told_by_a_name() {
        let args = |format, output: Option<&str>| Args {
            format,
            output: output.map(Into::into),
            interval: None,
            file: None,
            proxy_admin_port: 15000,
        };
        assert_eq!(format(&args(None, None)).unwrap(), Format::Html);
        assert_eq!(format(&args(None, Some("a.svg"))).unwrap(), Format::Svg);
        assert_eq!(format(&args(Some(Format::Json), Some("a.svg"))).unwrap(), Format::Json);
        assert!(format(&args(None, Some("a.png"))).is_err());
        assert!(read("1").is_err() && read("{}").unwrap().nodes.is_empty());
    }
}
