//! What istiod logs, asked for and changed while it runs: the page `/scopej` of
//! Istio's ControlZ, on an address of this machine only. Other pages of ControlZ
//! are not there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use runtime::http::{Body, json, text};
use runtime::log::{Handle, Level};
use runtime::tasks::Tasks;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::warn;

/// Scopes and what they tell.
pub const SCOPES: [(&str, &str); 14] = [
    ("ads", "connections of proxies and what is pushed to them"),
    ("auth", "who calls, and why somebody is not believed"),
    ("ca", "certificate authority: roots, signing, rotation"),
    ("config", "objects and the mesh configuration: where they come from and what is wrong with them"),
    ("default", "unscoped lines"),
    ("grpc", "libraries that speak HTTP/2 and gRPC"),
    ("inject", "the injecting webhook"),
    ("jwks", "keys of token issuers"),
    ("kube", "what has to do with the API server"),
    ("networks", "names of gateways of other networks"),
    ("sds", "certificates of gateways"),
    ("validate", "the validating webhook"),
    ("webhook", "configurations of the webhooks"),
    ("wle", "workloads that register themselves"),
];
/// The page, and what is below it: scopes.
const PAGE: &str = "/scopej";
/// Longest body of a request, in bytes.
const LIMIT: usize = 64 << 10;
/// What of stack traces is in force.
const NO_TRACES: &str = "none";

/// The address of the page; none for the port 0.
///
/// # Errors
/// When it is one that other machines could reach.
pub fn address(host: &str, port: u16) -> Result<Option<SocketAddr>, String> {
    let ip = match host {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse(),
    };
    match ip {
        Ok(ip) if ip.is_loopback() => Ok((port != 0).then(|| SocketAddr::new(ip, port))),
        _ => Err(format!(
            "whoever reaches it changes the log: expected localhost, {} or {}",
            Ipv4Addr::LOCALHOST,
            Ipv6Addr::LOCALHOST
        )),
    }
}

/// Serves the page. A port that is taken, by another istiod of this machine, is
/// no reason not to start.
pub async fn serve(tasks: &Tasks, address: SocketAddr) {
    match TcpListener::bind(address).await {
        Ok(listener) => {
            runtime::http::serve(tasks, "controlz", listener, |request, _| answer(request));
        }
        Err(error) => {
            warn!(%address, %error, "levels of the log cannot be changed while running (--ctrlz_port)");
        }
    }
}

async fn answer(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Some(log) = runtime::log::handle() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "nothing is logged\n");
    };
    match Limited::new(body, LIMIT).collect().await {
        Ok(body) => page(log, &head.method, head.uri.path(), &body.to_bytes()),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("unable to decode request: {error}\n")),
    }
}

/// What changes; what is not named stays.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    output_level: String,
    stack_trace_level: String,
    log_callers: Option<bool>,
}

fn page(log: &Handle, method: &Method, path: &str, body: &[u8]) -> Response<Body> {
    let below = path.strip_prefix(PAGE).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let Some(scope) = below else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let name = scope.trim_matches('/');
    if name.is_empty() && method == Method::GET {
        return json(&SCOPES.iter().map(|(name, _)| of(log, name)).collect::<Value>());
    }
    if !SCOPES.iter().any(|(known, _)| *known == name) {
        let known: Vec<&str> = SCOPES.iter().map(|(name, _)| *name).collect();
        let words = format!("unknown scope name: {name}; there are {}\n", known.join(", "));
        return text(StatusCode::BAD_REQUEST, words);
    }
    match *method {
        Method::GET => json(&of(log, name)),
        Method::PUT => match change(log, name, body) {
            Ok(()) => text(StatusCode::ACCEPTED, ""),
            Err(why) => text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        },
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed: there are GET and PUT\n"),
    }
}

fn of(log: &Handle, name: &str) -> Value {
    let about = SCOPES.iter().find(|(known, _)| *known == name).map_or("", |(_, about)| about);
    json!({
        "name": name,
        "description": about,
        "output_level": log.level(name).name(),
        "stack_trace_level": NO_TRACES,
        "log_callers": log.has_callers(name),
    })
}

