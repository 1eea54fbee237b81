//! How a proxy was started.

use std::collections::BTreeMap;

use crate::dump::{ConfigDump, Error, section};
use crate::json::{Text, Value};
use crate::render::table::{NARROW, Table};
use crate::schema::Schema;

const TYPE: &str = "envoy.admin.v3.BootstrapConfigDump";

/// All of it.
pub(super) fn whole<'a>(dump: &ConfigDump<'a>) -> Result<Value<'a>, Error> {
    let text = dump.section(section::BOOTSTRAP)?;
    let value = serde_json::from_str(text).map_err(|source| Error::Part { what: "the bootstrap", source })?;
    Ok(Schema::default().canonical(TYPE, value))
}

/// Versions.
pub(super) fn summary(dump: &ConfigDump<'_>) -> Result<String, Error> {
    let node = dump.bootstrap()?.bootstrap.node;
    let version = text(&node.metadata, "ISTIO_VERSION").unwrap_or_default();
    let sha = text(&node.metadata, "ISTIO_PROXY_SHA").unwrap_or_default();
    let sha = sha.split(':').nth(1).unwrap_or(sha);
    let build = &node.user_agent_build_version;
    let number = &build.version;
    let mut envoy = format!("{}.{}.{}", number.major_number, number.minor_number, number.patch);
    for (key, before) in
        [("build.label", '-'), ("revision.status", '/'), ("build.type", '/'), ("ssl.version", '/')]
    {
        if let Some(value) = build.metadata.iter().find(|(name, _)| &***name == key).map(|(_, value)| value) {
            envoy.push(before);
            envoy += value.as_str().unwrap_or_default();
        }
    }
    let mut table = Table::new(NARROW);
    for (name, value) in
        [("Istio Version:", version), ("Istio Proxy Version:", sha), ("Envoy Version:", envoy.as_str())]
    {
        if !value.is_empty() {
            table.row([name, value]);
        }
    }
    Ok(table.render())
}

fn text<'a>(metadata: &'a BTreeMap<Text<'_>, Value<'_>>, key: &str) -> Option<&'a str> {
    metadata.iter().find(|(name, _)| &***name == key).and_then(|(_, value)| value.as_str())
}
