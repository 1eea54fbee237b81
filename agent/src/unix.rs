//! Unix sockets for Envoy: HTTP/2 servers that Envoy, under whatever user it
//! runs, can reach.

mod authority;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::tasks::Tasks;
use tokio::net::{UnixListener, UnixStream};

use authority::Lenient;

/// Bytes of one stream, and of all of a connection, that may be on their way.
pub(crate) const WINDOW: u32 = 1 << 20;
/// Largest frame that a peer may send; larger ones cost fewer turns.
pub(crate) const FRAME: u32 = 1 << 18;
/// Envoy opens one stream per secret and one for xDS.
const STREAMS: u32 = 100_000;

/// A socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process serves there.
    #[error("socket {}: another process serves it already; stop it first", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs HTTP/2 connections in a set of tasks.
#[derive(Clone, Debug)]
pub(crate) struct Spawner(pub(crate) Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        drop(self.0.spawn("http2", future));
    }
}

/// Opens a socket, in place of what a process that is gone has left there.
///
/// # Errors
/// When somebody serves it, or the system refuses.
pub async fn listen(path: &Path) -> Result<UnixListener, Error> {
    let io = |source| Error::Io { path: path.into(), source };
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(io)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(Error::InUse(path.into()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(io)?;
    Ok(listener)
}

/// Serves HTTP/2 on a socket until the tasks are stopped.
pub fn serve<S, B>(tasks: &Tasks, name: &'static str, listener: UnixListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let set = tasks.clone();
    let accept = async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(server = name, %error, "accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let service = service.clone();
            let mut server = hyper::server::conn::http2::Builder::new(Spawner(set.clone()));
            server
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_frame_size(FRAME)
                .max_concurrent_streams(STREAMS);
            let connection = server.serve_connection(TokioIo::new(Lenient::new(stream)), service);
            drop(set.spawn(name, async move {
                if let Err(error) = connection.await {
                    tracing::debug!(server = name, %error, "connection");
                }
            }));
        }
    };
    drop(tasks.spawn(name, accept));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_what_a_dead_process_left_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/socket");
        drop(listen(&path).await.unwrap());
        assert!(path.exists());
        let listener = listen(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert!(matches!(listen(&path).await, Err(Error::InUse(_))));
        drop(listener);
    }
}
