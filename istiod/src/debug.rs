//! Debug and metrics pages, in the forms of Istio's.

pub mod cachez;
pub mod clients;
pub mod distribution;
pub mod dump;
pub mod guard;
mod index;
pub mod objects;
pub mod observer;
pub mod over_xds;
mod policies;
pub mod push_status;
pub mod registry;
pub mod syncz;

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use names::TypeUrl;
use prometheus_client::registry::Registry;
use runtime::http::{Body, json, respond, text};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use self::guard::{Access, Guard};
use self::observer::Observer;
use crate::drain::{Drain, STOPPING};
use crate::metrics;
use crate::push::status::{Row, Table};
use crate::world::{Problems, Wish, World};

/// Below it, every whole number is one that a number with a fraction can hold: 2^53.
const MOST: f64 = 9_007_199_254_740_992.0;
/// What an istiod says of a proxy that is connected to none, or to another one. Tools
/// look for these words, and then ask another istiod.
const NOT_CONNECTED: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Connected proxies.
    pub table: Table,
    /// The configuration in force.
    pub world: watch::Receiver<Arc<World>>,
    /// What is wrong with objects that are not in force.
    pub problems: watch::Receiver<Problems>,
    /// What was found in what is in force.
    pub observer: Observer,
    /// Counters.
    pub registry: Arc<Registry>,
    /// Where wishes of pages go.
    pub wish: mpsc::Sender<Wish>,
    /// Who may see what.
    pub guard: Guard,
    /// Name of this istiod among others.
    pub instance: String,
    /// Name of the cluster that it reads.
    pub cluster: String,
    /// Whether this istiod stops.
    pub drain: Drain,
}

/// What a page answers.
#[derive(Debug)]
pub enum Page {
    /// A value.
    Json(Value),
    /// Words, and whether all is well.
    Text(StatusCode, String),
}

impl Page {
    fn text(status: StatusCode, words: impl Into<String>) -> Self {
        Self::Text(status, words.into())
    }

    /// Tools look for these words, and then name the pages that there are.
    fn not_found() -> Self {
        Self::text(StatusCode::NOT_FOUND, "404 page not found\n")
    }

    fn not_connected() -> Self {
        Self::text(StatusCode::NOT_FOUND, NOT_CONNECTED)
    }

    /// Tools look for these words.
    fn no_proxy() -> Self {
        Self::text(StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n")
    }

    fn response(self) -> Response<Body> {
        match self {
            Self::Json(value) => json(&plain(value)),
            Self::Text(status, words) => text(status, words),
        }
    }
}

/// Numbers as Go writes them: `100`, where a number with a fraction would be `100.0` here.
pub(crate) fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|known| number.is_f64() && known.fract() == 0.0);
            // What has more digits than a number with a fraction can hold is left alone.
            #[expect(clippy::cast_possible_truncation, reason = "it is small and has no fraction")]
            let whole = whole.filter(|known| known.abs() < MOST).map(|known| known as i64);
            whole.map_or(Value::Number(number), Value::from)
        }
        Value::Array(all) => all.into_iter().map(plain).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        other => other,
    }
}

