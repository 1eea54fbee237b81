//! Clusters.

use std::io::Write;

use super::{Format, Key, is_key, list};
use crate::args::proxy_config::{Cluster as Args, ClusterFilter};
use crate::dump::view::{Cluster, Metadata};
use crate::dump::{ConfigDump, Error, Resource};
use crate::failure::Result;
use crate::render::table::{Table, WIDE};

const TYPE: &str = "envoy.config.cluster.v3.Cluster";

pub(super) fn show(args: &Args, dump: &ConfigDump<'_>, format: Format, out: &mut impl Write) -> Result {
    if format == Format::Short {
        return Ok(out.write_all(summary(dump, &args.filter, args.port, false)?.as_bytes())?);
    }
    let all = sorted(dump)?.into_iter().filter(|(name, ..)| fits(&args.filter, args.port, name));
    list(TYPE, all.map(|(_, resource)| resource.value()), format, out)
}

/// The table; `is_typed` if it is one of several.
pub(super) fn summary(
    dump: &ConfigDump<'_>,
    filter: &ClusterFilter,
    port: u32,
    is_typed: bool,
) -> std::result::Result<String, Error> {
    let mut table = Table::new(WIDE);
    let head = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"];
    table.row(is_typed.then_some("NAME").into_iter().chain(head));
    for (name, resource) in sorted(dump)? {
        if !fits(filter, port, &name) {
            continue;
        }
        let cluster: Cluster<'_> = resource.read()?;
        let typed = format!("cluster/{name}");
        let cells = if is_key(&name) {
            let Key { direction, subset, host, port } = Key::parse(&name);
            let subset = if subset.is_empty() { "-".into() } else { subset };
            [host, port.to_string(), subset, direction]
        } else {
            let host = if is_typed && !name.is_empty() { typed.clone() } else { name.clone() };
            [host, "-".into(), "-".into(), "-".into()]
        };
        let object = cluster.metadata.as_ref().map(Metadata::object).unwrap_or_default();
        let has_name = is_typed && !name.is_empty();
        let cells = cells.into_iter().chain([cluster.kind().to_owned(), object]);
        table.row(has_name.then_some(typed).into_iter().chain(cells));
    }
    Ok(table.render())
}

fn sorted<'a>(dump: &ConfigDump<'a>) -> std::result::Result<Vec<(String, Resource<'a>)>, Error> {
    let mut named = Vec::new();
    for resource in dump.clusters()? {
        let cluster: Cluster<'_> = resource.read()?;
        named.push((cluster.name.to_string(), resource));
    }
    if named.is_empty() {
        return Err(Error::Empty("clusters"));
    }
    named.sort_by_cached_key(|(name, _)| Key::order(name));
    Ok(named)
}

fn fits(filter: &ClusterFilter, port: u32, name: &str) -> bool {
    let words = [&filter.fqdn, &filter.direction, &filter.subset];
    words.iter().all(|word| name.contains(word.as_str()))
        && (port == 0 || name.contains(&format!("|{port}|")))
}
