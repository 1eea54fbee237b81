//! Certificates and keys of the pods.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use istio_tests::load::Load;
use istio_tests::mesh::Mesh;

use super::{Case, load, more, none_failed};

pub(crate) const CASES: &[Case] = &[
    ("each_pod_has_the_identity_of_its_service_account", identities),
    ("a_certificate_is_renewed_and_no_request_fails", renewal),
    ("no_private_key_is_on_disk_or_in_a_log", secrecy),
];

fn identities(mesh: &mut Mesh) -> anyhow::Result<()> {
    for pod in &mesh.pods {
        let wanted = format!("spiffe://cluster.local/ns/default/sa/{}", pod.workload.service_account);
        let identity = pod.certificate()?.identity;
        ensure!(identity == wanted, "{}: {identity}", pod.workload.name);
    }
    Ok(())
}

fn renewal(mesh: &mut Mesh) -> anyhow::Result<()> {
    let productpage = mesh.pod("productpage-v1")?;
    let seen = || -> anyhow::Result<String> {
        let page = mesh.productpage(None)?.json()?;
        Ok(page["reviews"]["caller"]["certificate"].as_str().context("a certificate")?.to_owned())
    };
    let (before, saw) = (productpage.certificate()?, seen()?);
    let load = load(mesh)?;
    Mesh::wait("a renewed certificate", || {
        ensure!(productpage.certificate()?.serial != before.serial, "still {}", before.serial);
        Ok(())
    })?;
    // More connections than before: new ones, which show the new certificate.
    let fresh = Load::start(&mesh.client, mesh.ask_productpage()?, 32);
    Mesh::wait("the new certificate at reviews", || {
        ensure!(seen()? != saw, "still {saw}");
        Ok(())
    })?;
    more(&load, 50)?;
    none_failed(fresh)?;
    none_failed(load)
}

fn secrecy(mesh: &mut Mesh) -> anyhow::Result<()> {
    for dir in ["pods", "log"] {
        search(&mesh.dir.join(dir))?;
    }
    Ok(())
}

/// Looks for keys and tokens in every file of a folder; the token that a pod
/// was given is where it must be.
fn search(dir: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            search(&path)?;
        } else if kind.is_file() && !path.ends_with(names::path::TOKEN.trim_start_matches("./")) {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            ensure!(!text.contains("PRIVATE KEY"), "{} holds a private key", path.display());
            ensure!(!text.contains("eyJ0eXAi"), "{} holds a token", path.display());
        }
    }
    Ok(())
}
