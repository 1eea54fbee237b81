//! Certificates by signers of the cluster (`certificates.k8s.io`): istiod checks who
//! asks and for what, approves the request, and hands on what the signer answers
//! (`EXTERNAL_CA=ISTIOD_RA_KUBERNETES_API`, `PILOT_CERT_PROVIDER=k8s.io/SIGNER`).

use std::time::{Duration, SystemTime};

use mesh::MeshConfig;
use names::SpiffeId;
use pki::certificate::{self, Certificate};
use pki::csr::{self, Csr};
use pki::issuer::San;
use pki::key::{Algorithm, PrivateKey};
use proto::istio::mesh::v1alpha1::mesh_config::certificate_data::CertificateData;
use runtime::tasks::Tasks;
use tokio::sync::watch;
use tracing::{info, warn};

use super::authority::{Authority, Current};
use super::requests::{self, Requests, Wanted};
use crate::kube::mesh::Mesh;

/// What is asked for a workload.
const WORKLOAD: &[&str] = &["digital signature", "key encipherment", "server auth", "client auth"];
/// What is asked for istiod.
const SERVER: &[&str] = &["digital signature", "key encipherment", "server auth"];

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request does not do.
    #[error(transparent)]
    Csr(#[from] csr::Error),
    /// No signer is named.
    #[error("the request names no signer, and K8S_SIGNER is not set: one of both is needed")]
    NoSigner,
    /// A signer without a domain.
    #[error("CERT_SIGNER_DOMAIN is not set: it is required for the signer {0:?}")]
    NoDomain(String),
    /// The cluster does not sign.
    #[error(transparent)]
    Request(#[from] requests::Error),
    /// Nobody knows the roots.
    #[error(
        "the roots of signer {0} are not known: name them in caCertificates of the mesh configuration, with the signer in \
         certSigners, or let the signer put its root at the end of the chain"
    )]
    NoRoots(String),
    /// The signer's answer cannot be used.
    #[error("what signer {signer} signed cannot be used: {why}")]
    Answer {
        /// The signer.
        signer: String,
        /// What is wrong.
        why: String,
    },
    /// A key cannot be made.
    #[error("make a key: {0}")]
    Key(#[from] pki::key::Error),
}

/// Which signers sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// The signer of requests that name none (`K8S_SIGNER`).
    pub default: String,
    /// What stands before the names of signers in requests (`CERT_SIGNER_DOMAIN`).
    pub domain: String,
}

impl Signers {
    /// The full name of a signer, by what a request says.
    fn of(&self, named: &str) -> Result<String, Error> {
        match (self.domain.as_str(), named) {
            (_, "") if self.default.is_empty() => Err(Error::NoSigner),
            (_, "") => Ok(self.default.clone()),
            ("", named) => Err(Error::NoDomain(named.to_owned())),
            (domain, named) => Ok(format!("{domain}/{named}")),
        }
    }
}

/// Asks the signers.
#[derive(Clone, Debug)]
pub struct Registrar {
    requests: Requests,
    signers: Signers,
    /// Roots of a file, for all signers; empty without one.
    roots: String,
    /// Has the roots of signers, which may change.
    mesh: watch::Receiver<Mesh>,
    /// Requests end here, whether or not somebody waits for them.
    tasks: Tasks,
}

impl Registrar {
    /// Asks these signers, whose roots are those of a file, if there is one, or else
    /// of the mesh configuration.
    #[must_use]
    pub fn new(
        requests: Requests,
        signers: Signers,
        roots: String,
        mesh: watch::Receiver<Mesh>,
        tasks: Tasks,
    ) -> Self {
        Self { requests, signers, roots, mesh, tasks }
    }

