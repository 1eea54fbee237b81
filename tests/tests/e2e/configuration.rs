//! Changes of the objects, with requests running.

use anyhow::ensure;
use istio_tests::app::PORT;
use istio_tests::client::Ask;
use istio_tests::mesh::Mesh;

use super::{Case, load, more, none_failed, version, wait_version};

pub(crate) const CASES: &[Case] = &[
    ("a_changed_file_is_in_force_and_no_request_fails", change),
    ("a_half_written_file_changes_nothing", half_written),
    ("subsets_come_and_go_without_a_failed_request", subsets),
    ("mutual_tls_is_switched_without_a_failed_request", modes),
    ("all_proxies_accept_everything", accepted),
];

const ROUTE: &str = "reviews-route.yaml";
const RULE: &str = "reviews-destination.yaml";

fn change(mesh: &mut Mesh) -> anyhow::Result<()> {
    let text = mesh.read(ROUTE)?;
    let load = load(mesh)?;
    for subset in ["v3", "v2", "v1"] {
        mesh.write(ROUTE, &text.replace("subset: v1", &format!("subset: {subset}")))?;
        wait_version(mesh, None, subset)?;
        more(&load, 50)?;
    }
    none_failed(load)
}

fn half_written(mesh: &mut Mesh) -> anyhow::Result<()> {
    let text = mesh.read(ROUTE)?;
    let load = load(mesh)?;
    // Cut in the middle of a word that matters.
    let half = &text[..text.find("destination").map_or(0, |at| at + 4)];
    mesh.write(ROUTE, half)?;
    let problems = Mesh::wait("the problem", || {
        let problems = mesh.istiod.page("/debug/sourcez")?["problems"].to_string();
        ensure!(problems.contains(ROUTE), "{problems}");
        Ok(problems)
    })?;
    ensure!(problems.contains(&format!("{ROUTE}:")), "a line is named: {problems}");
    ensure!(version(mesh, Some("jason"))? == "v2", "the last good state stays in force");
    ensure!(mesh.istiod.output().contains("stays in force"), "it is logged");
    mesh.write(ROUTE, &text)?;
    more(&load, 50)?;
    none_failed(load)
}

fn subsets(mesh: &mut Mesh) -> anyhow::Result<()> {
    let (route, rule) = (mesh.read(ROUTE)?, mesh.read(RULE)?);
    let load = load(mesh)?;
    // The route's only cluster is renamed under it: first the new one is there, then the old one goes.
    mesh.write(RULE, &rule.replace("  - name: v1", "  - name: first"))?;
    mesh.write(ROUTE, &route.replace("subset: v1", "subset: first"))?;
    wait_version(mesh, None, "v1")?;
    more(&load, 100)?;
    mesh.write(ROUTE, &route)?;
    mesh.write(RULE, &rule)?;
    mesh.wait_synced()?;
    more(&load, 100)?;
    none_failed(load)
}

fn modes(mesh: &mut Mesh) -> anyhow::Result<()> {
    const FILE: &str = "peer-authentication.yaml";
    let text = mesh.read(FILE)?;
    let address = mesh.pod("reviews-v1")?.workload.address;
    let plain = || Ask::get((address, PORT), "reviews:9080", "/reviews/0").from(&mesh.client);
    let load = load(mesh)?;
    mesh.write(FILE, &text.replace("STRICT", "PERMISSIVE"))?;
    Mesh::wait("plaintext allowed", || {
        ensure!(plain()?.status.is_success());
        Ok(())
    })?;
    more(&load, 50)?;
    let caller = mesh.productpage(None)?.json()?["reviews"]["caller"]["identity"].clone();
    ensure!(caller.is_string(), "sidecars still use mutual TLS: {caller}");
    mesh.write(FILE, &text)?;
    Mesh::wait("plaintext refused", || {
        ensure!(plain().is_err(), "still answered");
        Ok(())
    })?;
    more(&load, 50)?;
    none_failed(load)
}

fn accepted(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.wait_synced()?;
    let page = mesh.istiod.page("/debug/syncz")?;
    for row in page.as_array().into_iter().flatten() {
        for (name, state) in row["resources"].as_object().into_iter().flatten() {
            ensure!(state["lastError"].is_null(), "{}: {name}: {state}", row["proxy"]);
        }
    }
    for pod in &mesh.pods {
        for kind in ["listener_manager.lds", "cluster_manager.cds"] {
            let refused = pod.stat(&format!("{kind}.update_rejected"))?;
            ensure!(refused == 0, "{} refused {refused} of {kind}", pod.workload.name);
        }
    }
    Ok(())
}
