use http::StatusCode;
use tokio::net::TcpListener;

use super::*;
use crate::status::ready::Conditions;

fn settings(check: Check) -> HealthCheck {
    HealthCheck {
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(5),
        period: Duration::from_millis(10),
        successes: 1,
        failures: 1,
        check,
    }
}

fn prober(settings: HealthCheck) -> Prober {
    let ready = Arc::new(Ready::new(Conditions::default(), Arc::default()));
    Prober::new(settings, Destination::Pod([127, 0, 0, 1].into()), ready, Tasks::new())
}

#[test]
fn only_changes_count_and_only_in_a_row() {
    let mut settings = settings(Check::Exec(Vec::new()));
    (settings.successes, settings.failures) = (2, 3);
    let mut streak = Streak::default();
    // Good, and whether it is told.
    for (at, (good, told)) in [
        (true, false),
        (false, false),
        (true, false),
        (true, true),
        (true, false),
        (false, false),
        (false, false),
        (true, false),
        (false, false),
        (false, false),
        (false, true),
        (false, false),
        (true, false),
        (true, true),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(streak.add(good, &settings), told, "{at}");
    }
}

#[tokio::test]
async fn an_http_application_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = Tasks::new();
    let (code, codes) = watch::channel(503);
    runtime::http::serve(&tasks, "app", listener, move |request, _| {
        assert_eq!(request.headers()["user-agent"], "istio-probe/1.0");
        assert_eq!(request.headers()["host"], "web.test");
        let code = *codes.borrow();
        async move { runtime::http::text(StatusCode::from_u16(code).unwrap(), "") }
    });
    let check = Check::Http {
        is_tls: false,
        host: None,
        port,
        path: "/ready".into(),
        headers: vec![(http::header::HOST, HeaderValue::from_static("web.test"))],
    };
    let (tx, mut health) = watch::channel(None);
    tasks.spawn("health", prober(settings(check)).run(tx));
    let bad = "status code was not from [200,400), bad code 503".to_owned();
    for (next, expected) in [(200, Health::Unhealthy(bad)), (399, Health::Healthy)] {
        timeout(Duration::from_secs(120), health.changed()).await.unwrap().unwrap();
        assert_eq!(health.borrow_and_update().clone(), Some(expected));
        code.send(next).unwrap();
    }
}

#[tokio::test]
async fn ports_and_programs_are_probed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let words = |line: &[&str]| Check::Exec(line.iter().map(|word| (*word).to_owned()).collect());
    for (check, reason) in [
        (Check::Tcp { host: None, port: open }, None),
        (Check::Tcp { host: Some("localhost".into()), port: open }, None),
        (Check::Tcp { host: None, port: closed }, Some("connect to 127.0.0.1:")),
        (words(&["/bin/sh", "-c", "exit 0"]), None),
        (words(&["/bin/sh", "-c", "exit 3"]), Some("/bin/sh: exit status: 3")),
        (words(&["/nowhere/x"]), Some("/nowhere/x: No such file")),
        (Check::Grpc { port: closed, service: String::new() }, Some("connect to 127.0.0.1:")),
    ] {
        let result = prober(settings(check.clone())).probe().await;
        match (result, reason) {
            (Ok(()), None) => {}
            (Err(error), Some(reason)) if error.starts_with(reason) => {}
            (result, _) => panic!("{check:?}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid").to_string_lossy().into_owned();
    let line = ["/bin/sh", "-c", "echo $$ > $0.new && mv $0.new $0 && exec sleep 1000", &file];
    let mut settings = settings(Check::Exec(line.iter().map(|word| (*word).to_owned()).collect()));
    settings.timeout = Duration::from_secs(1);
    let prober = prober(settings);
    assert_eq!(prober.probe().await, Err("no answer within 1s".into()));
    let pid = std::fs::read_to_string(&file).unwrap();
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    for _ in 0..1000 {
        if !is_running() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("{pid} still runs");
}

#[tokio::test]
async fn without_envoy_nobody_could_reach_it() {
    let admin = crate::envoy::admin::Local { port: 1, tasks: Tasks::new() };
    let conditions = Conditions { envoy: Some(admin), ..Conditions::default() };
    let ready = Arc::new(Ready::new(conditions, Arc::default()));
    let check = Check::Exec(vec!["/bin/true".into()]);
    let prober = Prober::new(settings(check), Destination::Localhost, ready, Tasks::new());
    assert!(prober.probe().await.unwrap_err().starts_with("Envoy does not answer"));
}

#[test]
fn this_machine_has_several_names() {
    let own = Destination::Pod([10, 0, 0, 1].into());
    assert_eq!(destination(Some("10.0.0.1"), &own), own);
    assert_eq!(destination(Some("127.0.0.2"), &own), Destination::Pod([127, 0, 0, 2].into()));
    assert_eq!(destination(Some("10.0.0.2"), &own), Destination::Other("10.0.0.2".into()));
    assert_eq!(destination(Some("db.test"), &own), Destination::Other("db.test".into()));
}
