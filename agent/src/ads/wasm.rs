//! Wasm filters whose code is elsewhere: it is fetched, and Envoy gets a file.
//!
//! Envoy fetches code over plain HTTP from its own clusters only; modules are
//! in registries and behind HTTPS. A resource whose code cannot be had becomes
//! a filter that lets everything or nothing pass, as the resource wishes, so
//! that a missing module never holds up other configuration.
//!
//! Nothing is opened, started or read before the first such resource comes.

mod cache;
mod guard;
mod http;
mod oci;
mod plugin;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtime::tasks::Tasks;
use tokio::time::Instant;
use tracing::{debug, error};

use crate::metrics::Metrics;
use crate::metrics::wasm::Converted;
use cache::Cache;
use plugin::Plugin;
pub use runtime::address::Network;

/// How modules are fetched and kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether resources are looked at at all
    /// (`ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION`).
    pub enabled: bool,
    /// Directory of the modules; Envoy reads them there.
    pub dir: PathBuf,
    /// `HOST[:PORT]` of servers whose certificates are not verified and that
    /// may speak plain HTTP; `*` for all.
    pub insecure: Vec<String>,
    /// A module that was not asked for in that time is removed.
    pub expiry: Duration,
    /// How often such modules are looked for.
    pub purge_interval: Duration,
    /// Time of one HTTP request, its body included.
    pub request_timeout: Duration,
    /// Tries of a request, the first included.
    pub attempts: u32,
    /// Largest download, packed and unpacked, in bytes.
    pub max_bytes: u64,
    /// Networks that nothing is fetched from, besides those that are never
    /// right.
    pub blocked: Vec<Network>,
    /// File with the roots that servers are verified by (`SSL_CERT_FILE`);
    /// those of the system when `None`.
    pub roots: Option<PathBuf>,
    /// Files with credentials of registries for resources that bring none; the
    /// first that there is counts.
    pub docker_configs: Vec<PathBuf>,
}

/// A resource of the extension config type.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Its name as far as it is known; for messages only.
    pub name: String,
    /// An encoded `envoy.config.core.v3.TypedExtensionConfig`: the value of
    /// the resource's `Any`.
    pub config: Bytes,
}

/// A resource cannot be understood; istiod is to be told so.
#[derive(Debug, thiserror::Error)]
#[error("extension config {name:?}: {reason}")]
pub struct Error {
    /// The resource.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Turns remote code of Wasm filters into local files. Clones share the cache.
#[derive(Clone, Debug)]
pub struct Fetcher {
    enabled: bool,
    metrics: Arc<Metrics>,
    cache: Arc<Cache>,
}

impl Fetcher {
    /// A fetcher that has done nothing yet. Downloads run in `tasks`.
    #[must_use]
    pub fn new(settings: Settings, tasks: Tasks, metrics: Arc<Metrics>) -> Self {
        let enabled = settings.enabled;
        Self { enabled, metrics: metrics.clone(), cache: Arc::new(Cache::new(settings, tasks, metrics)) }
    }

    /// Whether resources are looked at; when not, they are passed as they are.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The resource to pass on in place of `resource`: the same bytes when it
    /// asks for no remote code.
    ///
    /// It may take as long as the resource allows its download to take. The
    /// download goes on when the caller gives up.
    ///
    /// # Errors
    /// When the resource cannot be read. A module that cannot be had is no error.
    pub async fn convert(&self, resource: Conversion) -> Result<Bytes, Error> {
        if !self.enabled {
            return Ok(resource.config);
        }
        let start = Instant::now();
        let (result, answer) = self.convert_one(resource).await;
        self.metrics.wasm.converted(result, Instant::now() - start);
        answer
    }

    async fn convert_one(&self, resource: Conversion) -> (Converted, Result<Bytes, Error>) {
        let plugin = match Plugin::read(&resource.config) {
            Ok(Some(plugin)) => plugin,
            Ok(None) => {
                debug!(target: "wasm", name = resource.name, "no remote Wasm code: passed as it is");
                return (Converted::no_remote_load, Ok(resource.config));
            }
            Err(reason) => {
                let error = Error { name: resource.name, reason };
                error!(target: "wasm", %error, "refused");
                return (Converted::unmarshal_failure, Err(error));
            }
        };
        let wish = match plugin.wish() {
            Ok(wish) => wish,
            Err(failure) => {
                let result = failure.result();
                return (result, Ok(replaced(plugin, &failure)));
            }
        };
        match self.cache.get(wish).await {
            Ok(file) => (Converted::success, Ok(plugin.with_file(&file))),
            Err(failure) => (Converted::fetch_failure, Ok(replaced(plugin, &failure))),
        }
    }
}

fn replaced(plugin: Plugin, failure: &dyn std::fmt::Display) -> Bytes {
    let instead = if plugin.fails_open() { "everything passes" } else { "nothing passes" };
    error!(target: "wasm", name = plugin.name(), error = %failure, instead, "no Wasm module");
    plugin.without_code()
}

#[cfg(test)]
mod tests;
