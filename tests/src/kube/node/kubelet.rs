//! What of a kubelet's own server the API server leads clients to: ports of pods,
//! over a WebSocket of the protocol `v4.channel.k8s.io`. Of each port two channels
//! are there: bytes, and what went wrong.

use std::net::{Ipv4Addr, SocketAddr, TcpStream as Stream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use runtime::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::netns;

/// Port of a kubelet.
pub(crate) const PORT: u16 = 10250;
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Longest wait for a pod's port.
const CONNECT: Duration = Duration::from_secs(3);

/// Finds the network namespace of a pod by namespace and name.
pub(super) type Find = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Serves until the tasks are stopped.
pub(super) async fn serve(tasks: Tasks, listener: TcpListener, tls: ServerConfig, find: Find) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, find) = (acceptor.clone(), find.clone());
        tasks.spawn("kubelet", async move {
            // Who asked is told by the connection's end.
            forward(stream, acceptor, find).await.ok();
        });
    }
}

async fn forward(stream: TcpStream, acceptor: TlsAcceptor, find: Find) -> anyhow::Result<()> {
    let stream = acceptor.accept(stream).await?;
    // Its certificate was verified; without one it is nobody that may ask.
    ensure!(stream.get_ref().1.peer_certificates().is_some(), "who asks is not known");
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
        Some(network) => tokio::task::spawn_blocking(move || connect(&network, port)).await?,
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
    use super::wanted;

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
