//! A forward proxy: connects a client of `CONNECT` or `POST` with a port of one host.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use runtime::http::{Body, full, text};
use runtime::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The only host that it knows: the one it runs on.
const HOST_BEHIND: &str = "external.example";
/// Blocks of bytes that may wait for the client.
const QUEUE: usize = 4;

/// Connects, and answers before the bytes flow.
pub(super) async fn answer(request: Request<Incoming>, tasks: &Tasks) -> Response<Body> {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let target = request.uri().authority().map(ToString::to_string).or(named).unwrap_or_default();
    let port = target.rsplit_once(':').filter(|(host, _)| *host == HOST_BEHIND);
    let Some(port) = port.and_then(|(_, port)| port.parse::<u16>().ok()) else {
        return text(StatusCode::BAD_GATEWAY, format!("no way to {target:?}\n"));
    };
    let server = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(server) => server,
        Err(error) => return text(StatusCode::BAD_GATEWAY, format!("{target}: {error}\n")),
    };
    match *request.method() {
        Method::CONNECT => {
            tasks.spawn("tunnel", through_upgrade(request, server));
            Response::new(full(""))
        }
        Method::POST => through_bodies(request, server, tasks),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, ""),
    }
}

async fn through_upgrade(request: Request<Incoming>, mut server: TcpStream) -> Option<()> {
    let mut client = TokioIo::new(hyper::upgrade::on(request).await.ok()?);
    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}

fn through_bodies(request: Request<Incoming>, server: TcpStream, tasks: &Tasks) -> Response<Body> {
    let (mut read, mut write) = server.into_split();
    let mut body = request.into_body();
    tasks.spawn("tunnel up", async move {
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                write.write_all(&data).await.ok()?;
            }
        }
        Some(())
    });
    let (sender, receiver) = mpsc::channel(QUEUE);
    tasks.spawn("tunnel down", async move {
        let mut bytes = vec![0; 8192];
        while let Ok(count @ 1..) = read.read(&mut bytes).await {
            sender.send(Ok(Frame::data(Bytes::copy_from_slice(&bytes[..count])))).await.ok()?;
        }
        Some(())
    });
    Response::new(StreamBody::new(ReceiverStream::new(receiver)).boxed())
}
