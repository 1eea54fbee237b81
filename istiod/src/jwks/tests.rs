use std::sync::Mutex;

use config::yaml;
use http::{Request, StatusCode};
use tokio::net::TcpListener;

use super::*;

const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#;
const OTHER: &str = r#"{"keys":[{"kty":"oct","k":"AQAC"}]}"#;

/// What a server answers by path.
type Answers = Arc<Mutex<BTreeMap<&'static str, (StatusCode, String)>>>;

/// A server on this machine, and the beginning of its URIs.
async fn serve(tasks: &Tasks) -> (Answers, String) {
    let answers = Answers::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let known = answers.clone();
    runtime::http::serve(tasks, "issuer", listener, move |request: Request<_>, _| {
        let answer = known.lock().unwrap().get(request.uri().path()).cloned();
        let (status, text) = answer.unwrap_or((StatusCode::NOT_FOUND, String::new()));
        let mut response = runtime::http::text(status, text.clone());
        if status.is_redirection() {
            response.headers_mut().insert(http::header::LOCATION, text.parse().unwrap());
        }
        async move { response }
    });
    (answers, base)
}

fn store(rules: &[String]) -> Store {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a}}\n\
         spec: {{jwtRules: [{}]}}\n",
        rules.join(", ")
    );
    let mut store = Store::default();
    for object in yaml::read("a.yaml", &text).objects {
        store.apply(object.into());
    }
    store
}

fn keys(tasks: &Tasks, refresh: Duration, allows_loopback: bool) -> Keys {
    let guard = Guard { allows_loopback, ..Guard::default() };
    Keys::new(
        Settings { fetch: pilot::KeyFetch::Istiod, refresh, guard, insecure: false },
        Arc::default(),
        tasks.clone(),
    )
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn keys_are_fetched_from_their_uri_or_found_by_discovery() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    let put = |path, status, text: String| answers.lock().unwrap().insert(path, (status, text));
    put("/keys", StatusCode::OK, KEYS.into());
    put("/.well-known/openid-configuration", StatusCode::OK, format!("{{\"jwks_uri\": \"{base}/other\"}}"));
    put("/other", StatusCode::OK, OTHER.into());
    put("/moved", StatusCode::FOUND, "/keys".into());
    put("/empty", StatusCode::OK, "{\"keys\": []}".into());
    put("/page", StatusCode::OK, "<html>".into());
    put("/large", StatusCode::OK, format!("{KEYS}{}", " ".repeat(1 << 20)));
    let mut keys = keys(&tasks, LONG, true);
    let uri = |path: &str| format!("{{issuer: i, jwksUri: '{base}{path}'}}");
    let mut rules = vec![format!("{{issuer: '{base}/'}}")];
    rules.extend(["/keys", "/moved", "/empty", "/page", "/large", "/none"].map(uri));
    keys.follow(&store(&rules));
    keys.settle(LONG).await;
    let want = [
        (format!("{base}/.well-known/openid-configuration"), OTHER.to_owned()),
        (format!("{base}/keys"), KEYS.to_owned()),
        (format!("{base}/moved"), KEYS.to_owned()),
    ];
    assert_eq!(*keys.sets(), BTreeMap::from(want));
    assert!(!keys.follow(&store(&[uri("/keys")])));
    assert_eq!(keys.sets().len(), 3, "what is named again in a moment is kept");
    assert!(tasks.stop(LONG).await);
}

