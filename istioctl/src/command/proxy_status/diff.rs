//! How what an Envoy has differs from what istiod would send it.

use std::io::Write;

use similar::{Algorithm, TextDiff};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::dump::{ConfigDump, Error, Resource, State};
use crate::failure::Result;
use crate::json::{Shape, Text, Value};
use crate::render::json::{Style, render};
use crate::schema::Schema;

/// Lines before and after a difference.
const CONTEXT: usize = 7;

/// A type of configuration and how a dump has it.
struct Kind {
    title: &'static str,
    /// Message of the dump, its list, and the way from there to a resource.
    type_name: &'static str,
    list: &'static str,
    path: &'static [&'static str],
    resources: fn(&ConfigDump<'_>) -> std::result::Result<Vec<OwnedResource>, Error>,
}

/// Name and JSON of a resource, and when it came.
struct OwnedResource {
    name: String,
    text: String,
    last_updated: String,
}

const KINDS: [Kind; 3] = [
    Kind {
        title: "Clusters",
        type_name: "envoy.admin.v3.ClustersConfigDump",
        list: "dynamicActiveClusters",
        path: &["cluster"],
        resources: |dump| discovered(dump.clusters()?),
    },
    Kind {
        title: "Listeners",
        type_name: "envoy.admin.v3.ListenersConfigDump",
        list: "dynamicListeners",
        path: &["activeState", "listener"],
        resources: |dump| discovered(dump.listeners()?),
    },
    Kind {
        title: "Routes",
        type_name: "envoy.admin.v3.RoutesConfigDump",
        list: "dynamicRouteConfigs",
        path: &["routeConfig"],
        resources: |dump| discovered(dump.routes()?),
    },
];

/// Those that istiod has sent, by name.
fn discovered(resources: Vec<Resource<'_>>) -> std::result::Result<Vec<OwnedResource>, Error> {
    #[derive(serde::Deserialize)]
    struct Named<'a> {
        #[serde(borrow, default)]
        name: Text<'a>,
    }
    let mut all = Vec::new();
    for resource in resources.into_iter().filter(|resource| resource.state == State::Active) {
        all.push(OwnedResource {
            name: resource.read::<Named<'_>>()?.name.to_string(),
            text: resource.raw().to_owned(),
            last_updated: resource.last_updated.to_string(),
        });
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Tells of each type whether it is the same, else how it differs.
pub(super) fn show(istiod: &str, envoy: &str, out: &mut impl Write) -> Result {
    let (istiod, envoy) = (ConfigDump::parse(istiod)?, ConfigDump::parse(envoy)?);
    let schema = Schema::default();
    for kind in KINDS {
        let title = kind.title;
        let has = (kind.resources)(&envoy);
        let loaded = match &has {
            Ok(all) if title == "Routes" => loaded(all),
            _ => String::new(),
        };
        let has = text(&schema, &kind, has)?;
        let wanted = text(&schema, &kind, (kind.resources)(&istiod))?;
        if has == wanted {
            writeln!(out, "{title} Match{loaded}")?;
            continue;
        }
        let diff = TextDiff::configure().algorithm(Algorithm::Myers).diff_lines(&wanted, &has);
        writeln!(out, "{title} Don't Match{loaded}")?;
        let names = (format!("Istiod {title}"), format!("Envoy {title}"));
        let mut unified = diff.unified_diff();
        writeln!(out, "{}", unified.context_radius(CONTEXT).header(&names.0, &names.1))?;
    }
    Ok(())
}

/// When routes came last.
fn loaded(routes: &[OwnedResource]) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] UTC"
    );
    let times = routes.iter().filter_map(|route| OffsetDateTime::parse(&route.last_updated, &Rfc3339).ok());
    let last = times.max().and_then(|last| last.to_offset(time::UtcOffset::UTC).format(format).ok());
    last.map(|last| format!(" (RDS last loaded at {last})")).unwrap_or_default()
}

/// The JSON that is compared; why there is none, too, is a text.
fn text(
    schema: &Schema,
    kind: &Kind,
    resources: std::result::Result<Vec<OwnedResource>, Error>,
) -> anyhow::Result<String> {
    let resources = match resources {
        Ok(resources) => resources,
        Err(error) => return Ok(format!("{error}\n")),
    };
    let mut entries = Vec::new();
    for resource in &resources {
        let mut value: Value<'_> = serde_json::from_str(&resource.text)?;
        sort_hosts(&mut value);
        let entry = kind
            .path
            .iter()
            .rev()
            .fold(value, |inside, name| Value::Object(Shape::Message, vec![((*name).into(), inside)]));
        entries.push(entry);
    }
    let whole = vec![(kind.list.into(), Value::List(Shape::Field, entries))];
    let whole = schema.canonical(kind.type_name, Value::Object(Shape::Message, whole));
    Ok(render(&whole, Style::Message) + "\n")
}

/// The order of virtual hosts says nothing.
fn sort_hosts(value: &mut Value<'_>) {
    let Value::Object(_, fields) = value else { return };
    let hosts = fields.iter_mut().find(|(name, _)| name == "virtual_hosts" || name == "virtualHosts");
    if let Some((_, Value::List(_, hosts))) = hosts {
        hosts.sort_by_cached_key(|host| {
            host.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(name: &str, timeout: &str) -> String {
        let any = |kind: &str| format!("type.googleapis.com/envoy.{kind}");
        format!(
            r#"{{"configs": [
            {{"@type": "{}", "static_clusters": [{{"cluster": {{"name": "own"}}}}],
              "dynamic_active_clusters": [{{"version_info": "{name}", "cluster": {{"@type": "{}", "name": "c", "connect_timeout": "{timeout}"}}}}]}},
            {{"@type": "{}", "dynamic_route_configs": [{{"last_updated": "2026-11-24T00:02:43.9Z",
              "route_config": {{"@type": "{}", "name": "80", "virtual_hosts": [{{"name": "{name}"}}, {{"name": "m"}}]}}}}]}}]}}"#,
            any("admin.v3.ClustersConfigDump"),
            any("config.cluster.v3.Cluster"),
            any("admin.v3.RoutesConfigDump"),
            any("config.route.v3.RouteConfiguration"),
        )
    }

    #[test]
    fn differences_are_told_by_type() {
        let mut out = Vec::new();
        show(&dump("a", "10s"), &dump("z", "5s"), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("Clusters Don't Match\n--- Istiod Clusters\n+++ Envoy Clusters\n@@ -"),
            "{text}"
        );
        assert!(
            text.contains(
                "-                \"connectTimeout\": \"10s\"\n+                \"connectTimeout\": \"5s\"\n"
            ),
            "{text}"
        );
        assert!(text.contains("Listeners Match\n"), "{text}");
        assert!(
            text.contains("Routes Don't Match (RDS last loaded at Tue, 24 Nov 2026 00:02:43 UTC)\n"),
            "{text}"
        );
    }

    #[test]
    fn versions_and_the_order_of_hosts_are_no_difference() {
        let mut out = Vec::new();
        let other =
            dump("a", "10s").replace(r#"{"name": "a"}, {"name": "m"}"#, r#"{"name": "m"}, {"name": "a"}"#);
        show(
            &dump("a", "10s"),
            &other.replace("\"version_info\": \"a\"", "\"version_info\": \"7\""),
            &mut out,
        )
        .unwrap();
        let wanted = "Clusters Match\nListeners Match\nRoutes Match (RDS last loaded at Tue, 24 Nov 2026 00:02:43 UTC)\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
