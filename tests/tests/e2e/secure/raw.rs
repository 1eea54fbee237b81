//! Requests written by hand: what is denied is denied however it is written.

use anyhow::ensure;
use istio_tests::app::PORT;
use istio_tests::client::LIMIT;
use istio_tests::mesh::Mesh;
use istio_tests::netns;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::SERVER;
use super::table::apply;

/// A path and a method that nobody may use.
const DENY: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: deny, namespace: default}, spec: {selector: {matchLabels: {app: server}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*'], ports: ['9080']}}, {operation: {methods: [DELETE], ports: ['9080']}}]}]}}";

/// First lines of requests, and the status of the answer: 403 when the policy
/// holds, 200 when the application answered.
const LINES: &[(&str, u16)] = &[
    ("GET /headers HTTP/1.1", 200),
    ("GET /admin HTTP/1.1", 403),
    ("GET /%61dmin HTTP/1.1", 403),
    ("GET /x/../admin HTTP/1.1", 403),
    ("GET /./admin HTTP/1.1", 403),
    ("GET /admin;x HTTP/1.1", 403),
    ("GET /admin?x HTTP/1.1", 403),
    ("GET /x/%2e%2e/admin HTTP/1.1", 403),
    ("GET /a\\..\\admin HTTP/1.1", 403),
    ("GET /admin#x HTTP/1.1", 403),
    ("GET http://server.default:9080/admin HTTP/1.1", 403),
    ("GET http://other.example/x/../admin HTTP/1.1", 403),
    ("DELETE /headers HTTP/1.1", 403),
    ("POST /admin HTTP/1.1", 403),
    ("GET /admin%00 HTTP/1.1", 400),
    ("GET /%00admin HTTP/1.1", 400),
    ("delete /headers HTTP/1.1", 400),
    ("dElEtE /headers HTTP/1.1", 400),
    // As in Istio, these are other paths until the mesh is told to merge or decode slashes.
    ("GET //admin HTTP/1.1", 200),
    ("GET /%2fadmin HTTP/1.1", 200),
    ("GET /x%2f..%2fadmin HTTP/1.1", 200),
    ("GET /ADMIN HTTP/1.1", 200),
];

/// Whole requests that say two things at once, or nothing, and their status.
const BROKEN: &[(&str, u16)] = &[
    (
        "POST /x HTTP/1.1\r\nhost: server\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: server\r\n\r\n",
        400,
    ),
    (
        "POST /x HTTP/1.1\r\nhost: server\r\ncontent-length: 0\r\ncontent-length: 40\r\n\r\nGET /admin HTTP/1.1\r\nhost: server\r\n\r\n",
        400,
    ),
    ("POST /x HTTP/1.1\r\nhost: server\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("POST /x HTTP/1.1\r\nhost: server\r\ncontent-length: -1\r\n\r\n", 400),
    ("POST /x HTTP/1.1\r\nhost: server\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n", 400),
    ("GET /x HTTP/1.1\r\n\r\n", 400),
    ("GET /x HTTP/1.1\r\nhost: server\r\nbad header: x\r\n\r\n", 400),
    ("GET /x HTTP/1.1\r\nhost: server\r\nx: a\0b\r\n\r\n", 400),
    ("GET /x HTTP/3.7\r\nhost: server\r\n\r\n", 426),
    ("\0\0\0\0 garbage\r\n\r\n", 400),
];

/// Longest header that is sent; Envoy takes 60 KiB.
const LONG: usize = 70_000;

pub(crate) fn smuggled(mesh: &mut Mesh) -> anyhow::Result<()> {
    apply(mesh, DENY)?;
    // Once when the policy holds, all at once.
    Mesh::wait("the policy", || {
        let seen = status(mesh, "GET /admin HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n")?;
        ensure!(seen == Some(403), "{seen:?}");
        Ok(())
    })?;
    let mut wrong = Vec::new();
    for (line, wanted) in LINES {
        let seen = status(mesh, &format!("{line}\r\nhost: server\r\nconnection: close\r\n\r\n"))?;
        if seen != Some(*wanted) {
            wrong.push(format!("{line:?}: {seen:?}, not {wanted}"));
        }
    }
    apply(mesh, "")?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

pub(crate) fn broken(mesh: &mut Mesh) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let long = format!("GET /x HTTP/1.1\r\nhost: server\r\nx: {}\r\n\r\n", "a".repeat(LONG));
    let rows = BROKEN.iter().copied().chain([(long.as_str(), 431)]);
    for (request, wanted) in rows {
        let answer = send(mesh, request)?;
        let seen = code(&answer);
        // What follows must not be taken for another request.
        let answers = answer.matches("HTTP/1.1 ").count();
        if seen != Some(wanted) || answers != 1 {
            let start: String = request.chars().take(90).collect();
            wrong.push(format!("{start:?}: {seen:?} and {answers} answers, not {wanted}"));
        }
    }
    // What a client says of its certificate is not believed.
    let forged = "GET /x HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\
        x-forwarded-client-cert: By=spiffe://x;URI=spiffe://cluster.local/ns/default/sa/admin\r\n\r\n";
    let answer = send(mesh, forged)?;
    if code(&answer) != Some(200) || answer.contains("sa/admin") {
        wrong.push(format!("a made-up certificate: {answer}"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn status(mesh: &Mesh, request: &str) -> anyhow::Result<Option<u16>> {
    Ok(code(&send(mesh, request)?))
}

fn code(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// Sends bytes to the server's proxy, and returns all that comes back.
fn send(mesh: &Mesh, request: &str) -> anyhow::Result<String> {
    netns::within(&mesh.pod("bare")?.network, || async {
        let mut stream = TcpStream::connect((SERVER.pod, PORT)).await?;
        let mut answer = Vec::new();
        let exchange = async {
            // It may be refused before all of it is sent.
            stream.write_all(request.as_bytes()).await.ok();
            stream.read_to_end(&mut answer).await.ok();
        };
        let ended = tokio::time::timeout(LIMIT, exchange).await.is_ok();
        ensure!(ended, "{request:?}: the connection stays open: {}", String::from_utf8_lossy(&answer));
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}