    /// Roots of a file; empty without one.
    #[must_use]
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// A certificate for a caller: the leaf, the certificates between, and last the
    /// roots.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn sign(
        &self,
        text: &str,
        caller: &[SpiffeId],
        ttl: Duration,
        named: &str,
    ) -> Result<Vec<String>, Error> {
        // The signer believes what is in it.
        Csr::parse(text)?.claims_only(caller)?;
        let signer = self.signers.of(named)?;
        let signed = self.ask(text, &signer, WORKLOAD, ttl).await?;
        let known = match self.roots.as_str() {
            "" => roots_of(&self.mesh.borrow().config, &signer),
            roots => Some(roots.to_owned()),
        };
        chain(&signed, known, &signer, |leaf| leaf.spiffe_ids().iter().any(|id| caller.contains(id)))
    }

    /// A certificate for istiod's own names, its key and its end.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn serving(
        &self,
        signer: &str,
        names: &[San],
        ttl: Duration,
    ) -> Result<(String, PrivateKey, SystemTime), Error> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let signed = self.ask(&csr::server_request(&key, names)?, signer, SERVER, ttl).await?;
        let answer = |why: String| Error::Answer { signer: signer.to_owned(), why };
        let all = Certificate::all_from_pem(&signed).map_err(|error| answer(error.to_string()))?;
        pki::verify::check_pair(&signed, &key).map_err(|error| answer(error.to_string()))?;
        let end = all.iter().map(|one| one.not_after).min().unwrap_or_else(SystemTime::now);
        Ok((signed, key, end))
    }

    async fn ask(
        &self,
        csr: &str,
        signer: &str,
        usages: &'static [&'static str],
        ttl: Duration,
    ) -> Result<String, Error> {
        let wanted = Wanted { csr: csr.to_owned(), signer: signer.to_owned(), usages, ttl };
        let requests = self.requests.clone();
        // One whose asker has gone away is still taken back.
        let asked = self.tasks.spawn("certificate request", async move { requests.sign(wanted).await });
        match asked.await {
            Ok(Some(answer)) => Ok(answer?),
            Ok(None) | Err(_) => Err(requests::Error::Ended.into()),
        }
    }
}

/// The roots of a signer, by the mesh configuration.
#[must_use]
pub fn roots_of(config: &MeshConfig, signer: &str) -> Option<String> {
    let of_signer =
        config.ca_certificates.iter().filter(|data| data.cert_signers.iter().any(|one| one == signer));
    let pems = of_signer.filter_map(|data| match &data.certificate_data {
        Some(CertificateData::Pem(pem)) => Some(pem.as_str()),
        Some(CertificateData::SpiffeBundleUrl(_)) | None => None,
    });
    let roots = certificate::join_pem(&pems.collect::<Vec<_>>());
    (!roots.is_empty()).then_some(roots)
}

/// The signer's answer as a caller gets it: checked as a peer will do.
fn chain(
    signed: &str,
    known: Option<String>,
    signer: &str,
    is_right: impl Fn(&Certificate) -> bool,
) -> Result<Vec<String>, Error> {
    let failed = |why: String| Error::Answer { signer: signer.to_owned(), why };
    let all = Certificate::all_from_pem(signed).map_err(|error| failed(error.to_string()))?;
    let mut parts = certificate::blocks(signed);
    if !all.first().is_some_and(is_right) {
        return Err(failed("it has not the identity that was asked for".to_owned()));
    }
    let roots = match known {
        Some(roots) => {
            // What all trust need not be sent.
            let known = certificate::blocks(&roots);
            parts.retain(|part| !known.contains(part));
            roots
        }
        None if all.len() > 1 && all.last().is_some_and(|last| last.is_ca) => parts.pop().unwrap_or_default(),
        None => return Err(Error::NoRoots(signer.to_owned())),
    };
    pki::verify::check_chain(&parts.concat(), &roots, SystemTime::now())
        .map_err(|error| failed(error.to_string()))?;
    parts.push(roots);
    Ok(parts)
}