/// Changes a scope, or says what is wrong and changes nothing.
fn change(log: &Handle, name: &str, body: &[u8]) -> Result<(), String> {
    let change: Change =
        serde_json::from_slice(body).map_err(|error| format!("unable to decode request: {error}"))?;
    if !["", NO_TRACES].contains(&change.stack_trace_level.as_str()) {
        return Err(format!(
            "stack_trace_level {:?}: istiod logs no stack traces; log_callers says which line of the source a line comes from",
            change.stack_trace_level
        ));
    }
    let level: Option<Level> = match change.output_level.as_str() {
        "" => None,
        level => Some(level.parse().map_err(|_| {
            format!("output_level {level:?}: expected none, fatal, error, warn, info or debug")
        })?),
    };
    if let Some(level) = level {
        log.set(name, level);
    }
    if let Some(named) = change.log_callers {
        log.set_callers(name, named);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The log of this test program.
    fn log() -> Handle {
        runtime::log::init(runtime::log::Options::default())
    }

    async fn ask(log: &Handle, method: Method, path: &str, body: &str) -> (StatusCode, String) {
        let response = page(log, &method, path, body.as_bytes());
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn levels_are_asked_for_and_changed() {
        let log = log();
        let (status, all) = ask(&log, Method::GET, "/scopej", "").await;
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        assert_eq!((status, all.len()), (StatusCode::OK, SCOPES.len()));
        assert_eq!(all[0]["name"], "ads");
        let body = r#"{"name":"jwks","output_level":"debug","log_callers":true}"#;
        assert_eq!(ask(&log, Method::PUT, "/scopej/jwks", body).await.0, StatusCode::ACCEPTED);
        let (_, one) = ask(&log, Method::GET, "/scopej/jwks", "").await;
        let one: Value = serde_json::from_str(&one).unwrap();
        assert_eq!((&one["output_level"], &one["log_callers"]), (&json!("debug"), &json!(true)));
        // What is not named stays.
        let body = r#"{"name":"jwks","stack_trace_level":"none"}"#;
        assert_eq!(ask(&log, Method::PUT, "/scopej/jwks", body).await.0, StatusCode::ACCEPTED);
        assert_eq!(log.level("jwks"), Level::Debug);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_and_changes_nothing() {
        let log = log();
        for (path, body, wanted) in [
            ("/scopej/nosuch", r#"{"output_level":"debug"}"#, "unknown scope name: nosuch"),
            ("/scopej/sds", r#"{"output_level":"loud"}"#, "output_level \"loud\""),
            ("/scopej/sds", r#"{"output_level":"none","stack_trace_level":"error"}"#, "no stack traces"),
            ("/scopej/sds", "{", "unable to decode"),
        ] {
            let (status, words) = ask(&log, Method::PUT, path, body).await;
            assert!(status == StatusCode::BAD_REQUEST && words.contains(wanted), "{path} {body}: {words}");
        }
        assert_eq!(log.level("sds"), Level::Info);
        assert_eq!(ask(&log, Method::POST, "/scopej/sds", "{}").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(&log, Method::GET, "/scopejx", "").await.0, StatusCode::NOT_FOUND);
        assert_eq!(ask(&log, Method::GET, "/", "").await.0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn nobody_else_reaches_it() {
        assert_eq!(address("localhost", 9876).unwrap().unwrap().to_string(), "127.0.0.1:9876");
        assert_eq!(address("::1", 1).unwrap().unwrap().to_string(), "[::1]:1");
        assert_eq!(address("127.0.0.1", 0).unwrap(), None);
        for wrong in ["*", "0.0.0.0", "10.0.0.1", ""] {
            assert!(address(wrong, 9876).unwrap_err().contains("localhost"), "{wrong}");
        }
    }

    #[test]
    fn every_scope_of_the_source_is_named() {
        fn visit(dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    visit(&path, found);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap_or_default();
                // Built so that this line does not count.
                let mark = ["target", ": \""].concat();
                found.extend(
                    text.split(&mark).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())),
                );
            }
        }
        let mut found = Vec::new();
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for name in found {
            assert!(SCOPES.iter().any(|(known, _)| *known == name), "{name} is not in the table");
        }
    }
}
