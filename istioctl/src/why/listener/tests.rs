use proto::envoy::config::listener::v3::FilterChainMatch;

use super::*;
use crate::why::connection::Payload;

fn chain_of(name: &str, matcher: FilterChainMatch) -> FilterChain {
    FilterChain { name: name.into(), filter_chain_match: Some(matcher), ..FilterChain::default() }
}

fn port(number: u32) -> FilterChainMatch {
    FilterChainMatch { destination_port: Some(number), ..FilterChainMatch::default() }
}

fn range(prefix: &str, length: u32) -> CidrRange {
    CidrRange { address_prefix: prefix.into(), prefix_len: Some(length) }
}

fn names(names: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: "tls".into(),
        server_names: names.iter().map(|&name| name.into()).collect(),
        ..FilterChainMatch::default()
    }
}

fn connection(destination: &str, port: u16) -> Connection {
    Connection {
        destination: destination.parse().ok(),
        port,
        source: "10.0.0.9".parse().ok(),
        tls: None,
        payload: Payload::Bytes,
    }
}

fn raw() -> Seen {
    Seen { transport: "raw_buffer", name: String::new(), protocols: Vec::new() }
}

fn tls(name: &str) -> Seen {
    Seen { transport: "tls", name: name.into(), protocols: vec!["h2".into(), "http/1.1".into()] }
}

fn found<'a>(listener: &'a Listener, connection: &Connection, seen: &Seen) -> &'a str {
    chain(listener, connection, seen).map_or("none", |chain| &chain.name)
}

#[test]
fn a_port_shuts_out_chains_without_one() {
    let listener = Listener {
        filter_chains: vec![
            chain_of("any", FilterChainMatch::default()),
            chain_of("tls", FilterChainMatch { transport_protocol: "tls".into(), ..port(80) }),
        ],
        ..Listener::default()
    };
    assert_eq!(found(&listener, &connection("10.0.0.1", 81), &raw()), "any");
    assert_eq!(found(&listener, &connection("10.0.0.1", 80), &tls("a")), "tls");
    // Envoy does not come back to the chain for any port.
    assert_eq!(found(&listener, &connection("10.0.0.1", 80), &raw()), "none");
    let with_default = Listener { default_filter_chain: Some(chain_of("default", port(0))), ..listener };
    assert_eq!(found(&with_default, &connection("10.0.0.1", 80), &raw()), "default");
}

#[test]
fn the_longest_range_and_the_longest_name_win() {
    let of =
        |ranges: Vec<CidrRange>| FilterChainMatch { prefix_ranges: ranges, ..FilterChainMatch::default() };
    let listener = Listener {
        filter_chains: vec![
            chain_of("rest", of(Vec::new())),
            chain_of("wide", of(vec![range("10.0.0.0", 8)])),
            chain_of("narrow", of(vec![range("10.1.0.0", 16), range("10.2.3.4", 32)])),
        ],
        ..Listener::default()
    };
    for (ip, wanted) in
        [("10.1.1.1", "narrow"), ("10.2.3.4", "narrow"), ("10.2.3.5", "wide"), ("11.0.0.1", "rest")]
    {
        assert_eq!(found(&listener, &connection(ip, 1), &raw()), wanted, "{ip}");
    }
    let listener = Listener {
        filter_chains: vec![
            chain_of("exact", names(&["a.b.c"])),
            chain_of("star", names(&["*.b.c"])),
            chain_of("wider", names(&["*.c"])),
            chain_of("rest", names(&[])),
        ],
        ..Listener::default()
    };
    for (name, wanted) in
        [("a.b.c", "exact"), ("x.b.c", "star"), ("x.y.c", "wider"), ("c", "rest"), ("", "rest")]
    {
        assert_eq!(found(&listener, &connection("10.0.0.1", 1), &tls(name)), wanted, "{name}");
    }
}

#[test]
fn the_clients_first_protocol_that_a_chain_has_decides() {
    let of = |protocol: &str| FilterChainMatch {
        application_protocols: vec![protocol.into()],
        ..FilterChainMatch::default()
    };
    let listener = Listener {
        filter_chains: vec![chain_of("http1", of("http/1.1")), chain_of("http2", of("h2"))],
        ..Listener::default()
    };
    assert_eq!(found(&listener, &connection("10.0.0.1", 1), &tls("")), "http2");
    assert_eq!(found(&listener, &connection("10.0.0.1", 1), &raw()), "none");
}
