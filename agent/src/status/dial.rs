//! Connections of probes to the application beside the agent. They come from an
//! address of their own, which the redirection of the pod leaves alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// Source of probes over IPv4, and of what Envoy passes on to the application;
/// all of 127.0.0.0/8 is on the loopback interface.
pub(super) const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
/// Source of probes over IPv6.
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// No connection to the application.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source address is not there.
    #[error("source address {address}: {source}; istio-init gives it to the loopback interface")]
    Source {
        /// The address.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// The name leads nowhere.
    #[error("{host}: {source}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It does not accept.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Its address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Connects to a port of this pod.
///
/// The kubelet sets `SO_LINGER` to one second on such sockets. Linux does not
/// shorten `TIME_WAIT` by it, but lets `close` wait, and with it the agent's
/// only thread: it is left as it is.
///
/// # Errors
/// When there is no source address, or nobody accepts.
pub async fn pod(ip: IpAddr, port: u16) -> Result<TcpStream, Error> {
    let address = SocketAddr::new(ip, port);
    let connect = |source| Error::Connect { address, source };
    let (socket, from) = match ip {
        IpAddr::V4(_) => (TcpSocket::new_v4(), SOURCE_V4),
        IpAddr::V6(_) => (TcpSocket::new_v6(), SOURCE_V6),
    };
    let socket = socket.map_err(connect)?;
    socket.bind(SocketAddr::new(from, 0)).map_err(|source| Error::Source { address: from, source })?;
    socket.connect(address).await.map_err(connect)
}

/// Connects to a port of this pod under the name localhost: over IPv4, or else IPv6.
///
/// # Errors
/// When nobody accepts.
pub async fn localhost(port: u16) -> Result<TcpStream, Error> {
    match pod(Ipv4Addr::LOCALHOST.into(), port).await {
        Ok(stream) => Ok(stream),
        Err(error) => pod(Ipv6Addr::LOCALHOST.into(), port).await.map_err(|_| error),
    }
}

/// Connects to a host that is not this pod, from whatever address.
///
/// # Errors
/// When the name leads nowhere, or nobody accepts.
pub async fn other(host: &str, port: u16) -> Result<TcpStream, Error> {
    let name = |source| Error::Name { host: host.to_owned(), source };
    let mut last = None;
    for address in lookup_host((host, port)).await.map_err(name)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(Error::Connect { address, source }),
        }
    }
    Err(last.unwrap_or_else(|| name(io::ErrorKind::NotFound.into())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn comes_from_an_address_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = localhost(port).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(peer.ip(), SOURCE_V4);
    }

    #[tokio::test]
    async fn says_who_does_not_accept() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let error = localhost(port).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("connect to 127.0.0.1:{port}: ")), "{error}");
        assert!(other("name.invalid", 1).await.unwrap_err().to_string().starts_with("name.invalid: "));
    }
}
