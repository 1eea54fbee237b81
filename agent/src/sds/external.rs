//! Other servers of secrets in the pod, such as SPIRE's agent: whether there
//! are any is found out at the start, by speaking to their sockets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::config::sds::Sds;
use crate::envoy::bootstrap::late;

/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a server that must be there is waited for: it is another container
/// of the pod, or of the node, which may start later.
const WAIT: Duration = Duration::from_secs(30);
/// Between two looks for it.
const PERIOD: Duration = Duration::from_millis(100);
/// What a client of HTTP/2 begins with: the preface and an empty frame of
/// settings (RFC 9113, 3.4).
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Length of the head of a frame, where its type is in it, and the type of the
/// frame that a server begins with (RFC 9113, 4.1 and 6.5).
const HEAD: usize = 9;
const TYPE: usize = 3;
const SETTINGS: u8 = 4;

/// What other servers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// One of the workload's certificate: the agent asks no CA, and serves files only.
    pub workload: bool,
    /// One of certificates that gateways name `sds://NAME`.
    pub credentials: bool,
}

impl Found {
    /// Tells Envoy, and through it istiod, of them.
    pub fn tell(self, settings: &Sds, bootstrap: &mut serde_json::Value) {
        if self.workload {
            late::files_only(bootstrap, &settings.files);
        }
        if self.credentials {
            late::credentials(bootstrap);
        }
    }
}

/// There is no server where there must be one.
#[derive(Debug, thiserror::Error)]
#[error(
    "no SDS server on {} within {WAIT:?}: {why}; WORKLOAD_IDENTITY_SOCKET_FILE names the socket of a server such as SPIRE's agent: start it, or unset it",
    socket.display()
)]
pub struct Error {
    socket: PathBuf,
    why: String,
}

/// Looks for other servers.
///
/// # Errors
/// When there is none although the socket has a name that is not the agent's.
pub async fn find(settings: &Sds) -> Result<Found, Error> {
    let credentials = is_served(&settings.credentials).await.is_ok();
    if credentials {
        info!(target: "sds", socket = %settings.credentials.display(), "another server has the certificates of gateways");
    }
    let workload = if settings.is_renamed {
        wait(&settings.workload).await?;
        true
    } else {
        is_served(&settings.workload).await.is_ok()
    };
    if workload {
        info!(target: "sds", socket = %settings.workload.display(), "another server has the workload's certificate; serving files only");
    }
    Ok(Found { workload, credentials })
}

async fn wait(socket: &Path) -> Result<(), Error> {
    let end = Instant::now() + WAIT;
    let mut told = false;
    loop {
        let Err(error) = is_served(socket).await else { return Ok(()) };
        let why = error.to_string();
        if Instant::now() >= end {
            return Err(Error { socket: socket.into(), why });
        }
        if !told {
            warn!(target: "sds", socket = %socket.display(), why, limit = ?WAIT, "the SDS server of the workload is not there yet; waiting for it");
            told = true;
        }
        sleep(PERIOD).await;
    }
}

/// Whether somebody speaks HTTP/2 on a socket, as gRPC does.
async fn is_served(socket: &Path) -> io::Result<()> {
    if fs::metadata(socket)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a regular file"));
    }
    let speak = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(HELLO).await?;
        let mut head = [0; HEAD];
        stream.read_exact(&mut head).await?;
        Ok(head[TYPE] == SETTINGS)
    };
    match timeout(ANSWER_TIMEOUT, speak).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/2")),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER_TIMEOUT:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::unix::Access;

    fn settings(dir: &Path) -> Sds {
        Sds {
            workload: dir.join("workload"),
            is_renamed: false,
            files: dir.join("files"),
            credentials: dir.join("credentials"),
            access: Access::Proxy,
            debounce: Duration::ZERO,
            revoked: None,
            key_provider: None,
        }
    }

    /// A server that answers once with those bytes, and then keeps the stream.
    async fn answer(listener: UnixListener, bytes: &[u8]) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut hello = [0; HELLO.len()];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(bytes).await.unwrap();
        }
    }

    #[test]
    fn envoy_is_told_of_them() {
        let told = |found: Found| {
            let mut bootstrap =
                serde_json::json!({"node": {"metadata": {}}, "static_resources": {"clusters": []}});
            found.tell(&settings(Path::new("/d")), &mut bootstrap);
            bootstrap
        };
        let none = told(Found::default());
        assert_eq!(none["node"]["metadata"], serde_json::json!({}));
        let both = told(Found { workload: true, credentials: true });
        let metadata = serde_json::json!({"file-credential": "true", "credential": "true"});
        assert_eq!(both["node"]["metadata"], metadata);
        let cluster = &both["static_resources"]["clusters"][0];
        assert_eq!(cluster["name"], "sds-files-grpc");
        assert!(cluster.to_string().contains("\"path\":\"/d/files\""), "{cluster}");
    }

    const SETTINGS_FRAME: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00";

    #[tokio::test]
    async fn finds_servers_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        assert_eq!(find(&settings).await.unwrap(), Found::default());
        // A file, what a dead process left, and a server of something else.
        fs::write(&settings.workload, "").unwrap();
        drop(UnixListener::bind(&settings.credentials).unwrap());
        assert_eq!(find(&settings).await.unwrap(), Found::default());
        assert!(settings.credentials.exists(), "it is not the agent's to remove");
        fs::remove_file(&settings.workload).unwrap();
        fs::remove_file(&settings.credentials).unwrap();
        let other = UnixListener::bind(&settings.workload).unwrap();
        let real = UnixListener::bind(&settings.credentials).unwrap();
        tokio::select! {
            () = answer(other, b"HTTP/1.1 400 Bad Request\r\n\r\n") => {}
            () = answer(real, SETTINGS_FRAME) => {}
            found = find(&settings) => {
                assert_eq!(found.unwrap(), Found { workload: false, credentials: true });
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_must_be_there_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        settings.is_renamed = true;
        let error = find(&settings).await.unwrap_err().to_string();
        assert!(error.contains("workload within 30s: No such file or directory"), "{error}");
        let path = settings.workload.clone();
        let late = async {
            sleep(Duration::from_secs(5)).await;
            answer(UnixListener::bind(path).unwrap(), SETTINGS_FRAME).await;
        };
        tokio::select! {
            () = late => {}
            found = find(&settings) => assert!(found.unwrap().workload),
        }
    }
}
