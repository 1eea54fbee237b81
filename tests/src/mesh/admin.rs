//! What a pod's Envoy holds, read from its admin interface.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::pod::Pod;
use crate::client::Ask;

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Its SPIFFE identity.
    pub identity: String,
    /// End of its life, RFC 3339.
    pub expires: String,
}

impl Pod {
    /// A page of Envoy's admin interface.
    ///
    /// # Errors
    /// When Envoy does not answer well.
    pub fn admin(&self, path: &str) -> anyhow::Result<String> {
        let ask = Ask::get((Ipv4Addr::LOCALHOST, names::port::ENVOY_ADMIN), "envoy", path);
        let answer = ask.from(&self.network)?;
        ensure!(answer.status.is_success(), "{path}: {}: {}", answer.status, answer.body);
        Ok(answer.body)
    }

    /// The whole configuration.
    ///
    /// # Errors
    /// When Envoy does not answer well.
    pub fn config_dump(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.admin("/config_dump?include_eds")?)?)
    }

    /// The certificate that Envoy uses.
    ///
    /// # Errors
    /// When it has none.
    pub fn certificate(&self) -> anyhow::Result<Certificate> {
        let page: Value = serde_json::from_str(&self.admin("/certs")?)?;
        let chains = page["certificates"].as_array().context("certificates")?.iter();
        let mut found = chains.filter_map(|certificate| certificate["cert_chain"].as_array()?.first());
        let leaf = found.next().context("no certificate in use")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Certificate {
            serial: text(&leaf["serial_number"]),
            identity: text(&leaf["subject_alt_names"][0]["uri"]),
            expires: text(&leaf["expiration_time"]),
        })
    }

    /// A counter or gauge of Envoy.
    ///
    /// # Errors
    /// When Envoy does not have it.
    pub fn stat(&self, name: &str) -> anyhow::Result<u64> {
        let page = self.admin(&format!("/stats?filter=^{}$", name.replace('|', "\\|")))?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.with_context(|| format!("no stat {name}"))?.trim().parse().context(name.to_owned())
    }
}
