//! How the agent shows itself and how it ends.

use std::time::{Duration, Instant};

use runtime::tasks::Tasks;
use tokio::net::TcpListener;

use crate::istiod::Istiod;
use crate::pod::Pod;
use crate::{soon, until};

/// An Envoy that does nothing until it is ended.
const IDLE: &str = "exec sleep 1000";

#[tokio::test]
async fn the_status_port_answers() {
    let istiod = Istiod::start().await;
    let mut pod = Pod::prepare(&istiod, &[]);
    pod.set_envoy(IDLE);
    let pod = pod.run().await;
    let (code, reason) = pod.get("/healthz/ready").await;
    assert_eq!(code, 503);
    assert!(reason.starts_with("Envoy does not answer: connect to port 1: "), "{reason}");
    assert_eq!(pod.get("/quitquitquit").await, (405, "Method Not Allowed\n".into()));
    assert_eq!(pod.get("/nowhere").await.0, 404);
    let unknown = "app prober config does not exists for /app-health/web/livez";
    assert_eq!(pod.get("/app-health/web/livez").await, (400, unknown.into()));
    until("a certificate", || pod.identity().is_some()).await;
    assert_eq!(pod.get("/metrics").await.0, 200, "Envoy does not answer, but the agent does");
    let metrics = pod.get("/stats/prometheus").await.1;
    assert!(metrics.contains("istio_agent_scrape_failures_total{type=\"envoy\"} 1"), "{metrics}");
    assert!(metrics.contains("istio_agent_cert_expiry_seconds{resource_name=\"default\"} 8"), "{metrics}");
    assert!(metrics.contains("\nistio_agent_process_resident_memory_bytes "), "{metrics}");
    let (code, body) = pod.post("/quitquitquit").await;
    assert_eq!((code, body.as_str()), (200, "OK"));
    assert_eq!(soon("the end", pod.ended()).await, 0);
}

#[tokio::test]
async fn without_envoy_the_agent_alone_is_ready() {
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    assert_eq!(pod.get("/healthz/ready").await, (200, String::new()));
    pod.stop().await;
}

#[tokio::test]
async fn what_is_inside_is_shown_without_secrets() {
    let istiod = Istiod::start().await;
    let env = [("XDS_HEADER_AUTHORIZATION", "Bearer hush"), ("ISTIO_META_API_KEY", "hush")];
    let pod = Pod::start(&istiod, &env).await;
    let (code, config) = pod.get("/debug/config").await;
    assert_eq!(code, 200);
    assert!(config.contains("\"serverName\"") && config.contains("\"authorization\""), "{config}");
    assert!(!config.contains("hush"), "{config}");
    assert_eq!(pod.get("/debug/ndsz").await, (404, "{}".into()));
    let (code, text) = pod.get("/debug/pprof/heap").await;
    assert!(code == 404 && text.contains("no Go profiles"), "{code} {text}");
    assert_eq!(pod.get("/debug/nothing").await.0, 404);
    pod.stop().await;
}

#[tokio::test]
async fn probes_of_the_application_are_passed_on() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime::http::serve(&tasks, "app", listener, move |request, peer| async move {
        assert_eq!(peer.ip().to_string(), "127.0.0.6");
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/slow" => std::future::pending().await,
            path => runtime::http::text(http::StatusCode::ACCEPTED, format!("{path} of {host}")),
        }
    });
    let probers = serde_json::json!({
        "/app-health/web/livez": {"httpGet": {"path": "/hi", "port": port}, "timeoutSeconds": 60},
        "/app-health/web/startupz": {"httpGet": {"path": "/slow", "port": port}, "timeoutSeconds": 1},
        "/app-health/web/readyz": {"tcpSocket": {"port": port}, "timeoutSeconds": 60},
        "/app-lifecycle/web/prestopz": {"tcpSocket": {"port": 1}},
        "/app-health/grpc/livez": {"grpc": {"port": port}, "timeoutSeconds": 60},
    });
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("ISTIO_KUBE_APP_PROBERS", &probers.to_string())]).await;
    // The client names no port, and what it names stays.
    assert_eq!(pod.get("/app-health/web/livez").await, (202, "/hi of localhost".into()));
    assert_eq!(pod.get("/app-health/web/readyz").await, (200, String::new()));
    for path in ["/app-health/web/startupz", "/app-lifecycle/web/prestopz", "/app-health/grpc/livez"] {
        assert_eq!(pod.get(path).await, (500, String::new()), "{path}");
    }
    assert_eq!(pod.get("/app-health/web/livez/x").await.0, 400);
    pod.stop().await;
}

