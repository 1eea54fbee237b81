//! What is shown to who looks into the agent, on this machine only.

use http::{Method, Response, StatusCode};
use runtime::http::{Body, json, respond, text};
use runtime::log::{Handle, Level};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::{Config, Endpoint, HIDDEN, ISTIO_VERSION, Security};

/// Scopes of the log, as Istio names them.
const SCOPES: [&str; 20] = [
    "ads",
    "all",
    "ca",
    "cache",
    "citadelclient",
    "default",
    "dns",
    "gcecred",
    "grpc",
    "healthcheck",
    "klog",
    "mockcred",
    "monitoring",
    "probes",
    "sds",
    "security",
    "spiffe",
    "validation",
    "wasm",
    "xdsproxy",
];
/// Parts of names whose values nobody gets to see.
const SECRET: [&str; 12] = [
    "secret",
    "token",
    "password",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
    // Headers for CA and istiod.
    "caheader",
    "xdsheader",
    // Texts that hold all of that once more.
    "proxy.istio.io/config",
    "lastappliedconfiguration",
];

/// The settings in force as JSON, without what is secret.
#[must_use]
pub fn config(config: &Config) -> String {
    let Config { paths, proxy, identity, certificates, xds, node, envoy, drain, status, .. } = config;
    let mut all = json!({
        "version": {"agent": env!("CARGO_PKG_VERSION"), "istio": ISTIO_VERSION},
        "identity": identity.to_string(),
        "node": {"id": node.id.to_string(), "cluster": node.cluster, "metadata": node.metadata},
        "proxyConfig": proxy,
        "paths": {
            "sds": paths.sds_socket, "xds": paths.ads_socket, "bootstrap": paths.bootstrap, "istioToken": paths.token,
        },
        "xds": endpoint(xds),
        "ca": endpoint(&certificates.ca),
        "certificates": {
            "source": format!("{:?}", certificates.source),
            "ttl": format!("{:?}", certificates.ttl),
            "graceRatio": certificates.grace_ratio,
            "algorithm": format!("{:?}", certificates.algorithm),
        },
        "envoy": envoy.as_ref().map(|envoy| json!({"binary": envoy.binary, "args": envoy.shown_args()})),
        "drain": format!("{drain:?}"),
        "status": format!("{status:?}"),
    });
    // A path is no secret.
    let token = all["paths"]["istioToken"].take();
    hide(&mut all);
    all["paths"]["istioToken"] = token;
    all.to_string()
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let security = match &endpoint.security {
        Security::Plaintext => json!("plaintext"),
        Security::Tls { roots, .. } => json!({"roots": roots}),
    };
    json!({
        "address": endpoint.address,
        "serverName": endpoint.server_name,
        "security": security,
        "headers": endpoint.headers.keys().collect::<Vec<_>>(),
    })
}

/// A setting as JSON, without what is secret.
#[must_use]
pub fn without_secrets(setting: &impl Serialize) -> String {
    let mut value = serde_json::to_value(setting).unwrap_or_default();
    hide(&mut value);
    value.to_string()
}

