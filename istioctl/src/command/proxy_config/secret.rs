//! Certificates and roots.

use time::OffsetDateTime;

use crate::dump::certificate::{Item, items};
use crate::dump::{ConfigDump, Error, section};
use crate::json::Value;
use crate::render::table::{Table, WIDE};
use crate::schema::Schema;

const TYPE: &str = "envoy.admin.v3.SecretsConfigDump";

/// All of it; Envoy leaves keys out of its dumps.
pub(super) fn whole<'a>(dump: &ConfigDump<'a>) -> Result<Value<'a>, Error> {
    let text = dump.section(section::SECRETS)?;
    let value = serde_json::from_str(text).map_err(|source| Error::Part { what: "secrets", source })?;
    Ok(Schema::default().canonical(TYPE, value))
}

/// The table; before names stands `prefix`.
pub(super) fn summary(dump: &ConfigDump<'_>, prefix: &str) -> Result<String, Error> {
    let now = OffsetDateTime::now_utc();
    let mut found: Vec<Item> = Vec::new();
    let secrets = dump.secrets()?;
    if secrets.is_empty() {
        return Ok("No active or warming secrets found.\n".into());
    }
    for secret in secrets {
        found.extend(items(&secret, now)?);
    }
    if found.is_empty() {
        return Ok("No secret items to show.\n".into());
    }
    // Where it is known of all, several trust domains are likely to meet.
    let has_domains = found.iter().all(|item| !item.trust_domain.is_empty());
    let mut table = Table::new(WIDE);
    let head = ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];
    table.row(head.into_iter().chain(has_domains.then_some("TRUST DOMAIN")));
    for item in found {
        let cells = [
            format!("{prefix}{}", item.name),
            item.kind,
            item.state,
            item.is_valid.to_string(),
            item.serial,
            item.not_after,
            item.not_before,
        ];
        table.row(cells.into_iter().chain(has_domains.then_some(item.trust_domain)));
    }
    Ok(table.render())
}