#[tokio::test]
async fn the_applications_metrics_are_merged() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime::http::serve(&tasks, "app", listener, |_, _| async {
        runtime::http::text(http::StatusCode::OK, "# TYPE app gauge\napp 1")
    });
    let annotations = format!("{{\"scrape\":\"true\",\"port\":\"{port}\",\"path\":\"/m\"}}");
    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[("ISTIO_PROMETHEUS_ANNOTATIONS", &annotations)]).await;
    let (code, metrics) = pod.get("/stats/prometheus").await;
    assert!(code == 200 && metrics.ends_with("\n# TYPE app gauge\napp 1\n"), "{metrics}");
    assert!(metrics.contains("\nistio_agent_scrapes_total 1\n"), "{metrics}");
    pod.stop().await;
}

/// An agent whose drain lasts longer than any test, with that script as Envoy.
async fn draining(istiod: &Istiod, script: &str) -> Pod {
    let env = [("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "24h")];
    let mut pod = Pod::prepare(istiod, &env);
    pod.set_envoy(script);
    let pod = pod.run().await;
    pod.signal().await;
    pod
}

#[tokio::test]
async fn a_drain_can_be_cut_short_also_after_another_request_to_drain() {
    let istiod = Istiod::start().await;
    let pod = draining(&istiod, IDLE).await;
    for path in ["/drain", "/drain", "/quitquitquit"] {
        assert_eq!(pod.post(path).await.0, 200);
    }
    assert_eq!(soon("the end", pod.ended()).await, 0);
}

#[tokio::test]
async fn a_second_signal_cuts_a_drain_short() {
    let istiod = Istiod::start().await;
    let pod = draining(&istiod, IDLE).await;
    soon("the end", pod.stop()).await;
}

#[tokio::test]
async fn an_envoy_that_does_not_answer_does_not_prolong_the_drain() {
    let istiod = Istiod::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut pod = Pod::prepare(&istiod, &[]);
    pod.set_envoy(IDLE);
    pod.set_drain(silent.local_addr().unwrap().port(), Duration::from_millis(50));
    let pod = pod.run().await;
    let start = Instant::now();
    pod.stop().await;
    // Longer than the agent waits for an answer it would be otherwise.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_draining_agent_is_not_ready() {
    let istiod = Istiod::start().await;
    let pod = draining(&istiod, IDLE).await;
    assert_eq!(pod.get("/healthz/ready").await, (503, "the agent is ending\n".into()));
    soon("the end", pod.stop()).await;
}

#[tokio::test]
async fn an_envoy_that_crashes_in_a_drain_is_told() {
    let istiod = Istiod::start().await;
    let pod = draining(&istiod, "while [ ! -e $0/crash ]; do sleep 0.02; done; kill -SEGV $$").await;
    assert_eq!(pod.post("/drain").await.0, 200);
    pod.touch("crash");
    assert_eq!(soon("the end", pod.ended()).await, 128 + 11);
}

#[tokio::test]
async fn a_file_that_appears_ends_the_agent() {
    let istiod = Istiod::start().await;
    for is_there in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/done");
        let appear = || {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
        };
        if is_there {
            appear();
        }
        let env =
            [("ISTIO_AGENT_EXIT_FILE", file.to_str().unwrap()), ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT")];
        let mut pod = Pod::prepare(&istiod, &env);
        pod.set_envoy(IDLE);
        let pod = pod.run().await;
        if !is_there {
            assert_eq!(pod.get("/quitquitquit").await.0, 405, "it still runs");
            appear();
        }
        assert_eq!(soon("the end", pod.ended()).await, 0);
    }
}

#[tokio::test]
async fn a_status_port_that_fails_ends_the_agent() {
    use nix::sys::socket::{Shutdown, SockaddrStorage, getpeername, getsockname, shutdown};

    let istiod = Istiod::start().await;
    let pod = Pod::start(&istiod, &[]).await;
    assert_eq!(pod.get("/healthz/ready").await.0, 200);
    let listens_there = |fd: &i32| {
        let address = getsockname::<SockaddrStorage>(*fd).ok();
        let port = address.and_then(|address| {
            address.as_sockaddr_in6().map(|v6| v6.port()).or(address.as_sockaddr_in().map(|v4| v4.port()))
        });
        port == Some(pod.port()) && getpeername::<SockaddrStorage>(*fd).is_err()
    };
    let fd = (3..1024).find(listens_there).unwrap();
    shutdown(fd, Shutdown::Both).unwrap();
    assert_eq!(soon("the end", pod.ended()).await, 1);
}
