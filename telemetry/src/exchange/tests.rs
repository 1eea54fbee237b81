use super::{Begun, Call, Exchange, HEADER, HEADER_ID, Which};
use crate::attributes::fake::Fake;
use crate::attributes::{Attribute, Metadata};
use crate::node::Node;
use crate::peer::{LONGEST, Workload};
use crate::settings::Direction;

/// A call of a server that was told who calls.
const TOLD: Call = Call { is_told: true, is_clean: false, asked: Which::NONE };
const SAN: &str = "spiffe://d/ns/x/sa/a";

fn exchange(direction: Direction) -> Exchange {
    exchange_that(direction, false)
}

fn exchange_that(direction: Direction, always_asks: bool) -> Exchange {
    let json = r#"{"NAME":"own-1","NAMESPACE":"x","WORKLOAD_NAME":"own","INSTANCE_IPS":"10.0.0.1"}"#;
    Exchange::new(direction, &Node::parse(json).unwrap(), always_asks)
}

fn told() -> String {
    Workload { name: "peer".into(), ..Workload::default() }.encode()
}

fn asking() -> Fake {
    Fake::default().request(HEADER, &told()).request(HEADER_ID, "id")
}

#[test]
fn a_client_with_a_certificate_is_believed_and_answered() {
    let exchange = exchange(Direction::Inbound);
    let mut stream = asking().text(Attribute::ConnectionUriSanPeerCertificate, SAN);
    let Begun { peer, call, .. } = exchange.request(&mut stream);
    assert_eq!(peer.unwrap().workload.name, "peer");
    assert!(stream.request.is_empty(), "the application sees none of it");
    assert!(exchange.response(&mut stream, call).is_none());
    let own = Workload::decode(stream.response[HEADER].as_bytes()).unwrap();
    assert_eq!(own.name, "own");
    assert_eq!(stream.response[HEADER_ID], "sidecar~10.0.0.1~own-1.x~x.svc.cluster.local");
}

#[test]
fn a_client_in_plaintext_is_neither_believed_nor_answered() {
    let exchange = exchange(Direction::Inbound);
    let mut stream = asking().response(HEADER, &told()).response(HEADER_ID, "application");
    let Begun { peer, call, .. } = exchange.request(&mut stream);
    assert!(peer.is_none());
    exchange.response(&mut stream, call);
    assert!(stream.request.is_empty());
    assert!(stream.response.is_empty(), "what the application says of itself goes to nobody");
}

#[test]
fn who_has_not_asked_is_not_answered() {
    let exchange = exchange(Direction::Inbound);
    let mut stream = Fake::default().text(Attribute::ConnectionUriSanPeerCertificate, SAN);
    let Begun { peer, call, .. } = exchange.request(&mut stream);
    exchange.response(&mut stream, call);
    assert!(peer.is_none() && stream.response.is_empty());
}

#[test]
fn a_request_into_the_mesh_tells_who_sent_it() {
    for direction in [Direction::Outbound, Direction::Gateway] {
        let mut stream = asking().text(Attribute::XdsClusterName, "outbound|80||b.x.svc.cluster.local");
        exchange(direction).request(&mut stream);
        assert_eq!(Workload::decode(stream.request[HEADER].as_bytes()).unwrap().name, "own");
        let router = direction == Direction::Gateway;
        assert_eq!(stream.request[HEADER_ID].starts_with("router~10.0.0.1"), router);
    }
}

fn of_cluster(peers: &str) -> Fake {
    asking().metadata(Metadata::Cluster, "istio", "peers", peers)
}

#[test]
fn a_server_whose_endpoint_tells_is_not_asked() {
    for (peers, is_short) in [("named", false), ("short", true)] {
        let mut stream = of_cluster(peers);
        exchange(Direction::Outbound).request(&mut stream);
        assert_eq!(stream.request.keys().collect::<Vec<_>>(), [HEADER]);
        assert_eq!(stream.request[HEADER].contains(';'), is_short);
        assert_eq!(Workload::decode(stream.request[HEADER].as_bytes()).unwrap().name, "own");

        // Only where all servers have this module is nothing left to take out of the response.
        let exchange = exchange(Direction::Outbound);
        let mut stream =
            of_cluster(peers).response(HEADER, &told()).text(Attribute::UpstreamUriSanPeerCertificate, SAN);
        let Begun { call, .. } = exchange.request(&mut stream);
        assert_eq!(exchange.response(&mut stream, call).is_none(), is_short);
        assert_eq!(stream.response.contains_key(HEADER), is_short);

        let mut stream = of_cluster(peers);
        exchange_that(Direction::Outbound, true).request(&mut stream);
        assert_eq!(stream.request.keys().collect::<Vec<_>>(), [HEADER, HEADER_ID], "it tells more");
        assert!(!stream.request[HEADER].contains(';'));
    }
}

#[test]
fn a_client_that_does_not_ask_is_believed_and_not_answered() {
    let exchange = exchange(Direction::Inbound);
    for told in [told(), "peer;x;c;r;k;a;v;pod;peer-1".to_owned()] {
        let mut stream =
            Fake::default().request(HEADER, &told).text(Attribute::ConnectionUriSanPeerCertificate, SAN);
        let Begun { peer, call, .. } = exchange.request(&mut stream);
        assert_eq!((peer.unwrap().workload.name.as_str(), call.asked), ("peer", Which::NONE));
        assert!(stream.request.is_empty(), "the application sees none of it");
        exchange.response(&mut stream, call);
        assert!(stream.response.is_empty());
    }
}

#[test]
fn a_request_out_of_the_mesh_tells_nothing() {
    let external = |truth: &str| Fake { truths: vec![truth.into()], ..asking() };
    for mut stream in [
        asking().text(Attribute::XdsClusterName, "PassthroughCluster"),
        external("external"),
        external("disable_mx"),
    ] {
        exchange(Direction::Outbound).request(&mut stream);
        assert!(stream.request.is_empty(), "not even what the application wrote: {stream:?}");
    }
}

#[test]
fn a_server_is_believed_by_its_certificate() {
    let exchange = exchange(Direction::Outbound);
    let answer = || Fake::default().response(HEADER, &told()).response(HEADER_ID, "id");
    let mut stream = answer().text(Attribute::UpstreamUriSanPeerCertificate, SAN);
    let peer = exchange.response(&mut stream, TOLD).unwrap();
    assert!(stream.response.is_empty(), "the client sees none of it");
    let again = exchange.response(&mut answer().text(Attribute::UpstreamUriSanPeerCertificate, SAN), TOLD);
    assert_eq!(again.unwrap().number, peer.number, "equal peers are one");
    let mut stream = answer();
    assert!(exchange.response(&mut stream, TOLD).is_none());
    assert!(stream.response.is_empty());
}

#[test]
fn who_was_told_nothing_is_not_believed() {
    let mut stream =
        Fake::default().response(HEADER, &told()).text(Attribute::UpstreamUriSanPeerCertificate, SAN);
    stream.truths.push("external".into());
    let exchange = exchange(Direction::Outbound);
    let Begun { call, .. } = exchange.request(&mut stream);
    assert!(exchange.response(&mut stream, call).is_none());
    assert!(stream.response.is_empty(), "the client sees none of it");
}

#[test]
fn a_header_of_any_kind_is_removed() {
    let exchange = exchange(Direction::Inbound);
    for header in ["", "?", "AAAA", &"A".repeat(LONGEST + 1)] {
        let mut stream =
            Fake::default().request(HEADER, header).text(Attribute::ConnectionUriSanPeerCertificate, SAN);
        exchange.request(&mut stream);
        assert!(stream.request.is_empty());
    }
}
