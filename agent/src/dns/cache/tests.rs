use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record};
use tokio::time::advance;

use super::super::query::{Request, Transport};
use super::*;

fn query(name: &str, id: u16, change: impl FnOnce(&mut Message)) -> Query {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), RecordType::A));
    change(&mut message);
    match Request::read(message.to_vec().unwrap(), Transport::Udp) {
        Request::Query(query) => *query,
        other => panic!("{other:?}"),
    }
}

fn response(name: &str, ttl: Option<u32>, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let name = Name::from_ascii(name).unwrap();
    let mut message = Message::response(0, OpCode::Query);
    message.add_query(Asked::query(name.clone(), RecordType::A));
    if let Some(ttl) = ttl {
        message.add_answer(Record::from_rdata(name, ttl, RData::A(A::new(10, 0, 0, 1))));
    }
    change(&mut message);
    message.to_vec().unwrap()
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let name = |name: &str| Name::from_ascii(name).unwrap();
    let soa = SOA::new(name("ns.example."), name("me.example."), 1, 2, 3, 4, minimum);
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}

fn lifetime_of(ttl: Option<u32>, change: impl FnOnce(&mut Message)) -> Option<u64> {
    lifetime(&response("a.example.", ttl, change)).map(|fresh| fresh.as_secs())
}

#[test]
fn an_answer_is_kept_for_as_long_as_it_says_up_to_a_limit() {
    assert_eq!(lifetime_of(Some(20), |_| ()), Some(20));
    assert_eq!(lifetime_of(Some(86400), |_| ()), Some(60));
    assert_eq!(lifetime_of(Some(0), |_| ()), None);
    assert_eq!(lifetime_of(Some(20), |message| message.metadata.truncation = true), None);
    let code = |code, authority: Option<Record>| {
        lifetime_of(None, |message| {
            message.metadata.response_code = code;
            message.authorities.extend(authority);
        })
    };
    assert_eq!(code(ResponseCode::NXDomain, Some(soa(30, 3))), Some(3));
    assert_eq!(code(ResponseCode::NXDomain, Some(soa(30, 300))), Some(5));
    assert_eq!(code(ResponseCode::NoError, Some(soa(2, 300))), Some(2));
    assert_eq!(code(ResponseCode::NXDomain, None), None);
    assert_eq!(code(ResponseCode::ServFail, Some(soa(30, 30))), None);
    assert_eq!(lifetime(&[]), None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_back_with_id_case_and_age() {
    let mut cache = Cache::default();
    let first = query("a.example.", 1, |_| ());
    cache.put(Key::of(&first).unwrap(), &response("a.example.", Some(40), |_| ()), Instant::now());
    advance(Duration::from_secs(15)).await;
    let second = query("A.eXample.", 2, |_| ());
    let Some(Cached::Fresh(bytes)) = cache.get(&Key::of(&second).unwrap(), &second, Instant::now()) else {
        panic!();
    };
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.id, 2);
    assert_eq!(message.queries[0].name().to_ascii(), "A.eXample.");
    assert_eq!(message.answers[0].ttl, 25);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_is_stale_then_gone_and_good_for_a_moment_after_a_failure() {
    let mut cache = Cache::default();
    let query = query("a.example.", 1, |_| ());
    let key = Key::of(&query).unwrap();
    cache.put(key.clone(), &response("a.example.", Some(10), |_| ()), Instant::now());
    advance(Duration::from_secs(10)).await;
    let Some(Cached::Stale(bytes)) = cache.get(&key, &query, Instant::now()) else { panic!() };
    assert_eq!(Message::from_vec(&bytes).unwrap().answers[0].ttl, STALE_TTL);
    cache.failed(&key, Instant::now());
    assert!(matches!(cache.get(&key, &query, Instant::now()), Some(Cached::Fresh(_))));
    advance(RETRY).await;
    assert!(matches!(cache.get(&key, &query, Instant::now()), Some(Cached::Stale(_))));
    advance(STALE).await;
    assert_eq!(cache.get(&key, &query, Instant::now()), None);
}

#[test]
fn answers_depend_on_what_the_client_can_do_and_options_are_for_one_client() {
    let plain = Key::of(&query("a.example.", 1, |_| ())).unwrap();
    let with_edns = Key::of(&query("a.example.", 1, |message| message.edns = Some(Edns::new()))).unwrap();
    let with_rd =
        Key::of(&query("a.example.", 1, |message| message.metadata.recursion_desired = true)).unwrap();
    assert!(plain != with_edns && plain != with_rd);
    let mut bytes = query("a.example.", 1, |message| message.edns = Some(Edns::new())).bytes;
    // A cookie.
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&[0, 12]);
    bytes.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    let Request::Query(query) = Request::read(bytes, Transport::Udp) else { panic!() };
    assert_eq!(Key::of(&query), None);
}

#[tokio::test(start_paused = true)]
async fn the_least_used_makes_room() {
    let mut cache = Cache::default();
    for number in 0..ENTRIES + 10 {
        let name = format!("n{number}.example.");
        let key = Key::of(&query(&name, 1, |_| ())).unwrap();
        cache.put(key, &response(&name, Some(40), |_| ()), Instant::now());
        advance(Duration::from_millis(1)).await;
        // The first stays, because it is used.
        let first = query("n0.example.", 1, |_| ());
        assert!(cache.get(&Key::of(&first).unwrap(), &first, Instant::now()).is_some());
    }
    assert_eq!(cache.0.len(), ENTRIES);
    let gone = query("n1.example.", 1, |_| ());
    assert_eq!(cache.get(&Key::of(&gone).unwrap(), &gone, Instant::now()), None);
}
