//! What of a kubelet's own server the API server leads clients to: what containers have
//! printed, and ports of pods, over a WebSocket of the protocol `v4.channel.k8s.io`. Of
//! each port two channels are there: bytes, and what went wrong.

use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr, TcpStream as Stream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use runtime::tasks::Tasks;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use super::container::tail;
use crate::netns;

/// Port of a kubelet.
pub(crate) const PORT: u16 = 10250;
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Longest wait for a pod's port.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest head of a request.
const HEAD: usize = 16 * 1024;
/// Below it is what a container has printed, by namespace, pod and container.
const LOGS: &str = "/containerLogs/";

/// A pod of the node.
pub(super) struct Found {
    /// Its network namespace.
    pub(super) network: String,
    /// The folder of its containers' logs.
    pub(super) logs: PathBuf,
}

/// Finds a pod by namespace and name.
pub(super) type Find = Arc<dyn Fn(&str, &str) -> Option<Found> + Send + Sync>;

/// Serves until the tasks are stopped.
pub(super) async fn serve(tasks: Tasks, listener: TcpListener, tls: ServerConfig, find: Find) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, find) = (acceptor.clone(), find.clone());
        tasks.spawn("kubelet", async move {
            // Who asked is told by the connection's end.
            answer(stream, acceptor, find).await.ok();
        });
    }
}

async fn answer(stream: TcpStream, acceptor: TlsAcceptor, find: Find) -> anyhow::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    // Its certificate was verified; without one it is nobody that may ask.
    ensure!(stream.get_ref().1.peer_certificates().is_some(), "who asks is not known");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < HEAD, "a head that has no end");
        head.push(stream.read_u8().await?);
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    if path.starts_with(LOGS) {
        let (status, text) = match printed(&path, &find) {
            Ok(text) => ("200 OK", text),
            Err(error) => ("404 Not Found", format!("{error:#}")),
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
        );
        stream.write_all(answer.as_bytes()).await?;
        return Ok(stream.shutdown().await?);
    }
    // Who speaks WebSocket begins with the head.
    let (read, write) = tokio::io::split(stream);
    forward(tokio::io::join(Cursor::new(head).chain(read), write), find).await
}

/// What a container has printed: all of it, or the last lines.
fn printed(path: &str, find: &Find) -> anyhow::Result<String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.trim_start_matches(LOGS).split('/').collect();
    let [namespace, pod, container] = parts[..] else { anyhow::bail!("no container: {path}") };
    let has = |wanted: &str| query.split('&').any(|one| one == wanted);
    ensure!(!has("previous=true"), "previous terminated container {container:?} not found");
    let found = find(namespace, pod).with_context(|| format!("pod {pod} is not on this node"))?;
    let file = found.logs.join(format!("{container}.log"));
    ensure!(file.is_file(), "container {container} is not in pod {pod}");
    let lines = query.split('&').find_map(|one| one.strip_prefix("tailLines="));
    let lines = lines.map_or(Ok(usize::MAX), str::parse)?;
    Ok(tail(&file, lines) + "\n")
}

async fn forward(stream: impl AsyncRead + AsyncWrite + Send + Unpin, find: Find) -> anyhow::Result<()> {
    let mut path = String::new();
    // The library says how large an error is.
    #[expect(clippy::result_large_err, reason = "the library's type")]
    let accept = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().to_string();
        response.headers_mut().insert("Sec-WebSocket-Protocol", http::HeaderValue::from_static(PROTOCOL));
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, accept).await?;
    let (namespace, pod, port) = wanted(&path).with_context(|| path.clone())?;
    for channel in [0, 1] {
        let [low, high] = port.to_le_bytes();
        socket.send(Message::binary(vec![channel, low, high])).await?;
    }
    let connected = match find(namespace, pod) {
        Some(pod) => tokio::task::spawn_blocking(move || connect(&pod.network, port)).await?,
        None => Err(anyhow::anyhow!("pod {pod} is not on this node")),
    };
    let mut port = match connected {
        Ok(stream) => TcpStream::from_std(stream)?,
        Err(error) => {
            socket.send(Message::binary([&[1][..], format!("{error:#}").as_bytes()].concat())).await?;
            return Ok(socket.close(None).await?);
        }
    };
    let (mut from_port, mut to_port) = port.split();
    let mut bytes = vec![0; 32 * 1024];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(data))) => {
                    if let [0, data @ ..] = &data[..] {
                        to_port.write_all(data).await?;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            },
            read = from_port.read(&mut bytes) => match read? {
                0 => return Ok(socket.close(None).await?),
                length => socket.send(Message::binary([&[0][..], &bytes[..length]].concat())).await?,
            },
        }
    }
}

/// Namespace, pod and port of `/portForward/NAMESPACE/POD[/UID]?ports=PORT`.
fn wanted(path: &str) -> Option<(&str, &str, u16)> {
    let (path, query) = path.split_once('?')?;
    let mut parts = path.strip_prefix("/portForward/")?.split('/');
    let (namespace, pod) = (parts.next()?, parts.next()?);
    let port =
        query.split('&').find_map(|one| one.strip_prefix("ports=").or_else(|| one.strip_prefix("port=")))?;
    Some((namespace, pod, port.parse().ok()?))
}

/// Connects to the loopback of a pod.
fn connect(network: &str, port: u16) -> anyhow::Result<Stream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = netns::inside(network, || Ok(Stream::connect_timeout(&address, CONNECT)?))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Find, Found, printed, wanted};

    #[test]
    fn a_log_is_that_of_a_container_of_a_pod() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.log"), "one\ntwo\nthree\n").unwrap();
        let logs = dir.path().to_owned();
        let find: Find = Arc::new(move |namespace, pod| {
            let found = Found { network: String::new(), logs: logs.clone() };
            (namespace == "shop" && pod == "web-0").then_some(found)
        });
        assert_eq!(printed("/containerLogs/shop/web-0/web", &find).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(printed("/containerLogs/shop/web-0/web?a=b&tailLines=1", &find).unwrap(), "three\n");
        for wrong in ["shop/web-0", "shop/web-0/db", "shop/web-1/web", "shop/web-0/web?previous=true"] {
            assert!(printed(&format!("/containerLogs/{wrong}"), &find).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_names_a_port_of_a_pod() {
        assert_eq!(wanted("/portForward/shop/web-0?ports=15000"), Some(("shop", "web-0", 15000)));
        assert_eq!(wanted("/portForward/shop/web-0/uid?a=b&ports=80"), Some(("shop", "web-0", 80)));
        for wrong in [
            "/portForward/shop?ports=1",
            "/exec/shop/web-0?ports=1",
            "/portForward/shop/web-0",
            "/portForward/a/b?ports=x",
        ] {
            assert_eq!(wanted(wrong), None, "{wrong}");
        }
    }
}
