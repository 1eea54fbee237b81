//! Debug and metrics pages.

pub mod syncz;

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use runtime::http::{Body, json, respond, text};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::push::status::Table;
use crate::world::{Problems, World};

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
}

impl Pages {
    /// Answers a request of the monitoring port.
    #[must_use]
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        match request.uri().path() {
            "/metrics" => self.metrics(),
            "/version" => text(StatusCode::OK, concat!(env!("CARGO_PKG_VERSION"), "\n")),
            "/ready" => self.ready(),
            "/debug/syncz" => json(&syncz::page(&self.table)),
            "/debug/configz" => json(&self.configz()),
            "/debug/list" | "/debug" | "/debug/" => {
                text(StatusCode::OK, "/debug/configz\n/debug/syncz\n/metrics\n/ready\n/version\n")
            }
            path => text(
                StatusCode::NOT_FOUND,
                format!("no page {path}; /debug/list names those that there are\n"),
            ),
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
        let mut page = String::new();
        match encode(&mut page, &self.registry) {
            Ok(()) => {
                respond(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page)
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// Objects in force and what is wrong with others.
    fn configz(&self) -> Value {
        let world = self.world.borrow().clone();
        let objects: Vec<Value> = world
            .store
            .objects()
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
