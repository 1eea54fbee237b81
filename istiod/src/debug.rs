//! Debug and metrics pages.

pub mod clients;
pub mod dump;
pub mod guard;
pub mod registry;
pub mod syncz;

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use names::TypeUrl;
use prometheus_client::registry::Registry;
use runtime::http::{Body, json, respond, text};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::metrics;
use crate::push::status::{Row, Table};
use crate::world::{Problems, Wish, World};

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Connected proxies.
    pub table: Table,
    /// The configuration in force.
    pub world: watch::Receiver<Arc<World>>,
    /// What is wrong with objects that are not in force.
    pub problems: watch::Receiver<Problems>,
    /// Counters.
    pub registry: Arc<Registry>,
    /// Where wishes of pages go.
    pub wish: mpsc::Sender<Wish>,
}

/// The pages, by name.
const PAGES: &[&str] = &[
    "adsz",
    "adsz?push=true",
    "cachez",
    "cachez?clear=true",
    "cachez?sizes=true",
    "config_dump",
    "configz",
    "connections",
    "ecdsz",
    "edsz",
    "endpointShardz",
    "endpointz",
    "force_disconnect",
    "instancesz",
    "mesh",
    "ndsz",
    "push_status",
    "registryz",
    "syncz",
];

impl Pages {
    /// Answers a request of the monitoring port.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        match path {
            "/metrics" => self.metrics(),
            "/version" => text(StatusCode::OK, concat!(env!("CARGO_PKG_VERSION"), "\n")),
            "/ready" => self.ready(),
            "/debug" | "/debug/" => {
                let pages: String = PAGES.iter().map(|page| format!("/debug/{page}\n")).collect();
                text(StatusCode::OK, format!("{pages}/metrics\n/ready\n/version\n"))
            }
            _ => match path.strip_prefix("/debug/") {
                Some(page) => self.debug(page, request.uri().query().unwrap_or_default()),
                None => not_found(path),
            },
        }
    }

    fn debug(&self, page: &str, query: &str) -> Response<Body> {
        let world = self.world.borrow().clone();
        match page {
            "syncz" => json(&syncz::page(&self.table)),
            "configz" => json(&self.configz(&world)),
            "registryz" => json(&registry::services(&world.snapshot)),
            "endpointz" | "endpointShardz" => json(&registry::endpoints(&world.snapshot)),
            "instancesz" => json(&clients::instances(&self.table, &world.snapshot)),
            "connections" => json(&clients::connections(&self.table)),
            "mesh" => json(&serde_json::to_value(&**world.snapshot.mesh).unwrap_or_default()),
            "push_status" => json(&push_status(&world)),
            "cachez" => cachez(&world, query),
            "list" => json(&PAGES.iter().map(|page| Value::from(*page)).collect::<Value>()),
            "adsz" if parameter(query, "push").is_some() => self.push(),
            "adsz" => match parameter(query, "proxyID") {
                None => json(&clients::adsz(&self.table.all())),
                Some(id) => match self.find(id) {
                    Some(row) => json(&clients::adsz(&[row])),
                    None => not_connected(id),
                },
            },
            "config_dump" | "edsz" | "ndsz" | "ecdsz" | "force_disconnect" => {
                let Some(id) = parameter(query, "proxyID") else {
                    let message = format!("name a proxy: /debug/{page}?proxyID=POD.NAMESPACE\n");
                    return text(StatusCode::BAD_REQUEST, message);
                };
                let Some((_, row)) = self.find(id) else { return not_connected(id) };
                match page {
                    "config_dump" => {
                        json(&dump::page(&world, &row, parameter(query, "include_eds").is_some()))
                    }
                    "edsz" => json(&dump::of_type(&world, &row, &TypeUrl::Endpoint)),
                    "ndsz" => json(&dump::of_type(&world, &row, &TypeUrl::NameTable)),
                    "ecdsz" => json(&dump::of_type(&world, &row, &TypeUrl::Extension)),
                    _ => {
                        row.end.notify_one();
                        text(StatusCode::OK, "OK")
                    }
                }
            }
            _ => not_found(&format!("/debug/{page}")),
        }
    }

    /// The newest connection of a proxy, by `POD.NAMESPACE` or by its id.
    fn find(&self, id: &str) -> Option<(String, Row)> {
        let rows = self.table.all().into_iter();
        rows.filter(|(own, row)| own == id || row.name() == id).max_by_key(|(_, row)| row.connected_at)
    }

    /// Sends everything to every proxy.
    fn push(&self) -> Response<Body> {
        let count = self.table.all().len();
        match self.wish.try_send(Wish::Push) {
            Ok(()) => text(StatusCode::OK, format!("Pushed to {count} servers\n")),
            Err(_) => text(StatusCode::TOO_MANY_REQUESTS, "a push is under way\n"),
        }
    }

    /// Ready once the configuration has been read.
    #[must_use]
    pub fn ready(&self) -> Response<Body> {
        if self.world.borrow().serial > 0 {
            text(StatusCode::OK, "")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "the configuration has not been read yet\n")
        }
    }

    fn metrics(&self) -> Response<Body> {
        match metrics::page(&self.registry) {
            Ok(page) => respond(StatusCode::OK, metrics::MEDIA_TYPE, page),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Objects in force and what is wrong with others.
    fn configz(&self, world: &World) -> Value {
        let objects: Vec<Value> = world
            .store
            .objects()
            // Names of Secrets are not for everybody, and this page is.
            .filter(|object| object.key.kind != config::Kind::Secret)
            .map(|object| {
                json!({
                    "kind": object.key.kind.as_str(),
                    "namespace": &*object.key.namespace,
                    "name": &*object.key.name,
                    "position": object.position.to_string(),
                })
            })
            .collect();
        let unusable = self.problems.borrow().clone();
        let problems = unusable.iter().chain(&world.snapshot.problems);
        let problems: Vec<String> = problems.map(ToString::to_string).collect();
        json!({ "version": world.version, "objects": objects, "problems": problems })
    }
}

/// What was found wrong when the configuration was indexed.
fn push_status(world: &World) -> Value {
    let problems = world.snapshot.problems.iter().map(|problem| {
        let object = problem.object.as_ref().map(ToString::to_string).unwrap_or_default();
        (object, json!({ "message": problem.to_string() }))
    });
    let mut page = serde_json::Map::new();
    for (object, message) in problems {
        if let Value::Array(list) = page.entry(object).or_insert_with(|| json!([])) {
            list.push(message);
        }
    }
    json!({ "pilot_config_problems": page, "version": world.version })
}

fn cachez(world: &World, query: &str) -> Response<Body> {
    if parameter(query, "clear").is_some() {
        world.cache.clear();
        return text(StatusCode::OK, "Cache cleared\n");
    }
    let size = world.cache.size();
    json(&json!({
        "classes": size.classes,
        "resources": size.resources,
        "total": format!("{}B", size.bytes),
        "generated": size.generated,
    }))
}

/// The value of a parameter; empty when it has none.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn not_found(path: &str) -> Response<Body> {
    text(StatusCode::NOT_FOUND, format!("no page {path}; /debug names those that there are\n"))
}

fn not_connected(id: &str) -> Response<Body> {
    let message =
        format!("proxy {id:?} is not connected to this istiod; it may be connected to another one\n");
    text(StatusCode::NOT_FOUND, message)
}
