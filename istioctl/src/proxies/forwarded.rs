//! A port that is forwarded through an API server: what the kubelet says of a failure
//! comes beside the data, after the connection is made.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::FusedFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Says why a port is of no use, if it is of none.
type Why = Pin<Box<dyn FusedFuture<Output = Option<String>> + Send>>;

/// The stream of a port.
pub(super) struct Forwarded {
    pub(super) stream: DuplexStream,
    pub(super) why: Why,
    /// What it is, for errors.
    pub(super) place: String,
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_over = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if (read.is_pending() || is_over && buffer.remaining() > 0)
            && !self.why.is_terminated()
            && let Poll::Ready(Some(why)) = self.why.as_mut().poll(context)
        {
            return Poll::Ready(Err(io::Error::other(format!("{}: {}", self.place, why.trim()))));
        }
        read
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
