//! Certificates that the tests make.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use istio_tests::mesh::Mesh;
use pki::certificate::Certificate;
use pki::csr::Csr;
use pki::issuer::{Issuer, Material, Pem, San};
use pki::key::{Algorithm, PrivateKey};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long everything is valid.
const LIFE: Duration = Duration::from_secs(86_400);

/// An authority.
#[derive(Debug)]
pub(crate) struct Ca {
    issuer: Issuer,
    /// Its certificate.
    pub(crate) roots: String,
    /// Its key.
    pub(crate) key: String,
}

impl Ca {
    /// A new one.
    pub(crate) fn new(organization: &str) -> anyhow::Result<Self> {
        let (issuer, key) = Issuer::self_signed(organization, LIFE, SystemTime::now())?;
        Ok(Self { roots: issuer.root_pem().to_owned(), issuer, key: key.to_string() })
    }

    /// That of files in the mesh's directory.
    pub(crate) fn open(mesh: &Mesh, folder: &str) -> anyhow::Result<Self> {
        let read = |name: &str| fs::read_to_string(mesh.dir.join(folder).join(name)).context(name.to_owned());
        let (roots, key) = (read("ca-cert.pem")?, read("ca-key.pem")?);
        let issuer = Issuer::load(
            &Material {
                cert: Pem { file: "ca-cert.pem", text: &roots },
                key: Pem { file: "ca-key.pem", text: &key },
                chain: Pem { file: "cert-chain.pem", text: "" },
                root: Pem { file: "root-cert.pem", text: &roots },
            },
            SystemTime::now(),
        )?;
        Ok(Self { issuer, roots, key })
    }

    /// A certificate for a host, or a SPIFFE identity.
    pub(crate) fn issue(&self, name: &str) -> anyhow::Result<Pair> {
        let key = PrivateKey::generate(Algorithm::EcdsaP256)?;
        let san = if name.starts_with("spiffe://") {
            San::Spiffe(name.parse()?)
        } else {
            San::Dns(name.to_owned())
        };
        let chain = self.issuer.issue(&Csr::of_key(&key)?, &[san], LIFE, SystemTime::now())?;
        Ok(Pair { chain: chain[0].clone(), key })
    }
}

impl Ca {
    /// The list of those of its certificates that it has revoked.
    pub(crate) fn revoked(&self, pairs: &[&Pair]) -> anyhow::Result<String> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
        let serials = pairs.iter().map(|pair| {
            let leaf = Certificate::all_from_pem(&pair.chain)?.remove(0);
            let (_, leaf) = X509Certificate::from_der(leaf.der())?;
            anyhow::Ok(leaf.raw_serial().to_vec())
        });
        let revoked = serials.map(|serial| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from(serial?),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            })
        });
        let list = CertificateRevocationListParams {
            this_update: now - LIFE,
            next_update: now + LIFE,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect::<anyhow::Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signer = rcgen::Issuer::from_ca_cert_pem(&self.roots, KeyPair::from_pem(&self.key)?)?;
        Ok(list.signed_by(&signer)?.pem()?)
    }
}

/// A certificate and its key.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) chain: String,
    /// The key.
    pub(crate) key: PrivateKey,
}

impl Pair {
    /// Writes `tls.crt`, `tls.key` and `ca.crt` for a proxy.
    pub(crate) fn write(&self, folder: &Path, roots: &str) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        let key = self.key.to_pkcs8_pem();
        for (name, text) in [("tls.crt", self.chain.as_str()), ("tls.key", key.as_str()), ("ca.crt", roots)] {
            let next = folder.join("next.tmp");
            fs::write(&next, text)?;
            let proxy = Some(names::port::PROXY_UID);
            std::os::unix::fs::chown(&next, proxy, proxy)?;
            fs::rename(&next, folder.join(name))?;
        }
        Ok(())
    }
}

/// A Secret with those of `tls.crt`, `tls.key` and `ca.crt` that are not empty.
pub(crate) fn secret(namespace: &str, name: &str, pair: Option<&Pair>, roots: &str) -> String {
    let key = pair.map(|pair| pair.key.to_pkcs8_pem().to_string()).unwrap_or_default();
    let chain = pair.map(|pair| pair.chain.as_str()).unwrap_or_default();
    secret_of(namespace, name, &[("tls.crt", chain), ("tls.key", &key), ("ca.crt", roots)])
}

/// A Secret with those values that are not empty.
pub(crate) fn secret_of(namespace: &str, name: &str, values: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n"
    );
    for (name, value) in values {
        if !value.is_empty() {
            text += &format!("  {name}: |\n    {}\n", value.trim_end().replace('\n', "\n    "));
        }
    }
    text + "---\n"
}
