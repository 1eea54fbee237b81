//! `istioctl graph` of a mesh with traffic, as a real browser shows it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use istio_tests::browser::{self, Page};
use istio_tests::mesh::Mesh;
use serde_json::{Value, json};

use super::Case;

pub(crate) const CASES: &[Case] = &[
    ("graph_a_browser_shows_the_mesh_and_its_traffic", traffic),
    ("graph_a_browser_shows_five_hundred_workloads_with_any_name", many),
];

fn istioctl(mesh: &Mesh, args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(mesh.dir.join("bin/istioctl"));
    let output = command.args(args).env("ISTIOCTL_MESH", mesh.roster()).output().context("istioctl")?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

fn length(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// Opens a page, and looks at what any page of a mesh must be like.
fn open(program: &Path, file: &Path, graph: &Value) -> anyhow::Result<Page> {
    let mut page = Page::open(program)?;
    let url = format!("file://{}", file.display());
    page.go(&url)?;
    let nodes = page.value("document.querySelectorAll('svg .node rect').length")?;
    ensure!(nodes == length(&graph["nodes"]), "{nodes} nodes of {}", length(&graph["nodes"]));
    let edges = page.value("document.querySelectorAll('svg .edge path.line').length")?;
    ensure!(edges == length(&graph["edges"]), "{edges} edges of {}", length(&graph["edges"]));
    // Each is seen: it has a place and a size.
    let empty = page.value(
        "[...document.querySelectorAll('svg .node')].filter(one => one.getBoundingClientRect().width < 100).length",
    )?;
    ensure!(empty == 0, "{empty} nodes have no size");
    let unnamed = page.value(
        "[...document.querySelectorAll('svg .node, svg .edge')].filter(one => !one.getAttribute('aria-label') || one.tabIndex !== 0).length",
    )?;
    ensure!(unnamed == 0, "{unnamed} cannot be reached or have no name");
    ensure!(page.value("document.scripts.length")? == 0, "there is a script");
    ensure!(page.value("document.title")? == "Service mesh", "title");
    ensure!(page.requests() == [url], "{:?}", page.requests());
    ensure!(page.complaints().is_empty(), "{:?}", page.complaints());
    Ok(page)
}

fn traffic(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    for _ in 0..6 {
        Mesh::wait("productpage", || mesh.productpage(None))?;
    }
    let file = mesh.dir.join("mesh.json");
    let wanted = ["productpage-v1", "details-v1", "reviews-v1"];
    let graph: Value = Mesh::wait("traffic in the graph", || {
        let graph: Value = serde_json::from_slice(&istioctl(mesh, &["graph", "-o", "json"])?)?;
        let edges = graph["edges"].as_array().context("edges")?;
        for to in &wanted[1..] {
            let found = edges.iter().find(|edge| {
                let end = |name: &str| edge[name].as_str().unwrap_or_default().to_owned();
                end("from").starts_with("default/productpage")
                    && end("to").starts_with(&format!("default/{}", &to[..7]))
            });
            let total = found.and_then(|edge| edge["total"].as_f64()).unwrap_or_default();
            ensure!(total >= 1.0, "productpage to {to}: {graph:#}");
        }
        Ok(graph)
    })?;
    std::fs::write(&file, graph.to_string())?;
    let pods = mesh.pods.iter().filter(|pod| !pod.workload.is_bare()).count();
    let told = graph["nodes"]
        .as_array()
        .context("nodes")?
        .iter()
        .filter_map(|node| node["pods"].as_u64())
        .sum::<u64>();
    ensure!(usize::try_from(told)? == pods, "{pods} pods: {graph:#}");
    // What was asked is drawn, and so is what was written before.
    let page = mesh.dir.join("mesh.html");
    istioctl(mesh, &["graph", "--output", &page.display().to_string()])?;
    ensure!(std::fs::read_to_string(&page)?.contains("workload productpage-v1.default"), "no productpage");
    istioctl(
        mesh,
        &["graph", "--file", &file.display().to_string(), "--output", &page.display().to_string()],
    )?;
    let picture = mesh.dir.join("mesh.svg");
    istioctl(
        mesh,
        &["graph", "--file", &file.display().to_string(), "--output", &picture.display().to_string()],
    )?;
    let Some(program) = browser::program()? else { return Ok(()) };
    let mut shown = open(&program, &page, &graph)?;
    // The keyboard reaches nodes and traffic.
    let mut reached = BTreeSet::new();
    for _ in 0..length(&graph["nodes"]) + length(&graph["edges"]) + 1 {
        shown.tab()?;
        reached.insert(shown.value("document.activeElement.id")?.as_str().unwrap_or_default().to_owned());
    }
    ensure!(reached.contains("n0") && (reached.contains("e0") || graph["edges"] == json!([])), "{reached:?}");
    // It is dark where people want it dark.
    let background = "getComputedStyle(document.body).backgroundColor";
    let light = shown.value(background)?;
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    shown.call("Emulation.setEmulatedMedia", &dark)?;
    let now = shown.value(background)?;
    ensure!(light == "rgb(255, 255, 255)" && now == "rgb(13, 17, 23)", "{light} and {now}");
    // The picture alone is one that browsers read, too.
    shown.go(&format!("file://{}", picture.display()))?;
    let nodes = shown.value("document.querySelectorAll('.node').length")?;
    ensure!(nodes == length(&graph["nodes"]), "{nodes}");
    ensure!(
        shown.value("getComputedStyle(document.querySelector('.paper')).fill")? == "rgb(13, 17, 23)",
        "its colors"
    );
    ensure!(shown.complaints().is_empty(), "{:?}", shown.complaints());
    Ok(())
}

fn many(mesh: &mut Mesh) -> anyhow::Result<()> {
    const COUNT: usize = 500;
    let Some(program) = browser::program()? else { return Ok(()) };
    let hostile = "</title><script>window.evil = 1</script><img src=http://10.0.0.1/x onerror=\"evil()\">";
    let id = |index: usize| format!("ns-{}/w{index}", index % 9);
    let nodes: Vec<Value> = (0..COUNT)
        .map(|index| {
            let name = if index == 7 { hostile.to_owned() } else { format!("workload-{index}") };
            json!({"id": id(index), "kind": "workload", "name": name, "namespace": format!("ns-{}", index % 9), "mtls": "strict"})
        })
        .collect();
    let edges: Vec<Value> = (1..COUNT)
        .flat_map(|to| [(to / 4, to), (to, (to * 13) % COUNT)])
        .map(|(from, to)| json!({"from": id(from), "to": id(to), "protocol": "http", "total": to, "errors": to / 90, "secured": 1.0}))
        .collect();
    let graph = json!({"nodes": nodes, "edges": edges});
    let (file, page) = (mesh.dir.join("many.json"), mesh.dir.join("many.html"));
    std::fs::write(&file, graph.to_string())?;
    istioctl(
        mesh,
        &["graph", "--file", &file.display().to_string(), "--output", &page.display().to_string()],
    )?;
    let mut shown = open(&program, &page, &graph)?;
    ensure!(
        shown.value("window.evil === undefined && document.images.length === 0")? == true,
        "a name is markup"
    );
    let name = shown.value(
        "[...document.querySelectorAll('th')].filter(one => one.textContent.includes('<script>')).length",
    )?;
    ensure!(name != 0, "the name is not shown");
    // None stands on another.
    let covered = shown.value(
        "(() => { const all = [...document.querySelectorAll('.node rect')].map(one => one.getBoundingClientRect()); let bad = 0; \
         all.forEach((a, i) => { for (const b of all.slice(i + 1)) if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) bad++; }); \
         return bad; })()",
    )?;
    ensure!(covered == 0, "{covered} cover each other");
    Ok(())
}
