use std::collections::HashMap;
use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;

type Requests = Arc<Mutex<Vec<(String, HeaderMap)>>>;

/// A server with those answers by path, and what it was asked.
async fn server(
    tasks: &Tasks,
    answers: &[(&'static str, u16, &'static str, &'static str)],
) -> (u16, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers: HashMap<_, _> =
        answers.iter().map(|(path, code, kind, body)| (*path, (*code, *kind, *body))).collect();
    let requests = Requests::default();
    let seen = requests.clone();
    runtime::http::serve(tasks, "source", listener, move |request, _| {
        seen.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
        let (code, kind, body) = answers.get(request.uri().path()).copied().unwrap_or((404, "", ""));
        async move {
            let mut response = runtime::http::respond(StatusCode::from_u16(code).unwrap(), kind, body);
            if code == 301 {
                response.headers_mut().insert(LOCATION, HeaderValue::from_static(body));
            }
            response
        }
    });
    (port, requests)
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn target(port: u16, path: &str) -> Target {
    Target { port, path: path.into() }
}

/// Where the merged metrics are.
const OWN_PORT: u16 = 15020;
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Answer {
    content_type: String,
    body: String,
    metrics: String,
}

/// Scrapes with Envoy on that port; 0 is no Envoy.
async fn scrape(
    tasks: &Tasks,
    envoy: u16,
    targets: Vec<Target>,
    pairs: &[(&'static str, &'static str)],
) -> Answer {
    let metrics = Arc::new(Metrics::default());
    let admin = Local { port: envoy, tasks: tasks.clone() };
    let merge = Merge { envoy: envoy != 0, targets };
    let response =
        merged(("own 1\n".into(), OWN_PORT), &merge, &admin, Some("usedonly"), &headers(pairs), &metrics)
            .await;
    assert_eq!(response.status(), 200);
    let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Answer { content_type, body, metrics: metrics.render(std::time::SystemTime::now()) }
}

#[tokio::test]
async fn all_sources_are_joined_in_their_order() {
    let tasks = Tasks::new();
    let (envoy, asked) = server(&tasks, &[("/stats/prometheus", 200, accept::TEXT, "envoy 2\n")]).await;
    let (app, app_asked) = server(&tasks, &[("/m", 200, accept::TEXT, "app 3")]).await;
    let scraper = [
        ("user-agent", "Prometheus/3"),
        ("x-prometheus-scrape-timeout-seconds", "5.5"),
        ("accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"),
        ("authorization", "secret"),
    ];
    let answer = scrape(&tasks, envoy, vec![target(app, "/m?a=b")], &scraper).await;
    assert_eq!(
        (answer.content_type.as_str(), answer.body.as_str()),
        (accept::TEXT, "own 1\nenvoy 2\napp 3\n")
    );
    let (path, headers) = asked.lock().unwrap()[0].clone();
    assert_eq!(path, "/stats/prometheus?usedonly");
    assert_eq!(headers["accept"], "text/plain; q=0.1; version=0.0.4");
    let (path, headers) = app_asked.lock().unwrap()[0].clone();
    assert_eq!(path, "/m?a=b");
    assert_eq!(
        (&headers["user-agent"], &headers["x-prometheus-scrape-timeout-seconds"]),
        (&"Prometheus/3".parse().unwrap(), &"5.5".parse().unwrap())
    );
    assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text; q=0.2"));
    assert!(!headers.contains_key("authorization"));
}

#[tokio::test]
async fn the_format_is_the_applications_and_openmetrics_has_one_end() {
    let tasks = Tasks::new();
    let (app, _) = server(
        &tasks,
        &[
            ("/open", 200, OPEN, "app 1\n# EOF\n"),
            ("/more", 200, OPEN, "more 2\n# EOF"),
            ("/text", 200, "text/plain", "text 3\n"),
            ("/moved", 301, "", "/open"),
            ("/away", 301, "", "http://elsewhere.test/"),
        ],
    )
    .await;
    for (paths, content_type, body) in [
        (&["/open"][..], OPEN, "own 1\napp 1\n# EOF\n"),
        (&["/moved"], OPEN, "own 1\napp 1\n# EOF\n"),
        (&["/open", "/more"], OPEN, "own 1\napp 1\nmore 2\n# EOF\n"),
        (&["/open", "/text"], accept::TEXT, "own 1\napp 1\ntext 3\n"),
        (&["/away", "/gone", "/text"], accept::TEXT, "own 1\ntext 3\n"),
        (&["/gone"], accept::TEXT, "own 1\n"),
    ] {
        let targets = paths.iter().map(|path| target(app, path)).collect();
        let answer = scrape(&tasks, 0, targets, &[]).await;
        assert_eq!((answer.content_type.as_str(), answer.body.as_str()), (content_type, body), "{paths:?}");
    }
}

#[tokio::test]
async fn failures_are_counted_by_their_kind() {
    let tasks = Tasks::new();
    let (app, _) = server(&tasks, &[("/ok", 200, "", "app 1\n"), ("/bad", 500, "", "")]).await;
    let targets = vec![target(app, "/bad"), target(app, "/ok"), target(1, "/")];
    let answer = scrape(&tasks, 1, targets, &[]).await;
    assert_eq!(answer.body, "own 1\napp 1\n");
    for line in [
        "istio_agent_scrape_failures_total{type=\"envoy\"} 1",
        "istio_agent_scrape_failures_total{type=\"application\"} 2",
    ] {
        assert!(answer.metrics.lines().any(|found| found == line), "{line} in\n{}", answer.metrics);
    }
}

#[tokio::test]
async fn a_silent_source_holds_nobody_up_for_longer_than_the_scraper_waits() {
    let tasks = Tasks::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (app, _) = server(&tasks, &[("/ok", 200, "", "app 1\n")]).await;
    let targets = vec![target(silent.local_addr().unwrap().port(), "/"), target(app, "/ok")];
    let start = Instant::now();
    let answer = scrape(&tasks, 0, targets, &[("x-prometheus-scrape-timeout-seconds", "0.5")]).await;
    assert_eq!(answer.body, "own 1\napp 1\n");
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

#[test]
fn the_time_of_the_scraper_is_not_used_up() {
    let all = [("10", 9000), ("0.5", 450), ("x", 10_000), ("-1", 10_000), ("1.8e19", 3_600_000)];
    for (value, expected) in all {
        assert_eq!(limit(&headers(&[("x-prometheus-scrape-timeout-seconds", value)])).as_millis(), expected);
    }
}

#[tokio::test]
async fn an_application_does_not_lead_back_to_the_merged_metrics() {
    let tasks = Tasks::new();
    let (own, asked) = server(&tasks, &[("/metrics", 200, accept::TEXT, "own 1\n")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap().port();
    runtime::http::serve(&tasks, "app", listener, move |_, _| async move {
        let mut response = runtime::http::text(StatusCode::FOUND, "");
        let location = format!("http://localhost:{own}/metrics");
        response.headers_mut().insert(LOCATION, location.try_into().unwrap());
        response
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let fetched = application(&target(app, "/m"), own, &headers(&[]), &tasks, deadline).await;
    assert!(fetched.unwrap_err().ends_with("which is merged already"));
    assert!(asked.lock().unwrap().is_empty());
}