/// Replaces texts whose name says that they are secret.
fn hide(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // Headers are pairs of a name and a value.
            let is_pair = object.get("name").and_then(Value::as_str).is_some_and(is_secret);
            for (name, value) in object {
                match value {
                    Value::String(text) if is_secret(name) || is_pair && name == "value" => {
                        HIDDEN.clone_into(text);
                    }
                    _ => hide(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        _ => {}
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    SECRET.iter().any(|part| name.contains(part))
}

/// The settings, indented.
#[must_use]
pub fn show_config(compact: &str) -> Response<Body> {
    match serde_json::from_str(compact) {
        Ok(value) => json(&value),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The table of the DNS proxy, JSON; 404 when there is none.
#[must_use]
pub fn names(table: Option<String>) -> Response<Body> {
    match table {
        Some(table) => respond(StatusCode::OK, "application/json", table),
        None => respond(StatusCode::NOT_FOUND, "application/json", "{}"),
    }
}

/// Shows the levels of the log; POST or PUT with `SCOPE=LEVEL&...` sets some first.
#[must_use]
pub fn log(method: &Method, query: Option<&str>, handle: Option<&Handle>) -> Response<Body> {
    let Some(handle) = handle else { return text(StatusCode::NOT_FOUND, "no log was started\n") };
    if matches!(*method, Method::POST | Method::PUT) {
        match changes(query.unwrap_or_default()) {
            Ok(changes) => {
                for (scope, level) in changes {
                    handle.set(scope, level);
                    tracing::info!(scope, level = level.name(), "log level changed");
                }
            }
            Err(reason) => return text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        }
    }
    let levels = SCOPES.iter().filter(|scope| **scope != "all");
    let levels = levels.map(|scope| ((*scope).to_owned(), handle.level(scope).name().into()));
    json(&Value::Object(levels.collect::<Map<_, _>>()))
}

/// All of the changes, or what is wrong with one.
fn changes(query: &str) -> Result<Vec<(&str, Level)>, String> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let changes: Vec<_> = parts
        .map(|part| {
            let (scope, level) = part.split_once('=').unwrap_or((part, ""));
            if !SCOPES.contains(&scope) {
                return Err(format!("scope {scope:?}: expected one of {}", SCOPES.join(", ")));
            }
            let level = level.parse();
            let level = level.map_err(|_| {
                format!("{part:?}: expected a level of debug, info, warn, error, fatal, none")
            })?;
            Ok((scope, level))
        })
        .collect::<Result<_, _>>()?;
    if changes.is_empty() { Err("expected ?SCOPE=LEVEL, such as ?ads=debug".into()) } else { Ok(changes) }
}

/// What there is instead of Go's profiles.
#[must_use]
pub fn no_profiles() -> Response<Body> {
    let hint = "there are no Go profiles of this program: use perf(1) or eBPF from the node, \
                /stats/prometheus for its memory and CPU, and /debug/log to log more\n";
    text(StatusCode::NOT_FOUND, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_at_any_depth() {
        let mut value = json!({
            "tracing": {"lightstep": {"accessToken": "x", "address": "a"}},
            "list": [{"PULL_SECRET": "x"}, "plain"],
            "Api-Key": "x", "privateKeyProvider": {"qat": {}}, "tokens": 3,
            "proxyMetadata": {"CA_HEADER_X": "x", "XDS_HEADER_X": "x", "OTHER": "y"},
            "httpHeaders": [{"name": "Authorization", "value": "x"}, {"name": "Accept", "value": "y"}],
            "ANNOTATIONS": {"proxy.istio.io/config": "{tracing: {lightstep: {accessToken: x}}}"},
        });
        hide(&mut value);
        let expected = json!({
            "tracing": {"lightstep": {"accessToken": HIDDEN, "address": "a"}},
            "list": [{"PULL_SECRET": HIDDEN}, "plain"],
            "Api-Key": HIDDEN, "privateKeyProvider": {"qat": {}}, "tokens": 3,
            "proxyMetadata": {"CA_HEADER_X": HIDDEN, "XDS_HEADER_X": HIDDEN, "OTHER": "y"},
            "httpHeaders": [{"name": "Authorization", "value": HIDDEN}, {"name": "Accept", "value": "y"}],
            "ANNOTATIONS": {"proxy.istio.io/config": HIDDEN},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn levels_are_changed_all_or_none() {
        assert_eq!(changes("ads=debug&all=warn").unwrap(), [("ads", Level::Debug), ("all", Level::Warn)]);
        assert!(changes("").unwrap_err().starts_with("expected ?SCOPE=LEVEL"));
        assert!(
            changes("ads=debug&x=warn").unwrap_err().starts_with("scope \"x\": expected one of ads, all, ca")
        );
        assert!(changes("ads=loud").unwrap_err().starts_with("\"ads=loud\": expected a level"));
        assert!(changes("ads").unwrap_err().starts_with("\"ads\": expected a level"));
    }
}
