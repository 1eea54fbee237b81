use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::super::query::Request;
use super::*;

/// What a server does with the request of that number, from 0 on.
pub(in crate::dns) type Behavior = fn(usize, &Message) -> Vec<Vec<u8>>;

/// A server on this machine.
#[derive(Debug)]
pub(in crate::dns) struct Fake {
    pub(in crate::dns) address: SocketAddr,
    /// Datagrams that it got.
    pub(in crate::dns) datagrams: Arc<AtomicUsize>,
    /// Connections that it got.
    pub(in crate::dns) connections: Arc<AtomicUsize>,
}

impl Fake {
    /// One that does that with datagrams and answers on connections.
    pub(in crate::dns) async fn start(tasks: &Tasks, behavior: Behavior) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let (datagrams, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = datagrams.clone();
        drop(tasks.spawn("fake udp", async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                let message = Message::from_vec(&buffer[..length]).unwrap();
                for answer in behavior(count.fetch_add(1, Ordering::Relaxed), &message) {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        }));
        let count = connections.clone();
        drop(tasks.spawn("fake tcp", async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let length = stream.read_u16().await.unwrap();
                let mut request = vec![0; length.into()];
                stream.read_exact(&mut request).await.unwrap();
                let answer = reply(&Message::from_vec(&request).unwrap(), 100, |_| ());
                stream.write_all(&frame(&answer).unwrap()).await.unwrap();
            }
        }));
        Self { address, datagrams, connections }
    }

    fn count(&self) -> (usize, usize) {
        (self.datagrams.load(Ordering::Relaxed), self.connections.load(Ordering::Relaxed))
    }
}

/// A response with so many addresses.
pub(in crate::dns) fn reply(request: &Message, addresses: u8, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::response(request.metadata.id, OpCode::Query);
    message.add_queries(request.queries.iter().cloned());
    for last in 0..addresses {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
        message.add_answer(Record::from_rdata(request.queries[0].name().clone(), 60, data));
    }
    change(&mut message);
    message.to_vec().unwrap()
}

fn good(_: usize, request: &Message) -> Vec<Vec<u8>> {
    vec![reply(request, 1, |_| ())]
}

fn silent(_: usize, _: &Message) -> Vec<Vec<u8>> {
    Vec::new()
}

fn servfail(_: usize, request: &Message) -> Vec<Vec<u8>> {
    vec![reply(request, 0, |message| message.metadata.response_code = ResponseCode::ServFail)]
}

