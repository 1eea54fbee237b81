//! DNS messages as bytes: where their parts are, and changes that leave the
//! rest as it is, so that what is forwarded loses nothing on the way.

use std::ops::Range;

use hickory_proto::op::Header;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use rand::seq::SliceRandom as _;

/// Length of the header.
const HEADER: usize = 12;
/// Where the header counts answers, authorities and additional records.
const COUNTS: [usize; 3] = [6, 8, 10];
/// Byte and bit that say that something was cut off.
const TRUNCATED: (usize, u8) = (2, 0b10);
/// Most records that a message may have; one of 64 KiB with names has fewer.
const MAX_RECORDS: usize = 4096;

/// The message is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It ends too early, or a name is none.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// It has several questions.
    #[error("{0} questions")]
    Questions(u16),
    /// It has too many records.
    #[error("{0} records")]
    Records(usize),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The name as it was written.
    pub(super) name: Name,
    /// Type of record.
    pub(super) kind: RecordType,
    /// Class.
    pub(super) class: DNSClass,
    /// Where the question is in the message.
    pub(super) at: Range<usize>,
}

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// 0 for answers, 1 for authorities, 2 for additional records.
    pub(super) section: usize,
    /// All of it.
    pub(super) at: Range<usize>,
    /// Its owner.
    pub(super) owner: Range<usize>,
    /// Its type.
    pub(super) kind: RecordType,
    /// Its class as a number, which is a size in EDNS.
    pub(super) class: u16,
    /// Its time to live as a number, which is flags in EDNS.
    pub(super) ttl: u32,
    /// Its data.
    pub(super) data: Range<usize>,
}

/// A message taken apart.
#[derive(Debug)]
pub(super) struct Packet {
    /// Its header.
    pub(super) header: Header,
    /// Its question, if it has one.
    pub(super) question: Option<Question>,
    /// Its records.
    pub(super) records: Vec<Record>,
}

impl Packet {
    /// Takes a message apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let decoder = &mut BinDecoder::new(bytes);
        let header = Header::read(decoder)?;
        let counts = header.counts;
        if counts.queries > 1 {
            return Err(Error::Questions(counts.queries));
        }
        let question = if counts.queries == 1 { Some(question(decoder)?) } else { None };
        let counts = [counts.answers, counts.authorities, counts.additionals].map(usize::from);
        let total = counts.iter().sum();
        if total > MAX_RECORDS {
            return Err(Error::Records(total));
        }
        let mut records = Vec::new();
        for (section, count) in counts.into_iter().enumerate() {
            for _ in 0..count {
                records.push(record(decoder, section)?);
            }
        }
        Ok(Self { header, question, records })
    }

    /// The record with the client's or server's abilities, if there is one.
    pub(super) fn edns(&self) -> Option<&Record> {
        self.records.iter().find(|record| record.section == 2 && record.kind == RecordType::OPT)
    }
}

fn question(decoder: &mut BinDecoder<'_>) -> Result<Question, DecodeError> {
    let start = decoder.index();
    let name = Name::read(decoder)?;
    let kind = RecordType::read(decoder)?;
    let class = DNSClass::read(decoder)?;
    Ok(Question { name, kind, class, at: start..decoder.index() })
}

fn record(decoder: &mut BinDecoder<'_>, section: usize) -> Result<Record, DecodeError> {
    let start = decoder.index();
    Name::read(decoder)?;
    let owner = start..decoder.index();
    let kind = RecordType::read(decoder)?;
    let class = decoder.read_u16()?.unverified();
    let ttl = decoder.read_u32()?.unverified();
    let length = usize::from(decoder.read_u16()?.unverified());
    let data = decoder.index()..decoder.index() + length;
    decoder.read_slice(length)?;
    Ok(Record { section, at: start..data.end, owner, kind, class, ttl, data })
}

