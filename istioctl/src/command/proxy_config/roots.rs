//! Whether two proxies have a root in common.

use std::io::Write;

use anyhow::{Context as _, bail, ensure};
use time::OffsetDateTime;

use super::{Source, page};
use crate::args::proxy_config::RootcaCompare as Args;
use crate::dump::ConfigDump;
use crate::dump::certificate::{ders, items};
use crate::failure::{Failure, Result};
use crate::proxies::Mesh;

/// Secret with the roots of the mesh.
const ROOTS: &str = "ROOTCA";

pub(super) async fn run(args: &Args, source: &Source<'_>, out: &mut impl Write) -> Result {
    let [one, other] = &args.proxies[..] else {
        return Err(Failure::from(anyhow::anyhow!("rootca-compare requires 2 pods as an argument")));
    };
    let mesh = Mesh::open(source.global).await?;
    let mut found = Vec::new();
    for name in [one, other] {
        let proxy = mesh.proxy(name).await?;
        let text = mesh.admin(&proxy, source.port).get(page::SECRETS).await?;
        let roots = roots(&text).with_context(|| format!("roots of {proxy}"))?;
        found.push((proxy, roots));
    }
    let [(one, roots), (other, others)] = &found[..] else { return Ok(()) };
    let pair = format!("Both [{one}] and [{other}]");
    if roots.iter().any(|root| others.contains(root)) {
        return Ok(writeln!(
            out,
            "{pair} have the identical ROOTCA, theoretically the connectivity between them is available"
        )?);
    }
    Err(Failure::from(anyhow::anyhow!(
        "{pair} have the non identical ROOTCA, theoretically the connectivity between them is unavailable"
    )))
}

/// The roots in a dump, as DER.
fn roots(text: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let dump = ConfigDump::parse(text)?;
    let secrets = dump.secrets()?;
    let Some(secret) = secrets.iter().find(|secret| &*secret.name == ROOTS) else {
        bail!("cannot find {ROOTS}: has the proxy got its certificates? see istioctl proxy-config secret");
    };
    let all: Vec<Vec<u8>> =
        items(secret, OffsetDateTime::UNIX_EPOCH)?.iter().flat_map(|item| ders(&item.pem)).collect();
    ensure!(!all.is_empty(), "there is no certificate in the secret {ROOTS}");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_without_roots_is_told() {
        let text = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": [{"name": "ROOTCA", "secret": {"validation_context": {"trusted_ca": {"inline_bytes": "eA=="}}}}]}]}"#;
        assert!(roots(text).unwrap_err().to_string().contains("no certificate"));
        assert!(roots(&text.replace("ROOTCA", "default")).unwrap_err().to_string().contains("cannot find"));
    }
}
