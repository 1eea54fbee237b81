//! TLS to istiod: its certificate is verified with the roots of the mesh.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use pki::verify::{Proof, anybody};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::Secure;
use crate::proxies::Connection;

/// HTTP/2.
const PROTOCOL: &[u8] = b"h2";

pub(super) async fn wrap(connection: Connection, secure: &Secure<'_>) -> anyhow::Result<Connection> {
    let Secure { global, args, .. } = secure;
    let host = args.authority.clone().unwrap_or_else(|| {
        let name = match args.revision.as_str() {
            "" | "default" => "istiod".to_owned(),
            revision => format!("istiod-{revision}"),
        };
        format!("{name}.{}.svc", global.istio_namespace)
    });
    let config = config(secure)?;
    let name = ServerName::try_from(host.clone()).with_context(|| format!("--authority {host}"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, connection).await.with_context(|| {
        format!("TLS with {host}: --authority says another name, --insecure verifies nothing")
    })?;
    Ok(Box::new(stream))
}

fn config(secure: &Secure<'_>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let dir = secure.args.cert_dir.as_deref();
    let roots = match dir {
        Some(dir) => Some(read(dir, "root-cert.pem")?),
        None => secure.credentials.roots.clone(),
    };
    let builder = match roots {
        Some(roots) if !secure.args.insecure => {
            let mut store = RootCertStore::empty();
            for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
                store.add(root.context("roots of the mesh")?)?;
            }
            builder.with_root_certificates(store)
        }
        // The API server has said which pod it is.
        _ if secure.args.insecure || secure.is_tunneled => {
            if !secure.args.insecure {
                eprintln!(
                    "Warning: the roots of the mesh cannot be read (ConfigMap istio-ca-root-cert): istiod's \
                     certificate is not verified; the API server says which pod it is"
                );
            }
            builder.dangerous().with_custom_certificate_verifier(anybody(Proof::Key))
        }
        _ => bail!(
            "the roots of the mesh are not known: give --cert-dir DIR with root-cert.pem in it, or --insecure to verify nothing"
        ),
    };
    let mut config = match dir {
        Some(dir) => {
            let chain = read(dir, "cert-chain.pem")?;
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(read(dir, "key.pem")?.as_bytes());
            let key = key.with_context(|| format!("--cert-dir {}: key.pem", dir.display()))?;
            builder.with_client_auth_cert(chain.context("cert-chain.pem")?, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

fn read(dir: &Path, name: &str) -> anyhow::Result<String> {
    let path = dir.join(name);
    fs::read_to_string(&path).with_context(|| format!("--cert-dir: {}", path.display()))
}
