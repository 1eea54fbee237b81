//! The PROXY protocol: by it a proxy tells first for whom a connection is.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// How version 1 begins, which is a line of text.
const TEXT: &[u8] = b"PROXY ";
/// How version 2 begins, which is binary.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of the fixed part of version 2.
const HEAD: usize = 16;

/// Takes it from the beginning of a connection, if it is there: its version
/// and the address of the client (`v1 192.0.2.1`).
pub(super) async fn take(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let Some(is_text) = begins(stream).await? else { return Ok(None) };
    if is_text {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await?);
        }
        // PROXY TCP4 CLIENT SERVER PORT PORT
        let line = String::from_utf8_lossy(&line);
        return Ok(Some(format!("v1 {}", line.split(' ').nth(2).unwrap_or_default())));
    }
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut rest).await?;
    let client = match rest[..] {
        [a, b, c, d, ..] => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
        _ => String::new(),
    };
    Ok(Some(format!("v2 {client}")))
}

/// Whether a connection begins with it, and if so with text.
async fn begins(stream: &TcpStream) -> io::Result<Option<bool>> {
    let mut first = [0; BINARY.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        let seen = &first[..count];
        let may_be = |start: &[u8]| count > 0 && seen.iter().zip(start).all(|(one, other)| one == other);
        match [(TEXT, true), (BINARY, false)].into_iter().find(|(start, _)| may_be(start)) {
            None => return Ok(None),
            Some((start, is_text)) if count >= start.len() => return Ok(Some(is_text)),
            // The rest is on its way.
            Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// What a proxy of that version sends for a client.
#[must_use]
pub fn header(version: u8, client: std::net::Ipv4Addr) -> Vec<u8> {
    if version == 1 {
        return format!("PROXY TCP4 {client} 192.0.2.80 4000 80\r\n").into_bytes();
    }
    // A connection (PROXY) over TCP and IPv4, with two addresses and two ports.
    let addresses = [&client.octets()[..], &[192, 0, 2, 80], &[15, 160], &[0, 80]].concat();
    [BINARY, &[0x21, 0x11, 0, 12], &addresses].concat()
}
