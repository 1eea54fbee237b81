use runtime::tasks::Tasks;

use super::*;

const GOOD: &str = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 1\n\
                    server.state: 0\nlistener_manager.workers_started: 1\n";

fn verdict(stats: &str) -> Result<(), String> {
    judge(&Counters::parse(stats))
}

#[test]
fn all_must_be_there() {
    assert_eq!(verdict(GOOD), Ok(()));
    for (from, to, reason) in [
        (
            "cds.update_success: 1",
            "cds.update_rejected: 1",
            "but was rejected: cds updates: 0 successful, 1 rejected",
        ),
        ("cds.update_success: 1", "x: 1", "not fully received"),
        ("server.state: 0", "server.state: 1", "current state is: DRAINING"),
        ("server.state: 0", "server.state: 9", "current state is: UNKNOWN"),
        ("workers_started: 1", "workers_started: 0", "workers have not yet started"),
    ] {
        let error = verdict(&GOOD.replace(from, to)).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
    assert!(verdict("").unwrap_err().contains("is Istiod running?"));
    assert!(verdict(&GOOD.replace("server.state", "x")).unwrap_err().contains("server.state is not yet"));
}

/// An Envoy that shows those counters.
async fn envoy(tasks: &Tasks, stats: watch::Receiver<&'static str>) -> Local {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime::http::serve(tasks, "envoy", listener, move |request, _| {
        assert!(request.uri().query().unwrap().contains("listener_manager"));
        let stats = *stats.borrow();
        async move { runtime::http::text(http::StatusCode::OK, stats) }
    });
    Local { port, tasks: tasks.clone() }
}

#[tokio::test]
async fn once_ready_envoy_stays_ready_and_the_rest_is_looked_at_again() {
    let tasks = Tasks::new();
    let (stats, rx) = watch::channel("");
    let (names_tx, names) = watch::channel(None);
    let (link_tx, link) = watch::channel(Link::NeverConnected);
    let conditions = Conditions {
        envoy: Some(envoy(&tasks, rx).await),
        grpc_bootstrap: None,
        names: Some(names),
        link: Some((link, Duration::from_secs(60))),
    };
    let ready = Ready::new(conditions, Arc::default());
    assert!(ready.check().await.unwrap_err().starts_with("config not received from XDS server"));
    stats.send(GOOD).unwrap();
    assert!(ready.check().await.unwrap_err().contains("DNS lookup table is not ready yet"));
    names_tx.send(Some(Arc::default())).unwrap();
    assert_eq!(ready.check().await, Ok(()));
    stats.send("server.state: 1\n").unwrap();
    assert_eq!(ready.check().await, Ok(()));

    let lost = |ago| Link::Lost { since: Instant::now().checked_sub(Duration::from_secs(ago)).unwrap() };
    link_tx.send(lost(30)).unwrap();
    assert_eq!(ready.check().await, Ok(()));
    link_tx.send(lost(61)).unwrap();
    assert_eq!(ready.check().await, Err("no xDS stream with istiod for 60s".into()));
    link_tx.send(Link::Connected).unwrap();
    assert_eq!(ready.check().await, Ok(()));

    ready.drain();
    assert_eq!(ready.check().await, Err("the agent is ending".into()));
}

#[tokio::test]
async fn without_envoy_there_is_nothing_to_wait_for() {
    assert_eq!(Ready::new(Conditions::default(), Arc::default()).check().await, Ok(()));
    let admin = Local { port: 1, tasks: Tasks::new() };
    let ready = Ready::new(Conditions { envoy: Some(admin), ..Conditions::default() }, Arc::default());
    assert!(ready.check().await.unwrap_err().starts_with("Envoy does not answer: "));
}