impl Pages {
    /// Answers a request of the monitoring port; of somebody who may see that much.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>, access: &Access) -> Response<Body> {
        // Istio's tools ask for `//debug/...`, and follow where they are sent then.
        let path = request.uri().path();
        let start = path.find(|letter| letter != '/').and_then(|name| name.checked_sub(1));
        let path = start.and_then(|start| path.get(start..)).unwrap_or(path);
        match path {
            "/metrics" => self.metrics(),
            "/version" => text(StatusCode::OK, env!("CARGO_PKG_VERSION")),
            "/ready" => self.ready(),
            "/debug" | "/debug/" => {
                respond(StatusCode::OK, "text/html; charset=utf-8", index::html(self.unready()))
            }
            _ => match path.strip_prefix("/debug/") {
                Some(page) => self.page(page, request.uri().query().unwrap_or_default(), access).response(),
                None => Page::not_found().response(),
            },
        }
    }

    /// The page of that name.
    #[must_use]
    pub fn page(&self, page: &str, query: &str, access: &Access) -> Page {
        let world = self.world.borrow().clone();
        match page {
            "syncz" => Page::Json(syncz::page(&self.table, parameter(query, "namespace"))),
            "config_distribution" => distribution::page(&world, &self.table, query),
            "configz" => Page::Json(objects::configz(&world.store)),
            "sourcez" => Page::Json(self.sourcez(&world)),
            "resourcesz" => Page::Json(objects::kinds()),
            "registryz" => Page::Json(registry::services(&world.snapshot)),
            "endpointz" | "endpointShardz" => Page::Json(registry::endpoints(&world.snapshot)),
            "networkz" => Page::Json(registry::networks(&world.snapshot)),
            "instancesz" => Page::Json(clients::instances(&self.table, &world.snapshot)),
            "connections" => Page::Json(clients::connections(&self.table)),
            "mesh" => Page::Json(serde_json::to_value(&**world.snapshot.mesh).unwrap_or_default()),
            "push_status" => Page::Json(push_status::page(&self.observer.all(), &self.all_problems(&world))),
            "authorizationz" => Page::Json(policies::authorization(&world)),
            "telemetryz" if parameter(query, "proxyID").is_none() => Page::Json(policies::telemetry(&world)),
            "pushcontext" => Page::Json(policies::push_context(&world)),
            "clusterz" => Page::Json(self.clusters(&world)),
            // There is one cluster, and no services that several share.
            "mcsz" => Page::Json(json!([])),
            "cachez" => cachez::page(&world, query),
            "list" => Page::Json(index::names().map(Value::from).collect()),
            "adsz" if parameter(query, "push").is_some() => self.push(),
            "adsz" if parameter(query, "proxyID").is_none() => Page::Json(clients::adsz(&self.table.all())),
            "adsz" | "config_dump" | "edsz" | "ndsz" | "ecdsz" | "force_disconnect" => {
                let Some(id) = parameter(query, "proxyID").filter(|id| !id.is_empty()) else {
                    return Page::no_proxy();
                };
                let found = self.find(id).filter(|(_, row)| access.may_see(&row.proxy.namespace));
                match found {
                    Some((id, row)) => Self::of_proxy(page, query, &world, id, row),
                    None => Page::not_connected(),
                }
            }
            _ => Page::not_found(),
        }
    }

    /// A page about one proxy.
    fn of_proxy(page: &str, query: &str, world: &World, id: String, row: Row) -> Page {
        let types = |types: &[TypeUrl]| Page::Json(dump::of_types(world, &row, types));
        match page {
            "edsz" => types(&[TypeUrl::Endpoint]),
            "ndsz" => types(&[TypeUrl::NameTable]),
            "ecdsz" => types(&[TypeUrl::Extension]),
            "config_dump" => match parameter(query, "types").filter(|types| !types.is_empty()) {
                Some(names) => types(&names.split(',').map(dump::type_of).collect::<Vec<_>>()),
                None => Page::Json(dump::page(world, &row, parameter(query, "include_eds").is_some())),
            },
            "adsz" => Page::Json(clients::adsz(&[(id, row)])),
            _ => {
                row.end.notify_one();
                Page::text(StatusCode::OK, "OK")
            }
        }
    }

    /// The newest connection of a proxy: by `POD.NAMESPACE`, by its id, or by a
    /// part of that.
    fn find(&self, id: &str) -> Option<(String, Row)> {
        let all = self.table.all();
        let newest = |fits: &dyn Fn(&(String, Row)) -> bool| {
            let rows = all.iter().filter(|row| fits(row));
            rows.max_by_key(|(_, row)| row.connected_at).cloned()
        };
        newest(&|(own, row)| own == id || row.name() == id).or_else(|| newest(&|(own, _)| own.contains(id)))
    }

    /// Sends everything to every proxy.
    fn push(&self) -> Page {
        let count = self.table.all().len();
        match self.wish.try_send(Wish::Push) {
            Ok(()) => Page::text(StatusCode::OK, format!("Pushed to {count} servers\n")),
            Err(_) => Page::text(StatusCode::TOO_MANY_REQUESTS, "a push is under way\n"),
        }
    }

    /// Ready once the configuration has been read, and until istiod stops.
    #[must_use]
    pub fn ready(&self) -> Response<Body> {
        match self.unready() {
            None => text(StatusCode::OK, ""),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    }

    /// Why it is not ready, if it is not.
    fn unready(&self) -> Option<&'static str> {
        if self.drain.has_begun() {
            return Some(STOPPING);
        }
        (self.world.borrow().serial == 0)
            .then_some("istiod is starting: the configuration has not been read yet")
    }

    fn metrics(&self) -> Response<Body> {
        match metrics::page(&self.registry) {
            Ok(page) => respond(StatusCode::OK, metrics::MEDIA_TYPE, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// The clusters that are read: no other than its own.
    fn clusters(&self, world: &World) -> Value {
        let status = if world.serial == 0 { "syncing" } else { "synced" };
        json!([{"id": self.cluster, "secretName": "", "syncStatus": status}])
    }

    /// What is wrong with objects, in force or not.
    fn all_problems(&self, world: &World) -> Vec<config::Problem> {
        let unusable = self.problems.borrow().clone();
        unusable.iter().chain(&world.snapshot.problems).cloned().collect()
    }

    /// Where objects were written, what is wrong with them, and what of them is
    /// left out for others.
    fn sourcez(&self, world: &World) -> Value {
        let words = |problems: Vec<config::Problem>| -> Value {
            problems.iter().map(|problem| Value::from(problem.to_string())).collect()
        };
        json!({
            "version": world.version,
            "objects": objects::places(&world.store),
            "problems": words(self.all_problems(world)),
            "conflicts": words(self.observer.problems()),
        })
    }
}

/// The value of a parameter; empty when it has none.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_in_go() {
        let page = json!({"a": [100.0, 0.5, 7, -3.0], "b": {"d": 18_446_744_073_709_551_615_u64}});
        let text = plain(page).to_string();
        let wanted = r#"{"a":[100,0.5,7,-3],"b":{"d":18446744073709551615}}"#;
        assert_eq!(text, wanted);
    }
}