fn query(size: Option<u16>) -> Query {
    let mut message = Message::new(5, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii("a.example.").unwrap(), RecordType::A));
    if let Some(size) = size {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    match Request::read(message.to_vec().unwrap(), Transport::Udp) {
        Request::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

pub(in crate::dns) fn metrics() -> Arc<Dns> {
    Arc::new(Dns::register(&mut Registry::default()))
}

fn upstream(tasks: &Tasks, is_parallel: bool) -> Upstream {
    Upstream::new(is_parallel, Duration::from_secs(5), tasks.clone(), metrics())
}

fn answers(bytes: Option<Vec<u8>>) -> Option<usize> {
    bytes.map(|bytes| Message::from_vec(&bytes).unwrap().answers.len())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_costs_a_part_of_the_time() {
    let tasks = Tasks::new();
    let (dead, alive) = (Fake::start(&tasks, silent).await, Fake::start(&tasks, good).await);
    let upstream = upstream(&tasks, false);
    let servers = [dead.address, alive.address];
    for _ in 0..8 {
        let start = Instant::now();
        assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &servers).await), Some(1));
        assert!(Instant::now() - start < Duration::from_secs(2));
    }
    assert_eq!(alive.count().0, 8);
    assert_eq!(upstream.metrics.upstream_failures.get(), 0);
    assert_eq!(upstream.metrics.upstream_requests.get(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_lost_datagram_is_sent_again_and_a_late_answer_counts() {
    let tasks = Tasks::new();
    let lossy =
        Fake::start(&tasks, |count, request| if count == 0 { Vec::new() } else { good(count, request) })
            .await;
    let upstream = upstream(&tasks, false);
    assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &[lossy.address]).await), Some(1));
    assert_eq!(lossy.count(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn when_all_are_silent_the_time_is_kept() {
    let tasks = Tasks::new();
    let dead = Fake::start(&tasks, silent).await;
    let upstream = upstream(&tasks, false);
    let start = Instant::now();
    assert_eq!(upstream.ask(&query(None), Transport::Udp, &[dead.address]).await, None);
    let took = Instant::now() - start;
    assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(5100), "{took:?}");
    assert_eq!(dead.count().0, ATTEMPTS);
    assert_eq!(upstream.metrics.upstream_failures.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_listens_nowhere_or_fails_is_left_at_once() {
    let tasks = Tasks::new();
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (failing, alive) = (Fake::start(&tasks, servfail).await, Fake::start(&tasks, good).await);
    let upstream = upstream(&tasks, false);
    let servers = [gone, failing.address, alive.address];
    assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &servers).await), Some(1));
    // Then they come last.
    let before = failing.count().0;
    for _ in 0..5 {
        assert_eq!(
            answers(upstream.ask(&query(None), Transport::Udp, &[failing.address, alive.address]).await),
            Some(1)
        );
    }
    assert!(failing.count().0 <= before + 1);
    // The failure itself comes through when there is nothing else, and nobody is asked twice.
    let before = failing.count().0;
    let answer = upstream.ask(&query(None), Transport::Udp, &[failing.address]).await.unwrap();
    assert!(is_refusal(&answer));
    assert_eq!(failing.count().0, before + 1);
    assert_eq!(upstream.ask(&query(None), Transport::Udp, &[]).await, None);
}

#[tokio::test(start_paused = true)]
async fn all_are_asked_at_once_when_told_so() {
    let tasks = Tasks::new();
    let (dead, alive) = (Fake::start(&tasks, silent).await, Fake::start(&tasks, good).await);
    let upstream = upstream(&tasks, true);
    let start = Instant::now();
    for _ in 0..5 {
        let servers = [dead.address, alive.address];
        assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &servers).await), Some(1));
    }
    assert!(Instant::now() - start < Duration::from_secs(1));
    assert_eq!((dead.count().0, alive.count().0), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn what_answers_another_question_is_not_believed() {
    let tasks = Tasks::new();
    let liar = Fake::start(&tasks, |_, request| {
        let mut other = request.clone();
        other.queries[0].set_name(Name::from_ascii("b.example.").unwrap());
        let mut strange = request.clone();
        strange.metadata.id ^= 1;
        let request_again = request.to_vec().unwrap();
        vec![
            reply(&other, 9, |_| ()),
            reply(&strange, 9, |_| ()),
            vec![0; 3],
            request_again,
            reply(request, 1, |_| ()),
        ]
    })
    .await;
    let upstream = upstream(&tasks, false);
    assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &[liar.address]).await), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_is_fetched_whole_for_clients_that_take_more() {
    let tasks = Tasks::new();
    let cutting = Fake::start(&tasks, |_, request| {
        vec![reply(request, 1, |message| message.metadata.truncation = true)]
    })
    .await;
    let upstream = upstream(&tasks, false);
    assert_eq!(
        answers(upstream.ask(&query(Some(4096)), Transport::Udp, &[cutting.address]).await),
        Some(100)
    );
    assert_eq!(cutting.count(), (1, 1));
    // This one asks again by itself.
    assert_eq!(answers(upstream.ask(&query(None), Transport::Udp, &[cutting.address]).await), Some(1));
    assert_eq!(cutting.count(), (2, 1));
    assert_eq!(answers(upstream.ask(&query(None), Transport::Tcp, &[cutting.address]).await), Some(100));
    assert_eq!(cutting.count(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn sockets_are_few_and_replaced() {
    let tasks = Tasks::new();
    let server = Fake::start(&tasks, good).await;
    let upstream = upstream(&tasks, false);
    for _ in 0..20 {
        upstream.ask(&query(None), Transport::Udp, &[server.address]).await.unwrap();
    }
    let servers = upstream.servers(&[server.address]);
    assert_eq!(servers[0].sockets.count(), 4);
    tokio::time::advance(Duration::from_secs(31)).await;
    upstream.ask(&query(None), Transport::Udp, &[server.address]).await.unwrap();
    assert_eq!(servers[0].sockets.count(), 1);
}