#[tokio::test]
async fn a_rule_that_comes_back_has_its_keys_while_nobody_answers() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    answers.lock().unwrap().insert("/keys", (StatusCode::OK, KEYS.into()));
    let mut keys = keys(&tasks, LONG, true);
    let rule = [format!("{{issuer: i, jwksUri: '{base}/keys'}}")];
    keys.follow(&store(&rule));
    keys.settle(LONG).await;
    keys.follow(&store(&[]));
    answers.lock().unwrap().clear();
    keys.follow(&store(&rule));
    keys.settle(LONG).await;
    assert_eq!(*keys.sets(), [(format!("{base}/keys"), KEYS.to_owned())].into());
    assert!(tasks.stop(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn keys_that_nobody_names_are_forgotten_by_number_and_age() {
    let mut keys = keys(&Tasks::new(), LONG, true);
    for number in 0..=MOST_KEPT {
        let uri = format!("https://{number:03}.example/keys");
        Arc::make_mut(&mut keys.sets).insert(uri.clone(), KEYS.into());
        keys.fetched.insert(uri, Instant::now());
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(keys.follow(&store(&[])));
    assert_eq!(keys.sets().len(), MOST_KEPT);
    assert!(!keys.sets().contains_key("https://000.example/keys"), "the oldest");
    assert!(!keys.follow(&store(&[])));
    tokio::time::advance(MAX_AGE).await;
    assert!(keys.follow(&store(&[])) && keys.sets().is_empty());
}

#[tokio::test]
async fn this_machine_is_not_asked_unless_it_may_be() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    answers.lock().unwrap().insert("/keys", (StatusCode::OK, KEYS.into()));
    let mut keys = keys(&tasks, LONG, false);
    keys.follow(&store(&[format!("{{issuer: i, jwksUri: '{base}/keys'}}")]));
    keys.settle(LONG).await;
    assert!(keys.sets().is_empty());
    assert!(tasks.stop(LONG).await);
}

#[tokio::test]
async fn new_keys_are_seen_and_the_last_good_ones_stay() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    let put = |text: &str| answers.lock().unwrap().insert("/keys", (StatusCode::OK, text.into()));
    put(KEYS);
    let mut keys = keys(&tasks, Duration::from_millis(5), true);
    let uri = format!("{base}/keys");
    keys.follow(&store(&[format!("{{issuer: i, jwksUri: '{uri}'}}")]));
    keys.settle(LONG).await;
    put(OTHER);
    keys.changed().await;
    assert_eq!(keys.sets()[&uri], OTHER);
    put("nonsense");
    // Until it has failed.
    while keys.results.recv().await.unwrap().keys.is_some() {}
    assert_eq!(keys.sets()[&uri], OTHER);
    assert!(tasks.stop(LONG).await);
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_up_nobody() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    answers.lock().unwrap().insert("/keys", (StatusCode::OK, KEYS.into()));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut keys = keys(&tasks, LONG, true);
    let hangs =
        format!("{{issuer: j, jwksUri: 'http://{}/keys', timeout: 20s}}", silent.local_addr().unwrap());
    keys.follow(&store(&[hangs, format!("{{issuer: i, jwksUri: '{base}/keys'}}")]));
    keys.changed().await;
    assert_eq!(keys.sets().len(), 1);
    assert!(tasks.stop(LONG).await);
}

#[tokio::test]
async fn keys_grow_old_though_their_fetcher_is_a_new_one() {
    let tasks = Tasks::new();
    let (answers, base) = serve(&tasks).await;
    let put = |text: &str| answers.lock().unwrap().insert("/keys", (StatusCode::OK, text.into()));
    put(KEYS);
    let mut keys = keys(&tasks, 2 * MAX_AGE, true);
    let rule = |timeout| store(&[format!("{{issuer: i, jwksUri: '{base}/keys', timeout: {timeout}s}}")]);
    keys.follow(&rule(5));
    keys.settle(LONG).await;
    assert_eq!(keys.sets().len(), 1);
    put("nonsense");
    keys.follow(&rule(6));
    keys.settle(LONG).await;
    assert_eq!(keys.sets().len(), 1, "young keys outlive a fetcher that fails");
    tokio::time::pause();
    tokio::time::advance(MAX_AGE + LONG).await;
    tokio::time::resume();
    keys.follow(&rule(7));
    keys.changed().await;
    assert!(keys.sets().is_empty());
    assert!(tasks.stop(LONG).await);
}
