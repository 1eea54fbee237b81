//! Installation as `docs/kubernetes.md` tells it: its commands are run, with
//! Helm and kubectl, and what they install is what all cases of the node use.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use istio_tests::kube::{Cluster, Node};
use istio_tests::mesh::Mesh;
use istio_tests::netns;
use serde_json::{Value, json};

use super::Stage;
use super::charts::rules;

/// Namespace of the control plane.
pub(super) const SYSTEM: &str = "istio-system";
/// The page.
const PAGE: &str = "docs/kubernetes.md";
/// Its section.
const SECTION: &str = "## From an empty cluster to bookinfo in the mesh";

/// What the roles allow and the cases need not make istiod do, and when it does.
const RARE: &[(&str, &str)] = &[
    ("create networking.istio.io/workloadentries", "a workload of a plain host registers"),
    ("delete networking.istio.io/workloadentries", "it was away for too long"),
    ("get /pods", "a node's proxy asks for the certificate of a pod"),
    ("get networking.istio.io/workloadentries", "a workload of a plain host comes back"),
    ("get networking.istio.io/workloadgroups", "a workload of a plain host registers"),
    ("update /secrets", "a self-signed root near its end is renewed"),
    ("update networking.istio.io/workloadentries", "a workload of a plain host moves to another istiod"),
    ("update networking.istio.io/workloadentries/status", "its health changes"),
    ("create /events", "a webhook's certificate could not be put in place"),
    ("create authorization.k8s.io/subjectaccessreviews", "a gateway wants a Secret"),
    ("create networking.istio.io/gateways", "the validating webhook was installed with Ignore"),
];

/// A file of the tree.
pub(super) fn file(name: &str) -> anyhow::Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The blocks of commands of a section of a page, a line each.
fn blocks(page: &str, heading: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let text = file(page)?;
    let (_, section) = text.split_once(heading).with_context(|| format!("{page} has no {heading:?}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut blocks: Vec<Vec<String>> = vec![Vec::new()];
    let mut is_open = false;
    for line in section.lines() {
        let Some(line) = line.strip_prefix("    ").map(str::trim) else {
            if !line.trim().is_empty() {
                blocks.push(Vec::new());
            }
            continue;
        };
        let (line, goes_on) = line.strip_suffix('\\').map_or((line, false), |line| (line.trim(), true));
        let block = blocks.last_mut().context("a block")?;
        match block.last_mut().filter(|_| is_open) {
            Some(last) => *last = format!("{last} {line}"),
            None => block.push(line.to_owned()),
        }
        is_open = goes_on;
    }
    blocks.retain(|block| block.iter().any(|line| line.starts_with("helm ") || line.starts_with("kubectl ")));
    Ok(blocks)
}

/// The five commands.
pub(super) fn commands() -> anyhow::Result<[String; 5]> {
    let block = blocks(PAGE, SECTION)?.into_iter().next().unwrap_or_default();
    block.try_into().map_err(|block| anyhow::anyhow!("{PAGE} has not five commands but {block:?}"))
}

/// The commands of the way in.
pub(super) fn commands_of_gateway() -> anyhow::Result<[String; 2]> {
    let block = blocks(PAGE, SECTION)?.into_iter().nth(1).unwrap_or_default();
    block.try_into().map_err(|block| anyhow::anyhow!("{PAGE}: {block:?}"))
}

/// Runs a command of a page.
pub(super) fn run(node: &Node, command: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = command.split_whitespace().collect();
    node.cluster.client_command(&words).map(drop)
}

/// Installs the control plane, and a second istiod.
pub(super) fn control_plane(node: &Node) -> anyhow::Result<()> {
    let [definitions, istiod, ..] = commands()?;
    run(node, &definitions)?;
    run(node, &istiod)?;
    // Whose cluster is small has one; these cases kill one of two.
    run(
        node,
        "helm upgrade istiod deploy/helm/istiod -n istio-system --reuse-values --wait \
         --set autoscaleEnabled=false --set replicaCount=2",
    )?;
    node.wait_ready(SYSTEM, &json!({"app": "istiod"}), 2)?;
    Ok(())
}

/// The page of the tree's front is the same, but for values of one's own.
pub(super) fn front_page(_: &mut Stage) -> anyhow::Result<()> {
    let bare = |command: &str| -> Vec<String> {
        let mut words = command.split_whitespace();
        let mut bare = Vec::new();
        while let Some(word) = words.next() {
            if word == "--set" {
                words.next();
            } else {
                bare.push(word.to_owned());
            }
        }
        bare
    };
    let of_readme = blocks("README.md", "## Use it")?.into_iter().next().unwrap_or_default();
    let wanted: Vec<_> = commands()?.iter().map(|command| bare(command)).collect();
    let found: Vec<_> = of_readme.iter().map(|command| bare(command)).collect();
    ensure!(found == wanted, "README.md says {found:?}");
    Ok(())
}

/// Every istiod runs as the Deployment of the chart says.
pub(super) fn confined(node: &mut Node) -> anyhow::Result<()> {
    for pod in node.wait_ready(SYSTEM, &json!({"app": "istiod"}), 2)? {
        let name = pod["metadata"]["name"].as_str().context("name")?.to_owned();
        let container = &pod["spec"]["containers"][0];
        ensure!(container["image"] == "registry.example/pilot:0.1", "image {}", container["image"]);
        let mut found = 0;
        for process in netns::processes(&node.network(SYSTEM, &name)?) {
            let dir = PathBuf::from(format!("/proc/{process}"));
            let program = fs::read_link(dir.join("exe"))?;
            if program.file_name().is_none_or(|name| name != "istiod") {
                continue;
            }
            found += 1;
            let status = fs::read_to_string(dir.join("status"))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
            };
            ensure!(field("Uid:") == ["1337"; 4] && field("Gid:") == ["1337"; 4], "{name}: {status}");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                ensure!(field(set) == ["0000000000000000"], "{name}: {set} {:?}", field(set));
            }
            ensure!(field("NoNewPrivs:") == ["1"], "{name}: may get more rights");
            let mounts = fs::read_to_string(dir.join("mountinfo"))?;
            let options = mounts.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                (fields.get(4) == Some(&"/")).then(|| fields.get(5).copied().unwrap_or_default())
            });
            let is_read_only = options.is_some_and(|options| options.split(',').any(|one| one == "ro"));
            ensure!(is_read_only, "{name}: the root is mounted with {options:?}");
        }
        ensure!(found == 1, "{name} has {found} processes of istiod");
        let ip: std::net::IpAddr = pod["status"]["podIP"].as_str().context("address")?.parse()?;
        let ports: Vec<u64> = container["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["containerPort"].as_u64())
            .collect();
        ensure!(ports.len() == 5, "ports {ports:?}");
        for port in ports {
            let address = SocketAddr::new(ip, u16::try_from(port)?);
            std::net::TcpStream::connect(address).with_context(|| format!("{name}: port {port}"))?;
        }
    }
    Ok(())
}

