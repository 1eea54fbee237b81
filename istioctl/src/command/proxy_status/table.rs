//! The tables of `proxy-status`.

use std::collections::{BTreeMap, BTreeSet};

use prost_types::value::Kind;
use proto::envoy::service::discovery::v3::DiscoveryResponse;
use proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use time::OffsetDateTime;

use super::age;
use crate::render::table::{Table, WIDE};
use crate::xds::identifier;

/// The types whose columns come first, in this order.
const FIRST: [(&str, &str); 4] = [
    ("CDS", "type.googleapis.com/envoy.config.cluster.v3.Cluster"),
    ("LDS", "type.googleapis.com/envoy.config.listener.v3.Listener"),
    ("EDS", "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"),
    ("RDS", "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"),
];
/// Others that have a short name.
const OTHERS: [(&str, &str); 5] = [
    ("ECDS", EXTENSION),
    ("NDS", "type.googleapis.com/istio.networking.nds.v1.NameTable"),
    ("PCDS", "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig"),
    ("SDS", "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"),
    ("WDS", "type.googleapis.com/istio.workload.Address"),
];
const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Of a type that the proxy does not ask for.
const IGNORED: &str = "IGNORED";

/// Which columns there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Which types each proxy asks for.
    Short,
    /// The state of every type, with its age.
    Verbose,
    /// The state of the usual types.
    ByType,
}

/// A proxy.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    name: String,
    cluster: String,
    istiod: String,
    version: String,
    types: BTreeMap<String, State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// What is known of it.
    word: String,
    /// The same, with its age.
    told: String,
    /// Why it was refused.
    error: Option<String>,
}

impl Row {
    /// What the proxy has refused: its name, the type, and why.
    pub(super) fn refusals(&self) -> Vec<(&str, String, &str)> {
        let refused =
            self.types.iter().filter_map(|(type_url, state)| Some((type_url, state.error.as_deref()?)));
        refused.map(|(type_url, why)| (self.name.as_str(), short(type_url).to_owned(), why)).collect()
    }
}

/// A text of the node's metadata.
pub(crate) fn metadata<'a>(config: &'a ClientConfig, key: &str) -> &'a str {
    let metadata = config.node.as_ref().and_then(|node| node.metadata.as_ref());
    match metadata.and_then(|metadata| metadata.fields.get(key)?.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

/// All proxies, by name.
pub(super) fn rows(answers: &[DiscoveryResponse], namespace: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let mut rows = Vec::new();
    for answer in answers {
        let istiod = identifier(answer).id;
        for resource in &answer.resources {
            let config: ClientConfig = resource.unpack()?;
            if namespace.is_some_and(|wanted| metadata(&config, "NAMESPACE") != wanted) {
                continue;
            }
            rows.push(Row {
                name: config.node.as_ref().map(|node| node.id.clone()).unwrap_or_default(),
                cluster: metadata(&config, "CLUSTER_ID").to_owned(),
                istiod: istiod.clone(),
                version: metadata(&config, "ISTIO_VERSION").to_owned(),
                types: config
                    .generic_xds_configs
                    .iter()
                    .map(|one| (one.type_url.clone(), state(one, now)))
                    .collect(),
            });
        }
    }
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(rows)
}

fn state(config: &GenericXdsConfig, now: i64) -> State {
    let word = match config.config_status() {
        ConfigStatus::Unknown => IGNORED.to_owned(),
        ConfigStatus::NotSent => "NOT SENT".to_owned(),
        status => status.as_str_name().to_owned(),
    };
    let at = config.last_updated.filter(|_| ![IGNORED, "NOT SENT"].contains(&word.as_str()));
    let told = match at {
        Some(at) => format!("{word} ({})", age::human(now - at.seconds)),
        None => word.clone(),
    };
    let error = config.error_state.as_ref().map(|state| state.details.clone());
    State { word, told, error: error.filter(|text| !text.is_empty()) }
}

fn short(type_url: &str) -> &str {
    let known = FIRST.iter().chain(&OTHERS).find(|(_, known)| *known == type_url);
    known.map_or(type_url, |(name, _)| name)
}

pub(super) fn render(rows: &[Row], layout: Layout) -> String {
    let mut table = Table::new(WIDE);
    let seen: BTreeSet<&str> = rows.iter().flat_map(|row| row.types.keys().map(String::as_str)).collect();
    match layout {
        Layout::Short => {
            table.row(["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
            let first = FIRST.iter().map(|(_, type_url)| *type_url);
            let rest = seen.iter().copied().filter(|type_url| first.clone().all(|known| known != *type_url));
            let order: Vec<&str> = first.clone().chain(rest).collect();
            for row in rows {
                let is_asked =
                    |type_url: &&&str| row.types.get(**type_url).is_some_and(|state| state.word != IGNORED);
                let asked: Vec<&str> =
                    order.iter().filter(is_asked).map(|type_url| short(type_url)).collect();
                let told = if asked.is_empty() {
                    "0".into()
                } else {
                    format!("{} ({})", asked.len(), asked.join(","))
                };
                table.row([&row.name, &row.cluster, &row.istiod, &row.version, &told]);
            }
        }
        Layout::Verbose => {
            let known = FIRST.iter().map(|(_, type_url)| *type_url).chain([EXTENSION]);
            let all: BTreeSet<&str> = seen.into_iter().chain(known).collect();
            let head = ["NAME", "CLUSTER"].into_iter().chain(all.iter().map(|type_url| short(type_url)));
            table.row(head.chain(["ISTIOD", "VERSION"]));
            for row in rows {
                let states =
                    all.iter().map(|type_url| row.types.get(*type_url).map_or(IGNORED, |state| &state.told));
                let cells = [row.name.as_str(), &row.cluster].into_iter().chain(states);
                table.row(cells.chain([row.istiod.as_str(), &row.version]));
            }
        }
        Layout::ByType => {
            let columns = || FIRST.iter().chain([&OTHERS[0]]);
            let head = ["NAME", "CLUSTER"].into_iter().chain(columns().map(|(name, _)| *name));
            table.row(head.chain(["ISTIOD", "VERSION"]));
            for row in rows {
                let states = columns()
                    .map(|(_, type_url)| row.types.get(*type_url).map_or(IGNORED, |state| &state.word));
                let cells = [row.name.as_str(), &row.cluster].into_iter().chain(states);
                table.row(cells.chain([row.istiod.as_str(), &row.version]));
            }
        }
    }
    table.render()
}

#[cfg(test)]
mod tests;
