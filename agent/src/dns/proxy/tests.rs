use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::super::answer::tests::{names, request};
use super::super::resolv_conf::ResolvConf;
use super::super::upstream::tests::{Behavior, Fake, metrics, reply};
use super::super::{Listen, Names};
use super::*;

fn settings(before_table: BeforeTable) -> Settings {
    Settings {
        listen: Listen::Localhost(0),
        namespace: "ns1".into(),
        domain: "ns1.svc.cluster.local".into(),
        is_parallel: false,
        timeout: Duration::from_secs(5),
        before_table,
        resolv_conf: "/nonexistent".into(),
    }
}

struct Rig {
    proxy: Proxy,
    server: Fake,
    tables: watch::Sender<Option<Arc<Table>>>,
}

async fn rig(before_table: BeforeTable, behavior: Behavior) -> Rig {
    let tasks = Tasks::new();
    let server = Fake::start(&tasks, behavior).await;
    let table = Table::new(Arc::new(names()), "ns1", "ns1.svc.cluster.local");
    let (tables, receiver) = watch::channel(Some(Arc::new(table)));
    let conf = ResolvConf { servers: vec![server.address], search: Some("ns1.svc.cluster.local".into()) };
    let conf = Watched::fixed(conf);
    let proxy = Proxy::new(&settings(before_table), conf, Vec::new(), receiver, tasks, metrics());
    Rig { proxy, server, tables }
}

impl Rig {
    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let bytes = match self.proxy.decide(request(name, kind, |_| ()), Transport::Udp) {
            Decision::Reply(bytes) => bytes,
            Decision::Forward(forward) => self.proxy.forward(forward).await,
            Decision::Ignore => panic!("ignored"),
        };
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.id, 77);
        message
    }

    fn asked(&self) -> usize {
        self.server.datagrams.load(std::sync::atomic::Ordering::Relaxed)
    }
}

fn good(_: usize, request: &Message) -> Vec<Vec<u8>> {
    vec![reply(request, 1, |_| ())]
}

#[tokio::test(start_paused = true)]
async fn what_the_table_does_not_have_is_asked_of_others_once() {
    let rig = rig(BeforeTable::Refuse, good).await;
    assert_eq!(rig.ask("productpage.", RecordType::A).await.answers.len(), 1);
    assert_eq!(rig.asked(), 0);
    for _ in 0..3 {
        assert_eq!(rig.ask("www.bing.com.", RecordType::A).await.answers.len(), 1);
    }
    assert_eq!(rig.asked(), 1);
    assert_eq!(rig.proxy.metrics.requests.get(), 4);
    assert_eq!(rig.proxy.metrics.upstream_requests.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_known_host_is_never_said_not_to_exist() {
    let rig = rig(BeforeTable::Refuse, |_, request| {
        vec![reply(request, 0, |message| message.metadata.response_code = ResponseCode::NXDomain)]
    })
    .await;
    for (name, kind, code) in [
        ("www.google.com.", RecordType::TXT, ResponseCode::NoError),
        ("_http._tcp.example.ns2.", RecordType::SRV, ResponseCode::NoError),
        ("www.bing.com.", RecordType::TXT, ResponseCode::NXDomain),
    ] {
        assert_eq!(rig.ask(name, kind).await.metadata.response_code, code, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn before_the_first_table_requests_fail_or_are_passed_on() {
    for (before, code) in
        [(BeforeTable::Refuse, ResponseCode::ServFail), (BeforeTable::Forward, ResponseCode::NoError)]
    {
        let rig = rig(before, good).await;
        rig.tables.send_replace(None);
        assert_eq!(rig.ask("productpage.", RecordType::A).await.metadata.response_code, code);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_used_when_nobody_answers() {
    let rig =
        rig(BeforeTable::Refuse, |count, request| if count == 0 { good(0, request) } else { Vec::new() })
            .await;
    rig.ask("www.bing.com.", RecordType::A).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    let start = Instant::now();
    let old = rig.ask("www.bing.com.", RecordType::A).await;
    assert_eq!((old.answers.len(), old.answers[0].ttl), (1, 30));
    assert_eq!(Instant::now() - start, PATIENCE);
    // Not everybody waits that long.
    let start = Instant::now();
    assert_eq!(rig.ask("www.bing.com.", RecordType::A).await.answers.len(), 1);
    assert_eq!(Instant::now() - start, Duration::ZERO);
    assert_eq!(rig.proxy.metrics.stale.get(), 1);
    // Nothing old, nothing new.
    let failed = rig.ask("www.example.org.", RecordType::A).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test(start_paused = true)]
async fn too_many_at_once_fail_at_once() {
    let rig = rig(BeforeTable::Refuse, |_, _| Vec::new()).await;
    let ask = |number: usize| {
        rig.proxy.decide(request(&format!("n{number}.example."), RecordType::A, |_| ()), Transport::Udp)
    };
    let waiting: Vec<Decision> = (0..WAITING).map(ask).collect();
    assert!(waiting.iter().all(|decision| matches!(decision, Decision::Forward(_))));
    assert!(matches!(ask(WAITING), Decision::Reply(_)));
    drop(waiting);
    assert!(matches!(ask(WAITING), Decision::Forward(_)));
}

#[tokio::test]
async fn names_outlive_who_sent_them() {
    let (sender, names): (_, Names) = watch::channel(Some(Arc::new(names())));
    let (tables_tx, tables) = watch::channel(None);
    drop(sender);
    super::super::follow(names, tables_tx, "ns1".into(), "ns1.svc.cluster.local".into()).await;
    assert!(tables.borrow().is_some());
}
