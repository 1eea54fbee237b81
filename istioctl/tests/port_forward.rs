//! The way to a proxy through an API server, as the kubelet behind it speaks: a
//! WebSocket of the protocol `v4.channel.k8s.io`, whose channels 0 and 1 are data
//! and errors of the port.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use istioctl::args::{Cli, Command};
use istioctl::proxies::{Mesh, Proxy};
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

const PROTOCOL: &str = "v4.channel.k8s.io";
const PAGE: &str = r#"{"configs": []}"#;

/// What a kubelet does with a port.
#[derive(Clone, Copy)]
enum Port {
    /// Answers one request, after so much time.
    Answers(Duration),
    /// Says that nobody listens there, as a kubelet does.
    Closed,
}

/// Why a port is of no use.
const REFUSED: &str = "unable to do port forwarding: connection refused";

/// Takes one connection to a port; gives what was asked for.
async fn kubelet(listener: TcpListener, kind: Port) -> (String, String) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut path = String::new();
    // The library says how large an error is.
    #[expect(clippy::result_large_err)]
    let accept = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().to_string();
        response.headers_mut().insert("Sec-WebSocket-Protocol", PROTOCOL.parse().unwrap());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, accept).await.unwrap();
    let port = 15000_u16.to_le_bytes();
    for channel in [0, 1] {
        socket.send(Message::binary(vec![channel, port[0], port[1]])).await.unwrap();
    }
    let delay = match kind {
        Port::Answers(delay) => delay,
        Port::Closed => {
            socket.send(Message::binary([&[1][..], REFUSED.as_bytes()].concat())).await.unwrap();
            socket.close(None).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
            return (path, String::new());
        }
    };
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let Some(Ok(message)) = socket.next().await else { break };
        if let [0, data @ ..] = &message.into_data()[..] {
            asked.extend_from_slice(data);
        }
    }
    tokio::time::sleep(delay).await;
    // In two pieces, as it may come.
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{PAGE}", PAGE.len());
    for piece in answer.as_bytes().chunks(40) {
        socket.send(Message::binary([&[0][..], piece].concat())).await.unwrap();
    }
    while let Some(Ok(_)) = socket.next().await {}
    (path, String::from_utf8(asked).unwrap())
}

fn kubeconfig(address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: shop}}}}]\n"
    )
}

/// A cluster with one kubelet, and a command line for it.
async fn cluster(dir: &Path, kind: Port, words: &[&str]) -> (Cli, JoinHandle<Option<(String, String)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = dir.join("kubeconfig");
    std::fs::write(&file, kubeconfig(listener.local_addr().unwrap())).unwrap();
    let server = Tasks::new().spawn("kubelet", kubelet(listener, kind));
    let file = file.display().to_string();
    let line = ["istioctl", "--kubeconfig", &file].into_iter().chain(words.iter().copied());
    (Cli::try_parse_from(line).unwrap(), server)
}

#[tokio::test]
async fn a_page_of_envoy_comes_through_the_api_server() {
    let dir = tempfile::tempdir().unwrap();
    let (cli, server) = cluster(dir.path(), Port::Answers(Duration::ZERO), &["version"]).await;
    let mesh = Mesh::open(&cli.global).await.unwrap();
    let proxy = mesh.proxy("web-0").await.unwrap();
    assert_eq!(proxy, Proxy { name: "web-0".into(), namespace: "shop".into() });
    let text = mesh.admin(&proxy, 15000).get("config_dump?mask=bootstrap").await.unwrap();
    assert_eq!(text, PAGE);
    drop(mesh);
    let (path, asked) = server.await.unwrap().unwrap();
    assert_eq!(path, "/api/v1/namespaces/shop/pods/web-0/portforward?&ports=15000");
    assert!(asked.starts_with("GET /config_dump?mask=bootstrap HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn a_port_that_is_quiet_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    // Longer than what is asked of the API server may take.
    let kind = Port::Answers(Duration::from_secs(4));
    let (cli, _) = cluster(dir.path(), kind, &["--kubeclient-timeout", "3s", "version"]).await;
    let mesh = Mesh::open(&cli.global).await.unwrap();
    let proxy = mesh.proxy("web-0").await.unwrap();
    assert_eq!(mesh.admin(&proxy, 15000).get("config_dump").await.unwrap(), PAGE);
}

#[tokio::test]
async fn why_a_port_cannot_be_forwarded_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (cli, _) = cluster(dir.path(), Port::Closed, &["version"]).await;
    let mesh = Mesh::open(&cli.global).await.unwrap();
    let proxy = mesh.proxy("web-0").await.unwrap();
    let error = format!("{:#}", mesh.admin(&proxy, 15000).get("config_dump").await.unwrap_err());
    assert!(error.contains("port 15000 of web-0.shop") && error.contains(REFUSED), "{error}");
}

#[tokio::test]
async fn a_dashboard_of_a_pod_without_a_sidecar_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let words = ["dashboard", "envoy", "web-0", "--browser=false"];
    let (cli, _) = cluster(dir.path(), Port::Closed, &words).await;
    let Command::Dashboard(args) = &cli.command else { panic!("another command") };
    let mut out = Vec::new();
    let failure = istioctl::command::dashboard::run(args, &cli.global, &mut out).await.unwrap_err();
    let error = format!("{:#}", failure.error.unwrap());
    assert!(error.contains(REFUSED) && out.is_empty(), "{error}");
}
