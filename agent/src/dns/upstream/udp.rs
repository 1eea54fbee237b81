//! Requests as datagrams, on a few sockets per server that live for a while.
//!
//! A guess at an answer has to hit the id, the port and the question: the id is
//! random for each request, the port for each socket, and sockets are replaced.
//! The kernel lets only the server's own datagrams through.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use runtime::tasks::Tasks;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::trace;

use super::super::packet::set_id;
use super::super::query::Query;
use super::{Error, is_answer};

/// Sockets per server in use at once.
const SOCKETS: usize = 4;
/// How long requests are sent from one socket.
const LIFETIME: Duration = Duration::from_secs(30);
/// How long it then still waits for answers.
const LINGER: Duration = Duration::from_secs(10);
/// Longest datagram.
const LONGEST: usize = 65535;

/// A request that waits.
#[derive(Debug)]
struct Waiting {
    question: Box<[u8]>,
    answer: oneshot::Sender<Result<Vec<u8>, Error>>,
}

#[derive(Debug)]
struct Socket {
    udp: UdpSocket,
    waiting: Mutex<HashMap<u16, Waiting>>,
    born: Instant,
}

/// The sockets of one server.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Arc<Socket>>>);

/// Takes the request back when nobody waits for it any more.
struct Entry<'a> {
    socket: &'a Socket,
    id: u16,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.socket.waiting().remove(&self.id);
    }
}

impl Sockets {
    /// Asks; the caller limits the time.
    pub(super) async fn ask(
        &self,
        server: SocketAddr,
        query: &Query,
        tasks: &Tasks,
    ) -> Result<Vec<u8>, Error> {
        let socket = match self.pick() {
            Some(socket) => socket,
            None => self.open(server, tasks).await?,
        };
        let (answer, answered) = oneshot::channel();
        let id = socket.register(query.question_bytes(), answer);
        let _entry = Entry { socket: &socket, id };
        let mut request = query.bytes.clone();
        set_id(&mut request, id);
        socket.udp.send(&request).await?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// One of those there are, unless there may be another.
    fn pick(&self) -> Option<Arc<Socket>> {
        let mut sockets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        sockets.retain(|socket| now - socket.born < LIFETIME);
        if sockets.len() < SOCKETS {
            return None;
        }
        sockets.choose(&mut rand::rng()).cloned()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn open(&self, server: SocketAddr, tasks: &Tasks) -> Result<Arc<Socket>, Error> {
        let any = match server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let udp = UdpSocket::bind((any, 0)).await?;
        udp.connect(server).await?;
        let socket = Arc::new(Socket { udp, waiting: Mutex::default(), born: Instant::now() });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(socket.clone());
        drop(tasks.spawn("dns upstream", socket.clone().receive()));
        Ok(socket)
    }
}

impl Socket {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a request an id that no other has.
    fn register(&self, question: &[u8], answer: oneshot::Sender<Result<Vec<u8>, Error>>) -> u16 {
        let mut waiting = self.waiting();
        // The bound on requests at once is far below the number of ids.
        let id = loop {
            let id = rand::random();
            if !waiting.contains_key(&id) {
                break id;
            }
        };
        waiting.insert(id, Waiting { question: question.into(), answer });
        id
    }

    /// Takes answers in until the socket is old and nobody waits.
    async fn receive(self: Arc<Self>) {
        let old = self.born + LIFETIME;
        loop {
            let end = if self.waiting().is_empty() { old } else { old + LINGER };
            tokio::select! {
                readable = self.udp.readable() => if readable.is_err() { break },
                () = sleep_until(end) => {
                    if self.waiting().is_empty() || Instant::now() >= old + LINGER {
                        break;
                    }
                    continue;
                }
            }
            // Only for as long as it is needed: sockets wait most of the time.
            let mut buffer = Vec::with_capacity(LONGEST);
            match self.udp.try_recv_buf(&mut buffer) {
                Ok(_) => self.accept(&buffer),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // Such as "nobody listens there", which is for all that wait.
                Err(error) => {
                    for (_, waiting) in self.waiting().drain() {
                        let error = std::io::Error::from(error.kind());
                        waiting.answer.send(Err(error.into())).ok();
                    }
                }
            }
        }
        self.waiting().clear();
    }

    fn accept(&self, bytes: &[u8]) {
        let Some(id) = bytes.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        let mut waiting = self.waiting();
        if waiting.get(&id).is_some_and(|waiting| is_answer(&waiting.question, bytes)) {
            if let Some(waiting) = waiting.remove(&id) {
                waiting.answer.send(Ok(bytes.to_vec())).ok();
            }
        } else {
            trace!(target: "dns", id, "a datagram that answers nothing");
        }
    }
}
