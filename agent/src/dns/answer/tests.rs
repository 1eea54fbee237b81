use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::DNSClass;
use proptest::prelude::*;
use proto::istio::networking::nds::v1::NameTable;
use proto::istio::networking::nds::v1::name_table::{NameInfo, Port};

use super::super::query::{Request, Transport};
use super::super::table::tests::table as names_of;
use super::*;

const EXTERNAL: [&str; 3] = ["External", "", ""];
const SEARCH: &str = "ns1.svc.cluster.local";

fn kubernetes<'a>(name: &'a str, namespace: &'a str) -> [&'a str; 3] {
    ["Kubernetes", name, namespace]
}

/// What the names of a mesh may be.
pub(in crate::dns) fn names() -> NameTable {
    let mut names = names_of(&[
        ("www.google.com", EXTERNAL, &["1.1.1.1"]),
        ("productpage.ns1.svc.cluster.local", kubernetes("productpage", "ns1"), &["9.9.9.9"]),
        ("example.ns2.svc.cluster.local", kubernetes("example", "ns2"), &["10.10.10.10"]),
        (
            "details.ns2.svc.cluster.remote",
            kubernetes("details", "ns2"),
            &["11.11.11.11", "12.12.12.12", "13.13.13.13", "14.14.14.14"],
        ),
        ("svc-with-alt.ns1.svc.cluster.local", kubernetes("svc-with-alt", "ns1"), &["15.15.15.15"]),
        ("ipv6.localhost", EXTERNAL, &["2001:db8:0:0:0:ff00:42:8329"]),
        ("dual.localhost", EXTERNAL, &["2.2.2.2", "2001:db8:0:0:0:ff00:42:8329"]),
        ("ipv4.localhost", EXTERNAL, &["2.2.2.2"]),
        ("*.b.wildcard", EXTERNAL, &["11.11.11.11"]),
        ("*.wildcard", EXTERNAL, &["10.10.10.10"]),
        ("*.svc.mesh.company.net", EXTERNAL, &["10.1.2.3"]),
        ("example.localhost.", EXTERNAL, &["3.3.3.3"]),
        ("db.ns1.svc.cluster.local", kubernetes("db", "ns1"), &["10.1.0.1", "10.1.0.2"]),
        ("db-0.db.ns1.svc.cluster.local", kubernetes("db-0.db", "ns1"), &["10.1.0.1"]),
        ("db-1.db.ns1.svc.cluster.local", kubernetes("db-1.db", "ns1"), &["10.1.0.2"]),
    ]);
    let mut change = |name: &str, change: &dyn Fn(&mut NameInfo)| change(names.table.get_mut(name).unwrap());
    change("svc-with-alt.ns1.svc.cluster.local", &|info| {
        info.alt_hosts = vec!["svc-with-alt.ns1.svc.clusterset.local".into()];
    });
    let port =
        |name: &str, number, protocol: &str| Port { name: name.into(), number, protocol: protocol.into() };
    let ports = vec![port("http", 9080, "TCP"), port("dns", 53, "UDP")];
    change("productpage.ns1.svc.cluster.local", &|info| info.ports = ports.clone());
    change("db.ns1.svc.cluster.local", &|info| info.ports = vec![port("sql", 15432, "TCP")]);
    change("*.wildcard", &|info| info.ports = vec![port("http", 80, "TCP")]);
    names
}

pub(in crate::dns) fn request(name: &str, kind: RecordType, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    change(&mut message);
    message.to_vec().unwrap()
}

fn ask_with(names: NameTable, bytes: Vec<u8>) -> Answer {
    let Request::Query(query) = Request::read(bytes, Transport::Tcp) else { panic!() };
    answer(&Table::new(Arc::new(names), "ns1", "ns1.svc.cluster.local"), &query, Some(SEARCH))
}

