use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Only keeps a broken server from hanging the tests.
const PATIENCE: Duration = Duration::from_secs(120);
const LONG: Duration = Duration::from_secs(3600);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A server that answers with that many bytes.
async fn server(tasks: &Tasks, limits: Limits, size: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = Bytes::from(vec![b'x'; size]);
    serve_within(limits, tasks, "test", listener, move |_, _| {
        let body = body.clone();
        async move { text(StatusCode::OK, body) }
    });
    address
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}

/// Asks on a new connection and reads the answer's first line.
async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut line = [0; 15];
    stream.read_exact(&mut line).await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    let tasks = Tasks::new();
    let address = server(&tasks, Limits { connections: 4, head: LONG, stall: LONG }, 2).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
        assert_eq!(soon(ask(address)).await, "HTTP/1.1 200 OK");
    }
    // The first has made room for a later one.
    assert_eq!(soon(silent[0].read(&mut [0])).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn clients_that_never_read_keep_nobody_out() {
    let tasks = Tasks::new();
    let address = server(&tasks, Limits { connections: 4, head: LONG, stall: LONG }, 1 << 20).await;
    let mut greedy = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&REQUEST.repeat(100)).await.unwrap();
        greedy.push(stream);
        assert_eq!(soon(ask(address)).await, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn a_response_that_is_not_read_ends_the_connection() {
    let tasks = Tasks::new();
    let limits = Limits { stall: Duration::from_millis(50), ..LIMITS };
    let address = server(&tasks, limits, 64 << 20).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    soon(async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_head_that_does_not_end_ends_the_connection() {
    let tasks = Tasks::new();
    let address = server(&tasks, Limits { head: Duration::from_millis(50), ..LIMITS }, 2).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    soon(stream.read_to_end(&mut Vec::new())).await.ok();
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let tasks = Tasks::new();
    let address = server(&tasks, Limits { head: LONG, ..LIMITS }, 2).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let head = [REQUEST.trim_ascii_end(), b"\r\na: ", &[b'x'; 2 * MAX_HEAD]].concat();
    let mut answer = Vec::new();
    // The server does not read all of it.
    let sent = async { drop(write.write_all(&head).await) };
    let (_, read) = soon(async { tokio::join!(sent, read.read_to_end(&mut answer)) }).await;
    assert!(read.is_err() || answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
}