/// Compares what the roles allow with what the API server saw istiod do.
pub(super) fn roles(node: &mut Node) -> anyhow::Result<()> {
    let cluster = &node.cluster;
    repair(cluster)?;
    let role = |kind: &str, namespace: &str, name: &str| {
        let role = cluster.get("rbac.authorization.k8s.io/v1", kind, namespace, name)?;
        role.with_context(|| format!("no {kind} {name}"))
    };
    let everywhere = role("ClusterRole", "", "istiod-clusterrole-istio-system")?;
    let own = role("Role", SYSTEM, "istiod")?;
    let mut all = BTreeSet::new();
    for (what, role) in [
        ("ClusterRoleBinding \"istiod-clusterrole-istio-system\"", everywhere),
        ("RoleBinding \"istiod/istio-system\"", own),
    ] {
        let granted = rules(&[&role]);
        let used = Mesh::wait("the audit log", || {
            let events = cluster.audited()?;
            let of_role = events.iter().filter(|event| is_allowed_by(event, what));
            let used: BTreeSet<String> = of_role.map(rule).collect();
            ensure!(!used.is_empty(), "nothing by {what} among {} events", events.len());
            Ok(used)
        })?;
        ensure!(used.is_subset(&granted), "{what}: {:?}", used.difference(&granted).collect::<Vec<_>>());
        let is_rare = |rule: &String| RARE.iter().any(|(rare, _)| rare == rule);
        let unused: Vec<&String> = granted.difference(&used).filter(|rule| !is_rare(rule)).collect();
        ensure!(unused.is_empty(), "the role of {what} allows what istiod does not do: {unused:?}");
        all.extend(granted);
    }
    let stale: Vec<_> = RARE.iter().filter(|(rule, _)| !all.contains(*rule)).collect();
    ensure!(stale.is_empty(), "no role allows that any more: {stale:?}");
    Ok(())
}

/// Lets istiod put roots back that somebody edits.
fn repair(cluster: &Cluster) -> anyhow::Result<()> {
    let (namespace, name) = ("edited", "istio-ca-root-cert");
    cluster.namespace(namespace, &[])?;
    let roots = || {
        let map = cluster.get("v1", "ConfigMap", namespace, name)?.context("no ConfigMap")?;
        map["data"]["root-cert.pem"].as_str().map(str::to_owned).context("no roots")
    };
    let good = Mesh::wait("roots of a new namespace", roots)?;
    cluster.apply(&[json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
        "data": {"root-cert.pem": "edited"},
    })])?;
    Mesh::wait("roots as before", || {
        ensure!(roots()? == good, "they are {}", roots()?);
        Ok(())
    })
}

/// Whether that binding allowed a request.
fn is_allowed_by(event: &Value, binding: &str) -> bool {
    let reason = event["annotations"]["authorization.k8s.io/reason"].as_str().unwrap_or_default();
    reason.strip_prefix("RBAC: allowed by ").is_some_and(|reason| reason.starts_with(binding))
}

/// The rule that a request needed.
fn rule(event: &Value) -> String {
    let of = &event["objectRef"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut resource = text(&of["resource"]);
    if let Some(below) = of["subresource"].as_str() {
        resource = format!("{resource}/{below}");
    }
    format!("{} {}/{resource}", text(&event["verb"]), text(&of["apiGroup"]))
}
