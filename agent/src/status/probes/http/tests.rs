use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{ACCEPT, USER_AGENT};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// What an application was asked: version, path with its query, host, and agent.
type Seen = Arc<Mutex<Vec<String>>>;

struct App {
    port: u16,
    seen: Seen,
    connections: Arc<AtomicUsize>,
}

/// An application: a path is the status that it answers with, and after a `~`
/// where it redirects to, `!` for a question mark.
async fn app(tasks: &Tasks, tls: Option<TlsAcceptor>) -> App {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, connections) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let (log, count, set) = (seen.clone(), connections.clone(), tasks.clone());
    tasks.spawn("app", async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().to_string(), "127.0.0.6");
            count.fetch_add(1, Ordering::SeqCst);
            let (log, tls) = (log.clone(), tls.clone());
            set.spawn("connection", async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let header =
                        |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                    let host = header(HOST).or(request.uri().authority().map(ToString::to_string));
                    log.lock().unwrap().push(format!(
                        "{:?} {} {} {}",
                        request.version(),
                        request.uri().path_and_query().unwrap(),
                        host.unwrap(),
                        header(USER_AGENT).unwrap_or_default(),
                    ));
                    let (status, location) = match request.uri().path()[1..].split_once('~') {
                        Some((status, location)) => {
                            (status, Some(location.replace("PORT", &port.to_string()).replace('!', "?")))
                        }
                        None => (&request.uri().path()[1..], None),
                    };
                    let mut response =
                        Response::new(http_body_util::Full::new(Bytes::from(vec![b'x'; 20_000])));
                    *response.status_mut() = StatusCode::from_bytes(status.as_bytes()).unwrap();
                    if let Some(location) = location {
                        response.headers_mut().insert(LOCATION, location.try_into().unwrap());
                    }
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let auto = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                match tls {
                    Some(tls) => {
                        let stream = tls.accept(stream).await.unwrap();
                        auto.serve_connection(TokioIo::new(stream), service).await.ok();
                    }
                    None => drop(auto.serve_connection(TokioIo::new(stream), service).await),
                }
            });
        }
    });
    App { port, seen, connections }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("web.test"));
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.33"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

fn client(tasks: &Tasks, http2: bool, keepalive: bool) -> Client {
    Client::new(Destination::Pod([127, 0, 0, 1].into()), http2, keepalive, tasks.clone())
}

#[tokio::test]
async fn status_and_the_beginning_of_the_body_are_passed_on() {
    let tasks = Tasks::new();
    let app = app(&tasks, None).await;
    for status in [200, 404, 503] {
        let answer =
            client(&tasks, true, false).get(false, app.port, &format!("/{status}?a=b"), &headers()).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, MAX_BODY));
    }
    let seen = app.seen.lock().unwrap();
    assert_eq!(seen[0], "HTTP/1.1 /200?a=b web.test kube-probe/1.33");
}

#[tokio::test]
async fn redirections_are_followed_as_the_kubelet_does() {
    let tasks = Tasks::new();
    let app = app(&tasks, None).await;
    for (path, status) in [
        ("/302~/404", Some(404)),
        ("/301~http://127.0.0.1:PORT/201", Some(201)),
        ("/307~http://elsewhere.test/404", Some(200)),
        ("/304", Some(200)),
        ("/302", Some(200)),
        ("/302~ftp://x", None),
        ("/302~/404!next=https://elsewhere.test/", Some(404)),
    ] {
        let answer = client(&tasks, true, false).get(false, app.port, path, &headers()).await;
        assert_eq!(answer.ok().map(|answer| answer.status.as_u16()), status, "{path}");
    }
    let seen = app.seen.lock().unwrap().clone();
    assert_eq!(seen[1], "HTTP/1.1 /404 web.test kube-probe/1.33", "the host stays");
    let last = seen.last().unwrap();
    assert_eq!(last, "HTTP/1.1 /404?next=https://elsewhere.test/ web.test kube-probe/1.33");
    assert_eq!(seen[3], format!("HTTP/1.1 /201 127.0.0.1:{} kube-probe/1.33", app.port));
}

#[tokio::test]
async fn endless_redirections_end() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    runtime::http::serve(&tasks, "app", listener, move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut response = runtime::http::text(StatusCode::FOUND, "");
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
            response
        }
    });
    let error = client(&tasks, true, false).get(false, port, "/", &headers()).await.unwrap_err();
    assert!(error.to_string().ends_with("stopped after 10 redirects"), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 11);
}

/// A server with a certificate for somebody else, of a root that nobody knows.
fn acceptor(alpn: &[&[u8]]) -> TlsAcceptor {
    let (hour, now) = (std::time::Duration::from_secs(3600), std::time::SystemTime::now());
    let (issuer, _) = pki::issuer::Issuer::self_signed("other", hour, now).unwrap();
    let key = pki::key::PrivateKey::generate(pki::key::Algorithm::EcdsaP256).unwrap();
    let csr = pki::csr::Csr::of_key(&key).unwrap();
    let san = pki::issuer::San::Dns("elsewhere.test".into());
    let chain = issuer.issue(&csr, &[san], hour, now).unwrap().concat();
    let config = pki::verify::server_config(&chain, &key, issuer.root_pem(), alpn).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn any_certificate_will_do_and_http2_is_used_where_it_is_spoken() {
    let tasks = Tasks::new();
    for (alpn, http2, version) in [
        (&[&b"h2"[..], b"http/1.1"][..], true, "HTTP/2.0"),
        (&[b"h2", b"http/1.1"], false, "HTTP/1.1"),
        (&[], true, "HTTP/1.1"),
    ] {
        let app = app(&tasks, Some(acceptor(alpn))).await;
        let answer = client(&tasks, http2, false).get(true, app.port, "/202", &headers()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (202, MAX_BODY));
        assert_eq!(app.seen.lock().unwrap()[0], format!("{version} /202 web.test kube-probe/1.33"));
    }
}

#[tokio::test]
async fn connections_are_kept_only_when_asked_to() {
    let tasks = Tasks::new();
    for keepalive in [false, true] {
        // A body that is read to the end.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peers = Arc::new(Mutex::new(std::collections::HashSet::new()));
        let seen = peers.clone();
        runtime::http::serve(&tasks, "app", listener, move |_, peer| {
            seen.lock().unwrap().insert(peer);
            async { runtime::http::text(StatusCode::OK, "fine") }
        });
        let client = client(&tasks, true, keepalive);
        for _ in 0..3 {
            assert_eq!(client.get(false, port, "/", &headers()).await.unwrap().body, "fine");
        }
        assert_eq!(peers.lock().unwrap().len(), if keepalive { 1 } else { 3 });
    }
}

#[tokio::test]
async fn an_application_that_is_not_there_is_an_error() {
    let tasks = Tasks::new();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = client(&tasks, true, false).get(false, port, "/", &headers()).await.unwrap_err().to_string();
    assert!(error.starts_with("connect to 127.0.0.1:"), "{error}");
    let app = app(&tasks, None).await;
    let error =
        client(&tasks, true, false).get(true, app.port, "/", &headers()).await.unwrap_err().to_string();
    assert!(error.starts_with("TLS with https://127.0.0.1:"), "{error}");
    assert!(app.connections.load(Ordering::SeqCst) > 0);
}
