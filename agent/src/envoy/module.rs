//! Our module inside Envoy, which counts Istio's metrics: where it is, whether this
//! Envoy takes it, and what Envoy is told of it.
//!
//! An Envoy that cannot load it would refuse every listener that names it, so the one
//! that will be run is asked first.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::bootstrap::late;
use super::process::die_with_parent;
use crate::config;

/// Name of the module; Envoy looks for [`FILE`].
const NAME: &str = "istio_telemetry";
/// Name of its file.
pub const FILE: &str = "libistio_telemetry.so";
/// Metadata that tells istiod of it.
pub const METADATA: &str = "TELEMETRY_MODULE";
/// What istiod is told: which settings the module understands.
pub const VERSION: &str = "1";
/// Directories in which Envoy looks for modules.
const SEARCH_PATH: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";
/// Tells the module who the workload is.
const NODE: &str = "ISTIO_TELEMETRY_NODE";
/// Tells it limits of buckets.
const BUCKETS: &str = "ISTIO_TELEMETRY_BUCKETS";
/// Filter that counts.
const STATS_FILTER: &str = "istio.stats";
/// Filter that adds what was counted to Envoy's own metrics.
const SCRAPE_FILTER: &str = "istio.scrape";
/// First part of the names that its statistics have inside Envoy, as those of Istio's
/// own proxies: settings for buckets and filters of statistics name it.
const NAMESPACE: &str = "istiocustom";
/// Switch of Envoy that leaves that part out of what Prometheus gets.
const STRIP_PREFIX: &str = "envoy.reloadable_features.dynamic_modules_strip_custom_stat_prefix";
/// Longest time that Envoy may take to say whether it takes the module.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Why Envoy does not get the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Envoy cannot be asked.
    #[error("ask {}: {source}", envoy.display())]
    Start {
        /// Its program.
        envoy: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It does not answer.
    #[error("{} does not say in {TIMEOUT:?} whether it takes it", envoy.display())]
    Timeout {
        /// Its program.
        envoy: PathBuf,
    },
    /// It does not take the module.
    #[error("{} does not take it: {why}", envoy.display())]
    Refused {
        /// Its program.
        envoy: PathBuf,
        /// What it says.
        why: String,
    },
}

/// A module that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The directory of its file.
    pub dir: PathBuf,
    /// Who the workload is, as JSON.
    pub node: String,
    /// Limits of buckets by the beginning of names, as JSON, where the user sets any.
    pub buckets: Option<String>,
    /// Envoy's port for metrics, which has those of the module, too.
    pub port: u16,
}

impl Module {
    /// Its file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Environment of an Envoy with it.
    fn env(&self) -> Vec<(String, String)> {
        let dir = self.dir.to_string_lossy().into_owned();
        let mut env = vec![(SEARCH_PATH.into(), dir), (NODE.into(), self.node.clone())];
        env.extend(self.buckets.clone().map(|buckets| (BUCKETS.into(), buckets)));
        env
    }

    /// Asks Envoy whether it takes the module, as filter of requests and of connections.
    ///
    /// # Errors
    /// When it does not, or cannot be asked.
    pub async fn check(&self, envoy: &Path) -> Result<(), Error> {
        let mut command = Command::new(envoy);
        command.args(["--mode", "validate", "-l", "error", "--disable-hot-restart", "--concurrency", "1"]);
        command.args(["--config-yaml", &trial().to_string()]);
        command.envs(self.env()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        let output = match tokio::time::timeout(TIMEOUT, command.output()).await {
            Err(_) => return Err(Error::Timeout { envoy: envoy.into() }),
            Ok(output) => output.map_err(|source| Error::Start { envoy: envoy.into(), source })?,
        };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let said = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        let why = said.map_or_else(|| output.status.to_string(), str::to_owned);
        Err(Error::Refused { envoy: envoy.into(), why })
    }

    /// Tells Envoy and, by its node, istiod. Nothing is told where the user brings the
    /// whole bootstrap.
    pub fn apply(&self, envoy: &mut config::Envoy) {
        let Some(bootstrap) = &mut envoy.bootstrap else { return };
        bootstrap["node"]["metadata"][METADATA] = json!(VERSION);
        let layers = bootstrap["layered_runtime"]["layers"].as_array_mut();
        let fixed = layers.and_then(|layers| layers.first_mut()?.get_mut("static_layer")?.as_object_mut());
        if let Some(switches) = fixed {
            switches.insert(STRIP_PREFIX.into(), json!(true));
        }
        late::add_metrics_filter(bootstrap, &http_filter(SCRAPE_FILTER));
        envoy.env.extend(self.env());
    }
}

fn http_filter(name: &str) -> Value {
    filter(name, "http", "DynamicModuleFilter")
}

fn filter(name: &str, kind: &str, message: &str) -> Value {
    json!({
        "name": name,
        "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.{kind}.dynamic_modules.v3.{message}"),
            "dynamic_module_config": {"name": NAME, "do_not_close": true, "metrics_namespace": NAMESPACE},
            "filter_name": name,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.Struct",
                "value": {"direction": "outbound", "metadata_exchange": true},
            },
        },
    })
}

