//! Routes.

use std::collections::BTreeSet;
use std::io::Write;

use super::{Format, list, listener, sort_as_go};
use crate::args::proxy_config::Route as Args;
use crate::dump::view::{Metadata, Route, RouteConfiguration};
use crate::dump::{ConfigDump, Error, Resource};
use crate::failure::Result;
use crate::json::Text;
use crate::render::table::{Table, WIDE};

const TYPE: &str = "envoy.config.route.v3.RouteConfiguration";
/// Cluster of requests that go where they want to.
const PASSTHROUGH: &str = "PassthroughCluster";
/// How many hosts are told.
const SHOWN: usize = 2;

pub(super) fn show(args: &Args, dump: &ConfigDump<'_>, format: Format, out: &mut impl Write) -> Result {
    if format == Format::Short {
        return Ok(out.write_all(summary(dump, &args.name, args.verbose.verbose, "")?.as_bytes())?);
    }
    let all = sorted(dump)?.into_iter().filter(|(name, _)| args.name.is_empty() || *name == args.name);
    list(TYPE, all.map(|(_, resource)| resource.value()), format, out)
}

/// The table; before names stands `prefix`.
pub(super) fn summary(
    dump: &ConfigDump<'_>,
    wanted: &str,
    is_verbose: bool,
    prefix: &str,
) -> std::result::Result<String, Error> {
    let mut table = Table::new(WIDE);
    if is_verbose {
        table.row(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    } else {
        table.row(["NAME", "VIRTUAL HOSTS"]);
    }
    for (name, resource) in sorted(dump)? {
        if !wanted.is_empty() && name != wanted {
            continue;
        }
        let name = format!("{prefix}{name}");
        let routes: RouteConfiguration<'_> = resource.read()?;
        if !is_verbose {
            table.row([name, routes.virtual_hosts.len().to_string()]);
            continue;
        }
        for host in &routes.virtual_hosts {
            let row = |matched: String, object: String| {
                [name.clone(), host.name.to_string(), domains(&host.domains), matched, object]
            };
            for route in host.routes.iter().filter(|route| !is_passthrough(route)) {
                let object = route.metadata.as_ref().map(Metadata::object).unwrap_or_default();
                table.row(row(listener::path(&route.matcher), object));
            }
            if host.routes.is_empty() {
                table.row(row("/*".into(), "404".into()));
            }
        }
    }
    Ok(table.render())
}

fn is_passthrough(route: &Route<'_>) -> bool {
    let cluster = route.route.as_ref().and_then(|action| action.cluster.as_ref());
    cluster.is_some_and(|cluster| &**cluster == PASSTHROUGH)
}

/// Configurations by number; those whose name is none stay where they are.
fn sorted<'a>(dump: &ConfigDump<'a>) -> std::result::Result<Vec<(String, Resource<'a>)>, Error> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        name: Text<'a>,
    }
    let mut named = Vec::new();
    for resource in dump.routes()? {
        named.push((resource.read::<Named<'_>>()?.name.to_string(), resource));
    }
    if named.is_empty() {
        return Err(Error::Empty("routes"));
    }
    let number = |(name, _): &(String, Resource<'a>)| name.parse::<i64>().ok();
    sort_as_go(
        &mut named,
        |one, other| number(one).is_some_and(|one| number(other).is_some_and(|other| one < other)),
        |item| number(item).unwrap_or(i64::MAX),
    );
    Ok(named)
}

/// The first hosts of those that say something of their own.
fn domains(domains: &[Text<'_>]) -> String {
    if let [only] = domains {
        return only.to_string();
    }
    let has_no_port = |domain: &&Text<'_>| {
        let colons = domain.matches(':').count();
        colons == 0 || (colons > 2 && domain.ends_with(']'))
    };
    let short: Vec<&str> = domains.iter().filter(has_no_port).map(|domain| &**domain).collect();
    let known: BTreeSet<&str> = short.iter().copied().collect();
    let says_the_same = |domain: &str| {
        [".svc.cluster.local", ".svc"]
            .iter()
            .any(|end| domain.strip_suffix(end).is_some_and(|shorter| known.contains(shorter)))
    };
    let rest: Vec<&str> = short.iter().copied().filter(|domain| !says_the_same(domain)).collect();
    match rest.get(..SHOWN) {
        Some(shown) if rest.len() > SHOWN => {
            format!("{} + {} more...", shown.join(", "), rest.len() - SHOWN)
        }
        _ => rest.join(", "),
    }
}
