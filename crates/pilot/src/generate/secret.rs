//! Secrets (SDS): certificates with their keys, for proxies that were proven
//! to be of the Secret's namespace, and certificates of ConfigMaps for all others.

use std::sync::Arc;

use proto::envoy::config::core::v3::DataSource;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use xds::Resource;
use xds::session::Wanted;

use super::tls::resource_name;
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
    /// The proxy's service account could not read it by itself.
    #[error(
        "the proxy's service account may not list Secrets of namespace {namespace:?}: a Role with get, list and watch \
         on secrets, and a RoleBinding of it to the account, allow it"
    )]
    Access {
        /// Where the Secret is.
        namespace: String,
    },
    /// There is none.
    #[error(transparent)]
    Missing(#[from] Error),
}

/// The secrets of those names, and why others are left out: Envoy waits for them.
///
/// `proven` are the namespaces of identities that the caller has proven; what a
/// proxy says of itself counts for nothing here. Of them, `readable` are those
/// whose Secrets the caller may read.
#[must_use]
pub fn secrets(
    snapshot: &Snapshot,
    proxy: &Proxy,
    proven: &[String],
    readable: &[String],
    wanted: &Wanted,
) -> (Vec<Resource>, Vec<(Arc<str>, Refusal)>) {
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    let Wanted::Names(names) = wanted else { return (made, refused) };
    for name in names {
        match secret(snapshot, proxy, (proven, readable), name) {
            Ok(secret) => made.push(Resource::encode(name.clone(), &secret)),
            Err(refusal) => refused.push((name.clone(), refusal)),
        }
    }
    (made, refused)
}

fn secret(
    snapshot: &Snapshot,
    proxy: &Proxy,
    (proven, readable): (&[String], &[String]),
    name: &str,
) -> Result<Secret, Refusal> {
    let reference = Reference::parse(name)?;
    let namespace = reference.namespace.unwrap_or(&proxy.namespace);
    // What is in a ConfigMap is no secret: whoever is of the mesh may have it.
    let may_have =
        if reference.is_public { !proven.is_empty() } else { proven.iter().any(|own| own == namespace) };
    if !may_have {
        return Err(Refusal::Namespace { namespace: namespace.into(), proven: proven.to_vec() });
    }
    // Nor are certificates that sign others, in the proxy's own namespace.
    if !reference.is_roots() && !readable.iter().any(|own| own == namespace) {
        return Err(Refusal::Access { namespace: namespace.into() });
    }
    let secrets = &snapshot.secrets;
    let found = if reference.is_public {
        secrets.public(namespace, reference.name)
    } else {
        secrets.find(namespace, reference.name, || is_for_roots(snapshot, name))
    };
    let kind = match found? {
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

/// Whether a server of a Gateway looks for the roots of its clients under that
/// name (`caCertCredentialName`). Envoy refuses roots where it asks for a certificate.
fn is_for_roots(snapshot: &Snapshot, name: &str) -> bool {
    let servers = snapshot.gateways.iter().flat_map(|gateway| &gateway.servers);
    let mut names = servers.filter_map(|server| server.tls.as_ref()).map(|tls| &tls.ca_cert_credential_name);
    names.any(|given| !given.is_empty() && resource_name(given) == name)
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    })
}

#[cfg(test)]
mod tests;
