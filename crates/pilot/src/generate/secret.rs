//! Secrets (SDS): certificates with their keys, for proxies that were proven
//! to be of the Secret's namespace.

use std::sync::Arc;

use proto::envoy::config::core::v3::DataSource;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use xds::Resource;
use xds::session::Wanted;

use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::snapshot::secret::{Credential, Error, Reference, Unnamed};

/// Why a proxy does not get a secret that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name has no form of ours.
    #[error(transparent)]
    Name(#[from] Unnamed),
    /// The proxy was not proven to be of that namespace.
    #[error("the Secret is in {namespace:?}, and the proxy has proven to be of [{}]", .proven.join(" "))]
    Namespace {
        /// Where the Secret is.
        namespace: String,
        /// Namespaces of the proxy's identities.
        proven: Vec<String>,
    },
    /// There is none.
    #[error(transparent)]
    Missing(#[from] Error),
}

/// The secrets of those names, and why others are left out: Envoy waits for them.
///
/// `proven` are the namespaces of identities that the caller has proven; what a
/// proxy says of itself counts for nothing here.
#[must_use]
pub fn secrets(
    snapshot: &Snapshot,
    proxy: &Proxy,
    proven: &[String],
    wanted: &Wanted,
) -> (Vec<Resource>, Vec<(Arc<str>, Refusal)>) {
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    let Wanted::Names(names) = wanted else { return (made, refused) };
    for name in names {
        match secret(snapshot, proxy, proven, name) {
            Ok(secret) => made.push(Resource::encode(name.clone(), &secret)),
            Err(refusal) => refused.push((name.clone(), refusal)),
        }
    }
    (made, refused)
}

fn secret(snapshot: &Snapshot, proxy: &Proxy, proven: &[String], name: &str) -> Result<Secret, Refusal> {
    let reference = Reference::parse(name)?;
    let namespace = reference.namespace.unwrap_or(&proxy.namespace);
    if !proven.iter().any(|proven| proven == namespace) {
        return Err(Refusal::Namespace { namespace: namespace.into(), proven: proven.to_vec() });
    }
    let kind = match snapshot.secrets.find(namespace, reference.name)? {
        Credential::Pair(pair) => Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&pair.chain),
            private_key: inline(&pair.key),
            ocsp_staple: pair.staple.as_ref().and_then(|staple| inline(staple)),
            ..TlsCertificate::default()
        }),
        Credential::Roots(roots) => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(&roots.certificates),
            crl: roots.revoked.as_ref().and_then(|revoked| inline(revoked)),
            ..CertificateValidationContext::default()
        }),
    };
    Ok(Secret { name: name.into(), r#type: Some(kind) })
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    })
}

#[cfg(test)]
mod tests;