/// The records of an answer as text; `None` when the table does not know.
fn ask(name: &str, kind: RecordType) -> Option<Vec<String>> {
    let Answer::Known(bytes) = ask_with(names(), request(name, kind, |_| ())) else { return None };
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.metadata.authoritative && message.metadata.recursion_desired);
    assert!(message.answers.iter().all(|record| record.ttl == TTL && record.dns_class == DNSClass::IN));
    let mut records: Vec<String> = message
        .answers
        .iter()
        .chain(&message.additionals)
        .map(|record| format!("{} {} {}", record.name.to_ascii(), record.record_type(), record.data))
        .collect();
    // An alias stands first; the rest is in any order.
    let rest = usize::from(records.first().is_some_and(|record| record.contains(" CNAME ")));
    records[rest..].sort();
    Some(records)
}

#[test]
fn addresses_are_answered_for_every_form_of_a_name() {
    for (name, expected) in [
        ("www.google.com.", Some(vec!["www.google.com. A 1.1.1.1"])),
        (
            "www.google.com.ns1.svc.cluster.local.",
            Some(vec![
                "www.google.com.ns1.svc.cluster.local. CNAME www.google.com.",
                "www.google.com. A 1.1.1.1",
            ]),
        ),
        ("www.bing.com.", None),
        ("productpage.ns1.svc.cluster.local.", Some(vec!["productpage.ns1.svc.cluster.local. A 9.9.9.9"])),
        ("PRODUCTpage.ns1.", Some(vec!["PRODUCTpage.ns1. A 9.9.9.9"])),
        // The search domain behind a name that is in it already.
        ("productpage.ns1.svc.cluster.local.ns1.svc.cluster.local.", None),
        ("productpage.", Some(vec!["productpage. A 9.9.9.9"])),
        (
            "productpage.ns1.ns1.svc.cluster.local.",
            Some(vec![
                "productpage.ns1.ns1.svc.cluster.local. CNAME productpage.ns1.",
                "productpage.ns1. A 9.9.9.9",
            ]),
        ),
        ("example.ns2.", Some(vec!["example.ns2. A 10.10.10.10"])),
        ("example.ns2.svc.", Some(vec!["example.ns2.svc. A 10.10.10.10"])),
        ("example.ns2.svc.cluster.local.", Some(vec!["example.ns2.svc.cluster.local. A 10.10.10.10"])),
        ("example.", None),
        ("svc-with-alt.", Some(vec!["svc-with-alt. A 15.15.15.15"])),
        (
            "svc-with-alt.ns1.svc.clusterset.local.",
            Some(vec!["svc-with-alt.ns1.svc.clusterset.local. A 15.15.15.15"]),
        ),
        (
            "details.ns2.svc.cluster.remote.",
            Some(vec![
                "details.ns2.svc.cluster.remote. A 11.11.11.11",
                "details.ns2.svc.cluster.remote. A 12.12.12.12",
                "details.ns2.svc.cluster.remote. A 13.13.13.13",
                "details.ns2.svc.cluster.remote. A 14.14.14.14",
            ]),
        ),
        ("details.ns2.", None),
        ("dual.localhost.", Some(vec!["dual.localhost. A 2.2.2.2"])),
        ("foo.wildcard.", Some(vec!["foo.wildcard. A 10.10.10.10"])),
        ("a.b.wildcard.", Some(vec!["a.b.wildcard. A 11.11.11.11"])),
        ("b.wildcard.", Some(vec!["b.wildcard. A 10.10.10.10"])),
        ("wildcard.", None),
        (
            "foo.wildcard.ns1.svc.cluster.local.",
            Some(vec![
                "foo.wildcard.ns1.svc.cluster.local. CNAME foo.wildcard.",
                "foo.wildcard. A 10.10.10.10",
            ]),
        ),
        ("foo.svc.mesh.company.net.", Some(vec!["foo.svc.mesh.company.net. A 10.1.2.3"])),
        ("foo.foons.svc.mesh.company.net.", Some(vec!["foo.foons.svc.mesh.company.net. A 10.1.2.3"])),
        ("example.localhost.", Some(vec!["example.localhost. A 3.3.3.3"])),
        ("db.", Some(vec!["db. A 10.1.0.1", "db. A 10.1.0.2"])),
        ("db-1.db.", Some(vec!["db-1.db. A 10.1.0.2"])),
        (".", None),
    ] {
        let expected = expected.map(|records| records.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(ask(name, RecordType::A), expected, "{name}");
    }
}

#[test]
fn a_known_host_without_the_type_gets_an_empty_answer() {
    assert_eq!(
        ask("dual.localhost.", RecordType::AAAA).unwrap(),
        ["dual.localhost. AAAA 2001:db8::ff00:42:8329"]
    );
    for (name, kind) in [
        ("productpage.ns1.ns1.svc.cluster.local.", RecordType::AAAA),
        ("ipv6.localhost.", RecordType::A),
        ("ipv4.localhost.", RecordType::AAAA),
        ("foo.wildcard.", RecordType::AAAA),
    ] {
        assert_eq!(ask(name, kind), Some(Vec::new()), "{name}");
    }
}

#[test]
fn other_types_of_a_known_host_and_other_classes_are_elsewhere() {
    let kinds = [RecordType::TXT, RecordType::MX, RecordType::HTTPS, RecordType::ANY, RecordType::CNAME];
    for kind in kinds {
        assert_eq!(ask_with(names(), request("productpage.", kind, |_| ())), Answer::Elsewhere);
    }
    let chaos = request("productpage.", RecordType::A, |message| {
        message.queries[0].set_query_class(DNSClass::CH);
    });
    assert_eq!(ask_with(names(), chaos), Answer::Unknown);
}

#[test]
fn services_are_answered_with_ports_targets_and_their_addresses() {
    assert_eq!(
        ask("_http._tcp.productpage.ns1.svc.cluster.local.", RecordType::SRV).unwrap(),
        [
            "_http._tcp.productpage.ns1.svc.cluster.local. SRV 0 100 9080 productpage.ns1.svc.cluster.local.",
            "productpage.ns1.svc.cluster.local. A 9.9.9.9",
        ]
    );
    assert_eq!(
        ask("_SQL._tcp.db.", RecordType::SRV).unwrap(),
        [
            "_SQL._tcp.db. SRV 0 100 15432 db-0.db.ns1.svc.cluster.local.",
            "_SQL._tcp.db. SRV 0 100 15432 db-1.db.ns1.svc.cluster.local.",
            "db-0.db.ns1.svc.cluster.local. A 10.1.0.1",
            "db-1.db.ns1.svc.cluster.local. A 10.1.0.2",
        ]
    );
    assert_eq!(
        ask("_http._tcp.x.wildcard.", RecordType::SRV).unwrap(),
        ["_http._tcp.x.wildcard. SRV 0 100 80 x.wildcard.", "x.wildcard. A 10.10.10.10"]
    );
    assert_eq!(
        ask("_dns._udp.productpage.ns1.ns1.svc.cluster.local.", RecordType::SRV).unwrap(),
        [
            "_dns._udp.productpage.ns1.ns1.svc.cluster.local. CNAME _dns._udp.productpage.ns1.",
            "_dns._udp.productpage.ns1. SRV 0 100 53 productpage.ns1.svc.cluster.local.",
            "productpage.ns1.svc.cluster.local. A 9.9.9.9",
        ]
    );
    // All ports of a host.
    assert_eq!(ask("productpage.", RecordType::SRV).unwrap().len(), 3);
    // No such port, or of the other protocol.
    assert_eq!(ask("_grpc._tcp.productpage.", RecordType::SRV), Some(Vec::new()));
    assert_eq!(ask("_http._udp.productpage.", RecordType::SRV), Some(Vec::new()));
    // Istio's istiod says nothing of ports.
    assert_eq!(
        ask_with(names(), request("_http._tcp.example.ns2.", RecordType::SRV, |_| ())),
        Answer::Elsewhere
    );
    assert_eq!(ask("_http._tcp.www.bing.com.", RecordType::SRV), None);
}

#[test]
fn addresses_of_the_table_have_names() {
    for (name, expected) in [
        ("2.0.1.10.in-addr.arpa.", Some("db-1.db.ns1.svc.cluster.local.")),
        ("9.9.9.9.IN-ADDR.arpa.", Some("productpage.ns1.svc.cluster.local.")),
        (
            "9.2.3.8.2.4.0.0.0.0.f.f.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            Some("ipv6.localhost."),
        ),
        ("1.0.0.127.in-addr.arpa.", None),
        ("9.9.9.in-addr.arpa.", None),
        ("x.9.9.9.in-addr.arpa.", None),
        ("arpa.", None),
    ] {
        let expected = expected.map(|target| vec![format!("{name} PTR {target}")]);
        assert_eq!(ask(name, RecordType::PTR), expected, "{name}");
    }
}

#[test]
fn addresses_come_in_any_order() {
    let bytes = || request("details.ns2.svc.cluster.remote.", RecordType::A, |_| ());
    let firsts: std::collections::BTreeSet<String> = (0..200)
        .filter_map(|_| match ask_with(names(), bytes()) {
            Answer::Known(bytes) => Some(Message::from_vec(&bytes).unwrap().answers[0].data.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(firsts.len(), 4);
}

#[test]
fn a_long_answer_is_cut_to_what_the_client_takes() {
    let ips: Vec<String> = (0..200).map(|last| format!("10.0.0.{last}")).collect();
    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
    let names = names_of(&[("many.example", EXTERNAL, &ips)]);
    for (size, transport) in [(None, Transport::Udp), (Some(1232), Transport::Udp), (None, Transport::Tcp)] {
        let bytes = request("many.example.", RecordType::A, |message| {
            if let Some(size) = size {
                message.set_edns(Edns::new());
                message.edns.as_mut().unwrap().set_max_payload(size);
            }
        });
        let Request::Query(query) = Request::read(bytes, transport) else { panic!() };
        let table = Table::new(Arc::new(names.clone()), "ns1", "ns1.svc.cluster.local");
        let Answer::Known(bytes) = answer(&table, &query, None) else { panic!() };
        assert!(bytes.len() <= query.limit);
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.truncation, transport == Transport::Udp);
        assert_eq!(message.answers.len() == 200, transport == Transport::Tcp);
        assert_eq!(message.edns.is_some(), size.is_some());
    }
}

/// The whole path of a datagram: it may be refused or ignored, and an answer
/// must be one.
fn path(table: &Table, bytes: Vec<u8>) {
    let id = bytes.first_chunk::<2>().copied();
    let reply = match Request::read(bytes, Transport::Udp) {
        Request::Nothing => return,
        Request::Refused(reply) => reply,
        Request::Query(query) => match answer(table, &query, Some(SEARCH)) {
            Answer::Known(reply) => {
                assert!(reply.len() <= query.limit);
                reply
            }
            Answer::Elsewhere | Answer::Unknown => query.fail(ResponseCode::ServFail),
        },
    };
    assert_eq!(reply.first_chunk().copied(), id);
    let message = Message::from_vec(&reply).unwrap();
    assert_eq!(message.metadata.message_type, MessageType::Response);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        path(&Table::new(Arc::new(names()), "ns1", "ns1.svc.cluster.local"), bytes);
    }

    #[test]
    fn any_change_of_a_request_is_survived(
        kind in prop::sample::select(vec![RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR]),
        name in prop::sample::select(vec![
            "productpage.", "_sql._tcp.db.", "2.0.1.10.in-addr.arpa.", "x.wildcard.ns1.svc.cluster.local.",
        ]),
        has_edns: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
        cut: bool,
    ) {
        let mut bytes = request(name, kind, |message| {
            if has_edns {
                message.set_edns(Edns::new());
            }
        });
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        path(&Table::new(Arc::new(names()), "ns1", "ns1.svc.cluster.local"), bytes);
    }
}
