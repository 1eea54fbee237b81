//! The way to a proxy through an API server, as the kubelet behind it speaks: a
//! WebSocket of the protocol `v4.channel.k8s.io`, whose channels 0 and 1 are data
//! and errors of the port.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::net::SocketAddr;

use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use istioctl::args::Cli;
use istioctl::proxies::{Mesh, Proxy};
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

const PROTOCOL: &str = "v4.channel.k8s.io";
const PAGE: &str = r#"{"configs": []}"#;

/// Answers one request that comes through a forwarded port; gives what was asked for.
async fn kubelet(listener: TcpListener) -> (String, String) {
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
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let Some(Ok(message)) = socket.next().await else { break };
        if let [0, data @ ..] = &message.into_data()[..] {
            asked.extend_from_slice(data);
        }
    }
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

#[tokio::test]
async fn a_page_of_envoy_comes_through_the_api_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig(listener.local_addr().unwrap())).unwrap();
    let server = Tasks::new().spawn("kubelet", kubelet(listener));
    let line = ["istioctl", "--kubeconfig", &file.display().to_string(), "version"].map(ToOwned::to_owned);
    let mesh = Mesh::open(&Cli::try_parse_from(line).unwrap().global).await.unwrap();
    let proxy = mesh.proxy("web-0").await.unwrap();
    assert_eq!(proxy, Proxy { name: "web-0".into(), namespace: "shop".into() });
    let text = mesh.admin(&proxy, 15000).get("config_dump?mask=bootstrap").await.unwrap();
    assert_eq!(text, PAGE);
    drop(mesh);
    let (path, asked) = server.await.unwrap().unwrap();
    assert_eq!(path, "/api/v1/namespaces/shop/pods/web-0/portforward?&ports=15000");
    assert!(asked.starts_with("GET /config_dump?mask=bootstrap HTTP/1.1\r\n"), "{asked}");
}
