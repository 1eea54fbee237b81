//! Answers from the name table: addresses, services, names of addresses.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rand::seq::SliceRandom as _;

use super::query::Query;
use super::table::{Found, Host, Table, addresses};

/// How long a client may keep an answer, in seconds; short, since hosts move.
pub(super) const TTL: u32 = 30;
/// Weight of every target of a service: equal.
const WEIGHT: u16 = 100;

/// What the table says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This, as a whole message.
    Known(Vec<u8>),
    /// The host is there, and others may know records of that type.
    Elsewhere,
    /// Nothing.
    Unknown,
}

/// Answers a request from the table.
pub(super) fn answer(table: &Table, query: &Query, search: Option<&str>) -> Answer {
    let Some(kind) = query.kind() else { return Answer::Unknown };
    if kind == RecordType::PTR
        && let Some(name) = reverse(table, query.name())
    {
        let record = Record::from_rdata(query.name().clone(), TTL, RData::PTR(PTR(name)));
        return Answer::Known(query.answer(vec![record], Vec::new()));
    }
    if kind == RecordType::SRV
        && let Some(known) = services(table, query, search)
    {
        return known;
    }
    let Some(found) = table.find(&query.host, search) else { return Answer::Unknown };
    match kind {
        RecordType::A | RecordType::AAAA => {
            Answer::Known(query.answer(of_host(query.name(), &found, search, kind), Vec::new()))
        }
        _ => Answer::Elsewhere,
    }
}

/// The records of a host. A name with the search domain is said to be another
/// name for the host, with the host's records beside it, since not all clients
/// would ask again.
fn of_host(asked: &Name, found: &Found<'_>, search: Option<&str>, kind: RecordType) -> Vec<Record> {
    let (mut records, owner) = alias(asked, found, search);
    let own = of_type(&owner, found.host, kind);
    if own.is_empty() {
        return Vec::new();
    }
    records.extend(own);
    records
}

/// What stands before the records, and whose they are.
fn alias(asked: &Name, found: &Found<'_>, search: Option<&str>) -> (Vec<Record>, Name) {
    let count = search.map_or(0, |search| search.split('.').count());
    let labels: Vec<&[u8]> = asked.iter().collect();
    let own = labels.len().checked_sub(count).filter(|_| found.is_searched);
    match own.and_then(|own| Name::from_labels(labels[..own].iter().copied()).ok()) {
        Some(name) => {
            let alias = Record::from_rdata(asked.clone(), TTL, RData::CNAME(CNAME(name.clone())));
            (vec![alias], name)
        }
        None => (Vec::new(), asked.clone()),
    }
}

/// Addresses of one family, in any order.
fn of_type(owner: &Name, host: Host<'_>, kind: RecordType) -> Vec<Record> {
    let mut records: Vec<Record> = addresses(host.info)
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) if kind == RecordType::A => Some(RData::A(A(ip))),
            IpAddr::V6(ip) if kind == RecordType::AAAA => Some(RData::AAAA(AAAA(ip))),
            _ => None,
        })
        .map(|data| Record::from_rdata(owner.clone(), TTL, data))
        .collect();
    records.shuffle(&mut rand::rng());
    records
}

/// The name of the address that a name stands for.
fn reverse(table: &Table, asked: &Name) -> Option<Name> {
    let net = asked.parse_arpa_name().ok()?;
    let whole = if net.addr().is_ipv4() { 32 } else { 128 };
    let name = (net.prefix_len() == whole).then(|| table.name_of(net.addr()))??;
    target(name)
}

/// A name of the table as one on the wire.
fn target(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Ports of a service: of `_PORT._PROTOCOL.HOST` that one, of `HOST` all.
/// `None` when the table does not know the ports of that host.
fn services(table: &Table, query: &Query, search: Option<&str>) -> Option<Answer> {
    let (wanted, host) = match split_service(&query.host) {
        Some((port, protocol, host)) => (Some((port, protocol)), host),
        None => (None, query.host.as_str()),
    };
    let found = table.find(host, search)?;
    if found.host.info.ports.is_empty() {
        return Some(Answer::Elsewhere);
    }
    let (mut answers, owner) = alias(query.name(), &found, search);
    let mut additionals = Vec::new();
    let mut targets: Vec<Host<'_>> = table.pods_of(found.host).collect();
    if targets.is_empty() {
        targets.push(found.host);
    }
    targets.shuffle(&mut rand::rng());
    let is_wanted = |name: &str, protocol: &str| {
        wanted.is_none_or(|(port, transport)| {
            name.eq_ignore_ascii_case(port) && protocol.eq_ignore_ascii_case(transport)
        })
    };
    let mut is_any = false;
    for port in found.host.info.ports.iter().filter(|port| is_wanted(&port.name, &port.protocol)) {
        let Ok(number) = u16::try_from(port.number) else { continue };
        for host in &targets {
            // A wildcard is no name to connect to: that is the name that was asked for.
            let is_named = !host.name.starts_with('*');
            let name = if is_named { target(host.name) } else { asked_host(&owner, wanted.is_some()) };
            let Some(name) = name else { continue };
            let data = RData::SRV(SRV::new(0, WEIGHT, number, name.clone()));
            answers.push(Record::from_rdata(owner.clone(), TTL, data));
            is_any = true;
            for kind in [RecordType::A, RecordType::AAAA] {
                let new = of_type(&name, *host, kind);
                if !additionals.iter().any(|known: &Record| known.name == name && known.record_type() == kind)
                {
                    additionals.extend(new);
                }
            }
        }
    }
    if !is_any {
        answers.clear();
    }
    Some(Answer::Known(query.answer(answers, additionals)))
}

/// The host of a service's name.
fn asked_host(owner: &Name, has_service: bool) -> Option<Name> {
    let labels: Vec<&[u8]> = owner.iter().skip(if has_service { 2 } else { 0 }).collect();
    Name::from_labels(labels).ok()
}

/// Takes `_PORT._PROTOCOL.HOST` apart.
fn split_service(name: &str) -> Option<(&str, &str, &str)> {
    let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
    let (protocol, host) = rest.strip_prefix('_')?.split_once('.')?;
    Some((port, protocol, host))
}

#[cfg(test)]
pub(super) mod tests;
