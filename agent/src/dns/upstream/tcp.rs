//! One request on a connection of its own.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::packet::set_id;
use super::super::query::Query;
use super::{Error, is_answer};

/// Asks; the caller limits the time.
pub(super) async fn ask(server: SocketAddr, query: &Query) -> Result<Vec<u8>, Error> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random();
    let mut request = frame(&query.bytes).ok_or(Error::Strange)?;
    set_id(&mut request[2..], id);
    stream.write_all(&request).await?;
    let length = usize::from(stream.read_u16().await?);
    // Grows with what comes, not with what is announced.
    let mut answer = Vec::new();
    (&mut stream).take(length as u64).read_to_end(&mut answer).await?;
    if answer.len() < length || answer.first_chunk() != Some(&u16::to_be_bytes(id)) {
        return Err(Error::Strange);
    }
    if !is_answer(query.question_bytes(), &answer) {
        return Err(Error::Strange);
    }
    Ok(answer)
}

/// A message with its length before it; `None` when it is too long for that.
pub(in crate::dns) fn frame(message: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    Some(framed)
}