/// Makes a message fit: records that do not are left out from the end, all but
/// the one with the abilities, and the message says so.
pub(super) fn cut(mut bytes: Vec<u8>, limit: usize) -> Vec<u8> {
    if bytes.len() <= limit {
        return bytes;
    }
    let Ok(packet) = Packet::parse(&bytes) else {
        bytes.truncate(HEADER);
        bytes.resize(HEADER, 0);
        bytes[4..].fill(0);
        bytes[TRUNCATED.0] |= TRUNCATED.1;
        return bytes;
    };
    let edns = packet.edns().map(|record| bytes[record.at.clone()].to_vec()).unwrap_or_default();
    let mut end = packet.question.as_ref().map_or(HEADER, |question| question.at.end);
    let mut counts = [0u16; 3];
    let mut is_whole = true;
    for record in packet.records.iter().filter(|record| record.kind != RecordType::OPT) {
        if record.at.end + edns.len() > limit {
            // A client can do without additional records.
            is_whole = record.section == 2;
            break;
        }
        // Whatever follows the record with the abilities is left out: data of
        // later records may refer to places that change.
        if record.at.start != end {
            break;
        }
        end = record.at.end;
        counts[record.section] += 1;
    }
    bytes.truncate(end);
    if !edns.is_empty() {
        bytes.extend_from_slice(&edns);
        counts[2] += 1;
    }
    for (at, count) in COUNTS.into_iter().zip(counts) {
        bytes[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    if !is_whole {
        bytes[TRUNCATED.0] |= TRUNCATED.1;
    }
    bytes
}

/// Puts another id into a message.
pub(super) fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(place) = bytes.first_chunk_mut() {
        *place = id.to_be_bytes();
    }
}

/// Changes every time to live.
pub(super) fn set_ttls(bytes: &mut [u8], packet: &Packet, change: impl Fn(u32) -> u32) {
    for record in packet.records.iter().filter(|record| record.kind != RecordType::OPT) {
        let at = record.owner.end + 4;
        bytes[at..at + 4].copy_from_slice(&change(record.ttl).to_be_bytes());
    }
}

/// Mixes the addresses of the answer, as servers do to spread load.
pub(super) fn mix_addresses(bytes: &mut [u8], packet: &Packet) {
    for kind in [RecordType::A, RecordType::AAAA] {
        let mut same: Vec<&Record> =
            packet.records.iter().filter(|record| record.section == 0 && record.kind == kind).collect();
        let Some(first) = same.first().copied() else { continue };
        same.retain(|record| {
            bytes[record.owner.clone()] == bytes[first.owner.clone()] && record.data.len() == first.data.len()
        });
        let mut data: Vec<Vec<u8>> = same.iter().map(|record| bytes[record.data.clone()].to_vec()).collect();
        data.shuffle(&mut rand::rng());
        for (record, data) in same.into_iter().zip(data) {
            bytes[record.data.clone()].copy_from_slice(&data);
        }
    }
}

/// Whether a response is to the question of a request: the name in any case,
/// type and class as they are.
pub(super) fn is_same_question(request: &[u8], response: &[u8]) -> bool {
    let split = |bytes: &[u8]| bytes.len().checked_sub(4);
    match (split(request), split(response)) {
        (Some(at), Some(other)) if at == other => {
            // Lengths of labels are below 64 and no letters.
            request[..at].eq_ignore_ascii_case(&response[..at]) && request[at..] == response[at..]
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::{Edns, Message, OpCode, Query};
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::A;
    use proptest::prelude::*;

    use super::*;

    fn answer(count: u8, edns: bool) -> Vec<u8> {
        let name = Name::from_ascii("www.example.com.").unwrap();
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        for last in 0..count {
            let data = RData::A(A(Ipv4Addr::new(10, 0, 0, last)));
            message.add_answer(hickory_proto::rr::Record::from_rdata(name.clone(), 60, data));
        }
        if edns {
            message.set_edns(Edns::new());
        }
        message.to_vec().unwrap()
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_said() {
        for edns in [false, true] {
            let whole = answer(100, edns);
            for limit in [12, 40, 512, 1000, whole.len() - 1] {
                let cut = cut(whole.clone(), limit);
                assert!(cut.len() <= limit.max(33 + 11), "{} of {limit}", cut.len());
                let message = Message::from_vec(&cut).unwrap();
                assert!(message.metadata.truncation);
                assert_eq!(message.edns.is_some(), edns);
                assert_eq!(message.queries.len(), 1);
                assert!(message.answers.len() < 100);
            }
            assert_eq!(cut(whole.clone(), whole.len()), whole);
        }
    }

    #[test]
    fn garbage_is_cut_to_an_empty_message() {
        let cut = cut(vec![0xff; 600], 512);
        let message = Message::from_vec(&cut).unwrap();
        assert!(message.metadata.truncation && message.answers.is_empty());
    }

    proptest! {
        #[test]
        fn any_message_is_survived(
            random in proptest::collection::vec(any::<u8>(), 0..1500),
            count in 0u8..60,
            edns: bool,
            is_random: bool,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            limit in 12usize..1500,
        ) {
            let mut bytes = if is_random { random } else { answer(count, edns) };
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let length = bytes.len();
            if let Ok(packet) = Packet::parse(&bytes) {
                set_ttls(&mut bytes, &packet, |ttl| ttl / 2);
                mix_addresses(&mut bytes, &packet);
            }
            set_id(&mut bytes, 7);
            prop_assert_eq!(bytes.len(), length);
            let was_whole = Packet::parse(&bytes).is_ok();
            let cut = cut(bytes, limit);
            prop_assert!(!was_whole || Packet::parse(&cut).is_ok());
        }
    }

    #[test]
    fn times_and_addresses_change_in_place() {
        let mut bytes = answer(20, true);
        let before = Message::from_vec(&bytes).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        set_ttls(&mut bytes, &packet, |ttl| ttl - 50);
        mix_addresses(&mut bytes, &packet);
        let after = Message::from_vec(&bytes).unwrap();
        assert!(after.answers.iter().all(|record| record.ttl == 10));
        let sorted = |message: &Message| {
            let mut all: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
            all.sort();
            all
        };
        assert_eq!(sorted(&before), sorted(&after));
        assert_eq!(before.edns, after.edns);
    }

    #[test]
    fn questions_are_compared_without_regard_to_case_of_the_name_only() {
        let question = |name: &str, kind: u16| {
            let mut bytes = vec![3];
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&[0, 1]);
            bytes
        };
        assert!(is_same_question(&question("wWw", 1), &question("www", 1)));
        assert!(!is_same_question(&question("www", 0x41), &question("www", 0x61)));
        assert!(!is_same_question(&question("www", 1), &question("wwx", 1)));
        assert!(!is_same_question(&[], &question("www", 1)));
        assert!(!is_same_question(&[], &[]));
    }
}