/// Tells an authority without a key of the roots of a signer, as the mesh
/// configuration names them.
pub async fn follow(authority: Authority, mut mesh: watch::Receiver<Mesh>, signer: String) {
    while mesh.changed().await.is_ok() {
        let Some(roots) = roots_of(&mesh.borrow_and_update().config, &signer) else {
            warn!(
                target: "ca",
                "the mesh configuration names no roots of signer {signer} any more: the last ones stay"
            );
            continue;
        };
        if let Err(why) = Certificate::all_from_pem(&roots) {
            warn!(target: "ca", "caCertificates of signer {signer} in the mesh configuration: {why}: the last roots stay");
            continue;
        }
        let current = authority.current();
        if current.roots != roots {
            info!(target: "ca", "new roots of signer {signer}");
            authority.replace(Current { issuer: current.issuer.clone(), roots, origin: current.origin });
        }
    }
}

#[cfg(test)]
mod tests {
    use pki::issuer::Issuer;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn signed(issuer: &Issuer, id: &SpiffeId) -> String {
        let key = PrivateKey::generate(Algorithm::EcdsaP256).unwrap();
        let csr = Csr::of_key(&key).unwrap();
        issuer.issue(&csr, &[San::Spiffe(id.clone())], DAY, SystemTime::now()).unwrap()[0].clone()
    }

    #[test]
    fn signers_are_named_by_request_domain_and_default() {
        let of = |default: &str, domain: &str, named: &str| {
            let signers = Signers { default: default.into(), domain: domain.into() };
            signers.of(named).map_err(|error| error.to_string())
        };
        assert_eq!(of("a.example/default", "", "").unwrap(), "a.example/default");
        assert_eq!(of("a.example/default", "b.example", "").unwrap(), "a.example/default");
        assert_eq!(of("", "b.example", "mine").unwrap(), "b.example/mine");
        assert!(of("a.example/default", "", "mine").unwrap_err().contains("CERT_SIGNER_DOMAIN"));
        assert!(of("", "b.example", "").unwrap_err().contains("K8S_SIGNER"));
    }

    #[test]
    fn the_answer_ends_with_the_roots_whoever_knows_them() {
        let id: SpiffeId = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        let (issuer, _) = Issuer::self_signed("a", DAY, SystemTime::now()).unwrap();
        let (other, _) = Issuer::self_signed("b", DAY, SystemTime::now()).unwrap();
        let root = issuer.root_pem().to_owned();
        let leaf = signed(&issuer, &id);
        let ask = |text: &str, known: Option<&str>| {
            let is_right = |leaf: &Certificate| leaf.spiffe_ids() == [id.clone()];
            chain(text, known.map(str::to_owned), "s", is_right).map_err(|error| error.to_string())
        };
        let both = format!("{leaf}{root}");
        for (text, known) in [(&both, None), (&both, Some(root.as_str())), (&leaf, Some(&root))] {
            assert_eq!(ask(text, known).unwrap(), [leaf.clone(), root.clone()]);
        }
        assert!(ask(&leaf, None).unwrap_err().contains("certSigners"));
        assert!(ask(&leaf, Some(other.root_pem())).unwrap_err().contains("cannot be used"));
        let foreign: SpiffeId = "spiffe://cluster.local/ns/a/sa/c".parse().unwrap();
        let foreign = signed(&issuer, &foreign);
        assert!(ask(&foreign, Some(&root)).unwrap_err().contains("not the identity"));
        assert!(ask("nonsense", Some(&root)).is_err());
    }

    #[test]
    fn roots_of_a_signer_are_those_of_the_mesh_configuration() {
        let (issuer, _) = Issuer::self_signed("a", DAY, SystemTime::now()).unwrap();
        let entry =
            serde_json::json!({"pem": issuer.root_pem(), "certSigners": ["x.example/a", "x.example/b"]});
        let config =
            MeshConfig::from_yaml(&serde_json::json!({"caCertificates": [entry]}).to_string()).unwrap();
        assert_eq!(roots_of(&config, "x.example/b").as_deref(), Some(issuer.root_pem()));
        assert_eq!(roots_of(&config, "x.example/c"), None);
    }
}
