use std::process::Stdio;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::answer::tests::{names, request};
use super::upstream::tests::{Fake, metrics, reply};
use super::*;

fn settings(listen: Listen) -> Settings {
    Settings {
        listen,
        namespace: "ns1".into(),
        domain: "ns1.svc.cluster.local".into(),
        is_parallel: false,
        timeout: Duration::from_secs(5),
        before_table: BeforeTable::Refuse,
        resolv_conf: "/nonexistent".into(),
    }
}

struct Rig {
    address: SocketAddr,
    view: View,
    names: watch::Sender<Option<Arc<NameTable>>>,
    tasks: Tasks,
}

async fn rig() -> Rig {
    let tasks = Tasks::new();
    let server = Fake::start(&tasks, |_, request| vec![reply(request, 1, |_| ())]).await;
    let (sender, receiver) = watch::channel(None);
    let conf = ResolvConf { servers: vec![server.address], search: Some("ns1.svc.cluster.local".into()) };
    let settings = settings(Listen::Localhost(0));
    let conf = Watched::fixed(conf);
    let view = View::new(&settings, receiver.clone());
    let addresses = start_with(&settings, conf, receiver, &tasks, metrics()).await.unwrap();
    Rig { address: addresses[0], view, names: sender, tasks }
}

impl Rig {
    async fn udp(&self, bytes: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(bytes, self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }
}

async fn on(stream: &mut TcpStream, bytes: &[u8]) -> Message {
    stream.write_all(&upstream::frame(bytes).unwrap()).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test]
async fn datagrams_and_connections_are_answered() {
    let rig = rig().await;
    assert_eq!(rig.view.json(), None);
    let known = request("productpage.", RecordType::A, |_| ());
    let unknown = request("www.bing.com.", RecordType::A, |_| ());
    let code = rig.udp(&known).await.metadata.response_code;
    assert_eq!(code, hickory_proto::op::ResponseCode::ServFail);

    rig.names.send_replace(Some(Arc::new(names())));
    assert!(rig.view.json().unwrap().contains("\"productpage.\""));
    tokio::task::yield_now().await;
    for bytes in [&known, &unknown] {
        assert_eq!(rig.udp(bytes).await.answers.len(), 1);
    }
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(on(&mut stream, &known).await.answers.len(), 1);
    // Servers say more on a connection, which is what the client gets.
    let other = request("www.example.org.", RecordType::A, |_| ());
    assert_eq!(on(&mut stream, &other).await.answers.len(), 100);
    // What is too long to be a request ends the connection.
    stream.write_all(&[0xff, 0xff]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(rig.tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (_sender, names) = watch::channel(None);
    let settings = settings(Listen::Address(address));
    let conf = Watched::fixed(ResolvConf::default());
    let error = start_with(&settings, conf, names, &Tasks::new(), metrics()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("DNS proxy: listen on {address}/tcp; choose another address by DNS_PROXY_ADDR")
    );
}

#[tokio::test]
async fn without_resolv_conf_there_is_no_start() {
    let (_sender, names) = watch::channel(None);
    let error = start(&settings(Listen::Localhost(0)), names, &Tasks::new(), metrics()).await.unwrap_err();
    assert_eq!(error.to_string(), "DNS proxy: read /nonexistent");
}

#[test]
fn localhost_is_of_the_families_of_the_servers() {
    let listen = |servers: &[&str]| {
        let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
        addresses(Listen::Localhost(15053), &ResolvConf { servers, search: None })
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(listen(&["10.0.0.1:53"]), ["127.0.0.1:15053"]);
    assert_eq!(listen(&["[fd00::1]:53"]), ["[::1]:15053"]);
    assert_eq!(listen(&["[fd00::1]:53", "10.0.0.1:53"]), ["127.0.0.1:15053", "[::1]:15053"]);
    assert_eq!(listen(&[]), ["127.0.0.1:15053"]);
}

/// What `dig` prints, sorted; `None` where there is no `dig`.
async fn dig(server: SocketAddr, args: &[&str]) -> Option<Vec<String>> {
    let mut command = tokio::process::Command::new("dig");
    command.args(["@127.0.0.1", "-p", &server.port().to_string(), "+short", "+tries=1", "+time=5"]);
    let output = match command.args(args).stdin(Stdio::null()).output().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    Some(lines)
}

#[tokio::test]
async fn dig_understands_the_answers() {
    let rig = rig().await;
    rig.names.send_replace(Some(Arc::new(names())));
    tokio::task::yield_now().await;
    for (args, expected) in [
        (&["foo.wildcard"][..], &["10.10.10.10"][..]),
        (&["+tcp", "foo.wildcard.ns1.svc.cluster.local"], &["10.10.10.10", "foo.wildcard."]),
        (&["AAAA", "dual.localhost"], &["2001:db8::ff00:42:8329"]),
        (&["AAAA", "ipv4.localhost"], &[]),
        (
            &["+noedns", "details.ns2.svc.cluster.remote"],
            &["11.11.11.11", "12.12.12.12", "13.13.13.13", "14.14.14.14"],
        ),
        (
            &["SRV", "_sql._tcp.db"],
            &["0 100 15432 db-0.db.ns1.svc.cluster.local.", "0 100 15432 db-1.db.ns1.svc.cluster.local."],
        ),
        (&["-x", "9.9.9.9"], &["productpage.ns1.svc.cluster.local."]),
        (&["www.bing.com"], &["192.0.2.0"]),
    ] {
        match dig(rig.address, args).await {
            Some(lines) => assert_eq!(lines, expected, "{args:?}"),
            None => eprintln!("there is no dig (package bind9-dnsutils): left out"),
        }
    }
}