/// A bootstrap that has the module's filters and nothing else.
fn trial() -> Value {
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "trial",
            "route_config": {},
            "http_filters": [
                http_filter(STATS_FILTER),
                http_filter(SCRAPE_FILTER),
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                },
            ],
        },
    });
    json!({"static_resources": {"listeners": [{
        "name": "trial",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [filter(STATS_FILTER, "network", "DynamicModuleNetworkFilter"), manager]}],
    }]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(dir: &Path) -> Module {
        Module { dir: dir.into(), node: r#"{"NAME":"a"}"#.into(), buckets: None, port: 15090 }
    }

    fn script(dir: &Path, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;

        let path = dir.join("envoy");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn envoy_is_asked_with_the_environment_that_it_will_have() {
        let dir = tempfile::tempdir().unwrap();
        let asked = format!(
            "[ \"$ENVOY_DYNAMIC_MODULES_SEARCH_PATH\" = '{}' ] && [ \"$ISTIO_TELEMETRY_NODE\" = '{{\"NAME\":\"a\"}}' ] && case \"$*\" in *'--mode validate'*{NAME}*) exit 0;; esac; exit 3",
            dir.path().display()
        );
        module(dir.path()).check(&script(dir.path(), &asked)).await.unwrap();
    }

    #[tokio::test]
    async fn an_envoy_that_does_not_take_it_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let envoy = script(dir.path(), "echo first >&2; echo 'no symbol x' >&2; echo >&2; exit 1");
        let error = module(dir.path()).check(&envoy).await.unwrap_err().to_string();
        assert!(error.ends_with("does not take it: no symbol x"), "{error}");
        let error = module(dir.path()).check(Path::new("/nowhere/envoy")).await.unwrap_err().to_string();
        assert!(error.starts_with("ask /nowhere/envoy: "), "{error}");
    }

    fn listener(cluster: &str) -> Value {
        json!({"filter_chains": [{"filters": [{"typed_config": {
            "http_filters": [{"name": "compressor"}, {"name": "router"}],
            "route_config": {"virtual_hosts": [{"routes": [{"route": {"cluster": cluster}}]}]},
        }}]}]})
    }

    #[test]
    fn envoy_and_istiod_are_told() {
        let mut envoy = config::Envoy {
            binary: PathBuf::new(),
            args: Vec::new(),
            env: Vec::new(),
            bootstrap: Some(json!({
                "node": {"metadata": {"NAME": "a"}},
                "layered_runtime": {"layers": [{"static_layer": {"x": 1}}, {"admin_layer": {}}]},
                "static_resources": {"listeners": [listener("prometheus_stats"), listener("agent")]},
            })),
        };
        let buckets = Some(r#"{"istiocustom":[1]}"#.to_owned());
        Module { buckets, ..module(Path::new("/m")) }.apply(&mut envoy);
        let bootstrap = envoy.bootstrap.unwrap();
        assert_eq!(bootstrap["node"]["metadata"], json!({"NAME": "a", "TELEMETRY_MODULE": "1"}));
        let switches = &bootstrap["layered_runtime"]["layers"][0]["static_layer"];
        assert_eq!(*switches, json!({"x": 1, STRIP_PREFIX: true}));
        let filters = |listener: usize| -> Vec<&str> {
            let listener = &bootstrap["static_resources"]["listeners"][listener];
            let filters = &listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
            filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect()
        };
        assert_eq!(filters(0), ["compressor", "istio.scrape", "router"]);
        assert_eq!(filters(1), ["compressor", "router"]);
        assert_eq!(
            envoy.env,
            [
                ("ENVOY_DYNAMIC_MODULES_SEARCH_PATH".into(), "/m".into()),
                ("ISTIO_TELEMETRY_NODE".into(), r#"{"NAME":"a"}"#.into()),
                ("ISTIO_TELEMETRY_BUCKETS".into(), r#"{"istiocustom":[1]}"#.into()),
            ]
        );
    }
}
