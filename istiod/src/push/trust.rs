//! Which roots agents trust (PCDS): those of the authority and those that the mesh
//! configuration names, told before anything is signed under a new one.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh::MeshConfig;
use pki::certificate::{self, Certificate};
use prost::Message as _;
use proto::istio::mesh::v1alpha1::ProxyConfig;
use proto::istio::mesh::v1alpha1::mesh_config::certificate_data::CertificateData;
use runtime::tasks::Tasks;
use tokio::sync::watch;
use tracing::warn;
use xds::Resource;

use super::bundles::Roots;
use crate::ca::authority::Authority;
use crate::kube::mesh::Mesh;

/// The roots, each by itself, PEM.
pub type Trust = watch::Receiver<Arc<[String]>>;

/// Tells the roots of the moment, and of every change of them.
#[must_use]
pub fn follow(
    tasks: &Tasks,
    authority: &Authority,
    mut mesh: watch::Receiver<Mesh>,
    mut bundles: watch::Receiver<Roots>,
) -> Trust {
    let mut current = authority.subscribe();
    let others = authority.others().to_owned();
    let look = {
        let mesh = mesh.clone();
        let (current, bundles) = (current.clone(), bundles.clone());
        move || {
            let config = mesh.borrow().config.clone();
            let roots = current.borrow().roots.clone();
            all(&[roots.as_str(), &others], &config, &bundles.borrow())
        }
    };
    current.mark_unchanged();
    mesh.mark_unchanged();
    bundles.mark_unchanged();
    let (tell, trust) = watch::channel(look());
    // Mesh configurations of a directory do not change, and their sender is gone.
    let mut changes = true;
    tasks.spawn("trusted roots", async move {
        loop {
            tokio::select! {
                changed = current.changed() => if changed.is_err() { return },
                changed = mesh.changed(), if changes => changes = changed.is_ok(),
                changed = bundles.changed() => if changed.is_err() { return },
            }
            let now = look();
            tell.send_if_modified(|before| {
                let is_other = *before != now;
                *before = now;
                is_other
            });
        }
    });
    trust
}

/// The one resource that there is, which has no name.
#[must_use]
pub fn resource(trust: &Trust) -> Resource {
    let ca_certificates_pem = trust.borrow().to_vec();
    let config = ProxyConfig { ca_certificates_pem, ..ProxyConfig::default() };
    Resource::from_bytes("", config.encode_to_vec().into())
}

/// The certificates of `roots` and of the mesh configuration, each once.
fn all(roots: &[&str], config: &MeshConfig, bundles: &Roots) -> Arc<[String]> {
    let mut all: Vec<String> = Vec::new();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for root in roots.iter().flat_map(|roots| certificate::blocks(roots)) {
        if known.insert(root.clone()) {
            all.push(root);
        }
    }
    for (number, data) in config.ca_certificates.iter().enumerate() {
        let pem = match &data.certificate_data {
            Some(CertificateData::Pem(pem)) => pem,
            Some(CertificateData::SpiffeBundleUrl(url)) => {
                for root in bundles.get(url).into_iter().flatten() {
                    if known.insert(root.clone()) {
                        all.push(root.clone());
                    }
                }
                continue;
            }
            None => continue,
        };
        if let Err(error) = Certificate::all_from_pem(pem) {
            warn!(target: "ca", "mesh configuration: caCertificates[{number}].pem: {error}: it is left out");
            continue;
        }
        for root in certificate::blocks(pem) {
            if known.insert(root.clone()) {
                all.push(root);
            }
        }
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pki::issuer::Issuer;

    use super::*;

    fn root(name: &str) -> String {
        let issuer = Issuer::self_signed(name, Duration::from_secs(3600), SystemTime::now()).unwrap().0;
        issuer.root_pem().to_owned()
    }

    #[test]
    fn roots_of_the_authority_come_first_and_each_once() {
        let (a, b, c) = (root("a"), root("b"), root("c"));
        let entry = |pem: &str| serde_json::json!({"pem": pem}).to_string();
        let text = format!(
            "caCertificates: [{}, {}, {}, {{}}]",
            entry(&format!("{c}{a}")),
            entry("nonsense"),
            entry(&b)
        );
        let config = MeshConfig::from_yaml(&text).unwrap();
        assert_eq!(*all(&[&format!("{a}{b}")], &config, &Roots::default()), [a, b, c]);
    }

    #[test]
    fn roots_of_bundles_are_trusted_once_they_are_fetched() {
        let (a, b) = (root("a"), root("b"));
        let config = MeshConfig::from_yaml("caCertificates: [{spiffeBundleUrl: x.example}]").unwrap();
        assert_eq!(*all(&[&a, ""], &config, &Roots::default()), *std::slice::from_ref(&a));
        let fetched = [("x.example".to_owned(), vec![a.clone(), b.clone()])].into();
        assert_eq!(*all(&[&a, ""], &config, &Arc::new(fetched)), [a, b]);
    }

    #[tokio::test]
    async fn a_new_root_is_told() {
        let issuer =
            |name: &str| Issuer::self_signed(name, Duration::from_secs(3600), SystemTime::now()).unwrap().0;
        let day = Duration::from_secs(24 * 3600);
        let authority = Authority::new(issuer("a"), "test", day, day);
        let (_tell, bundles) = watch::channel(Roots::default());
        let mut trust = follow(&Tasks::new(), &authority, watch::channel(Mesh::default()).1, bundles);
        assert_eq!(trust.borrow_and_update().len(), 1);
        let current = authority.current();
        let roots = format!("{}{}", current.roots, issuer("b").root_pem());
        let issuer = current.issuer.clone();
        authority.replace(crate::ca::authority::Current { issuer, roots, origin: "test" });
        trust.changed().await.unwrap();
        assert_eq!(trust.borrow().len(), 2);
        let bytes = resource(&trust).body;
        assert_eq!(ProxyConfig::decode(bytes).unwrap().ca_certificates_pem.len(), 2);
    }
}
