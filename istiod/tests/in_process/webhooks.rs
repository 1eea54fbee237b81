//! The port of the webhooks: real TLS, questions as the API server asks them,
//! and some that it never would.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use clap::Parser as _;
use istiod::app::{self, Running};
use istiod::config::args::{Cli, Command};
use istiod::config::env;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::soon;

const VALUES: &str = "global: {hub: h, tag: TAG, proxy: {statusPort: 15020}}";
const JSON: &str = "application/json";

/// An istiod with settings of the injector.
async fn start(dir: &Path) -> Running {
    let own = |name: &str| {
        let path = dir.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (objects, state, injector) = (own("objects"), dir.join("state"), own("inject"));
    fs::write(injector.join("config"), "policy: enabled").unwrap();
    fs::write(injector.join("values"), VALUES.replace("TAG", "one")).unwrap();
    let free = "127.0.0.1:0";
    let dirs = ["--configDir", objects.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let ports = ["--secureGRPCAddr", free, "--monitoringAddr", free, "--httpAddr", free, "--httpsAddr", free];
    let cli = Cli::try_parse_from(["istiod", "discovery"].into_iter().chain(dirs).chain(ports)).unwrap();
    let Command::Discovery(args) = cli.command else { panic!() };
    let mut settings = env::resolve(&args, |_| None).unwrap();
    settings.webhooks.dir = injector;
    app::build(settings).await.unwrap()
}

/// Status and body of the answer to a question.
async fn ask(running: &Running, path: &str, content_type: &str, body: &[u8]) -> (u16, String) {
    let config = pki::verify::client_config(&running.roots, None, &[b"http/1.1"]).unwrap();
    let stream = TcpStream::connect(running.webhooks.unwrap()).await.unwrap();
    let name = "istiod.istio-system.svc".try_into().unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // What is too long is answered before it has been sent.
    drop(stream.write_all(body).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
}

fn question(pod: &Value) -> Vec<u8> {
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
        "uid": "u1", "namespace": "shop", "operation": "CREATE", "object": pod}})
    .to_string()
    .into_bytes()
}

fn web() -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "w"}]}})
}

async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The image of the proxy in the patched pod.
async fn image(running: &Running) -> String {
    let (status, body) = ask(running, "/inject/cluster/c1", JSON, &question(&web())).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["response"]["uid"], "u1");
    assert_eq!(answer["response"]["patchType"], "JSONPatch", "{body}");
    let patch = answer["response"]["patch"].as_str().unwrap();
    let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    let mut pod = web();
    inject::patch::apply(&mut pod, &patch).unwrap();
    let proxy = &pod["spec"]["containers"][1];
    assert!(
        proxy["env"].as_array().unwrap().contains(&json!({"name": "ISTIO_META_CLUSTER_ID", "value": "c1"}))
    );
    proxy["image"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_injected_and_changed_settings_followed() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    assert_eq!(image(&running).await, "h/proxyv2:one");
    let values = dir.path().join("inject/values");
    // What cannot be read changes nothing.
    fs::write(&values, "{").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(image(&running).await, "h/proxyv2:one");
    fs::write(&values, VALUES.replace("TAG", "two")).unwrap();
    soon("new settings", async {
        while image(&running).await != "h/proxyv2:two" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let text = metrics(running.monitoring).await;
    assert!(text.contains("sidecar_injection_success_total"), "{text}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_questions_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let open = format!("{{\"kind\":\"AdmissionReview\",\"request\":{{\"object\":{}", "[".repeat(5 << 20));
    let (status, body) = soon("a bomb", ask(&running, "/inject", JSON, open.as_bytes())).await;
    assert_eq!(status, 200);
    assert!(body.contains("recursion limit") && body.contains("\"allowed\":false"), "{body}");
    let many = json!({"spec": {"containers": vec![json!({"name": "a"}); 100_000]}});
    let (_, body) = soon("many containers", ask(&running, "/inject", JSON, &question(&many))).await;
    assert!(body.contains("more than the 1000"), "{body}");
    let (status, _) = soon("a long one", ask(&running, "/inject", JSON, &vec![b' '; 7 << 20])).await;
    // The answer may be lost with the bytes that nobody reads.
    assert!([0, 413].contains(&status), "{status}");
    assert_eq!(ask(&running, "/inject", "text/plain", b"{}").await.0, 415);
    assert_eq!(ask(&running, "/inject", JSON, b"").await.0, 400);
    assert_eq!(ask(&running, "/other", JSON, b"{}").await.0, 404);
    let mut pod = web();
    pod["metadata"]["annotations"] =
        json!({"proxy.istio.io/config": "a: &a [x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b"});
    let (_, body) = soon("a YAML bomb", ask(&running, "/inject", JSON, &question(&pod))).await;
    assert!(body.contains("proxy.istio.io/config") && body.contains("\"allowed\":false"), "{body}");
    running.stop().await;
}
