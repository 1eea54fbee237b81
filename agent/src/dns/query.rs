//! Requests: what is asked, how large an answer may be, and what is refused.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::packet::{self, Error, Packet, Question};

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Transport {
    /// As a datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// Smallest answer that every client takes.
pub(super) const MIN_SIZE: u16 = 512;
/// Size of datagrams that we take, told to clients that ask.
pub(super) const OWN_SIZE: u16 = 4096;
/// Bit of the EDNS flags by which a client asks for signatures.
const WANTS_SIGNATURES: u32 = 0x8000;

/// What a client can do, if it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// It wants signatures.
    pub(super) signatures: bool,
    /// It has options, which are between it and the server.
    pub(super) has_options: bool,
}

/// A request for one name.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// The request itself.
    pub(super) bytes: Vec<u8>,
    /// Its header.
    pub(super) metadata: Metadata,
    /// What it asks.
    pub(super) question: Question,
    /// The name in small letters, without the last dot.
    pub(super) host: String,
    /// What the client can do.
    pub(super) abilities: Option<Abilities>,
    /// Largest answer that it takes, in bytes.
    pub(super) limit: usize,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Request {
    /// A question.
    Query(Box<Query>),
    /// Something that gets this answer.
    Refused(Vec<u8>),
    /// Something that gets none, such as an answer.
    Nothing,
}

impl Request {
    /// Reads a request.
    pub(super) fn read(bytes: Vec<u8>, transport: Transport) -> Self {
        let Ok(header) = Header::read(&mut BinDecoder::new(&bytes)) else { return Self::Nothing };
        // Answers to answers would never end.
        if header.metadata.message_type == MessageType::Response {
            return Self::Nothing;
        }
        if header.metadata.op_code != OpCode::Query {
            return refused(&header.metadata, ResponseCode::NotImp);
        }
        let packet = match Packet::parse(&bytes) {
            Ok(packet) => packet,
            Err(Error::Malformed(_) | Error::Questions(_) | Error::Records(_)) => {
                return refused(&header.metadata, ResponseCode::FormErr);
            }
        };
        let edns = packet.edns();
        let abilities = edns.map(|record| Abilities {
            signatures: record.ttl & WANTS_SIGNATURES != 0,
            has_options: !record.data.is_empty(),
        });
        let limit = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => edns.map_or(MIN_SIZE, |record| record.class.max(MIN_SIZE)),
        };
        let Some(question) = packet.question else { return refused(&header.metadata, ResponseCode::FormErr) };
        let mut host = question.name.to_ascii();
        host.make_ascii_lowercase();
        if host.ends_with('.') {
            host.pop();
        }
        Self::Query(Box::new(Query {
            bytes,
            metadata: header.metadata,
            question,
            host,
            abilities,
            limit: limit.into(),
        }))
    }
}

fn refused(request: &Metadata, code: ResponseCode) -> Request {
    let mut message = Message::new(request.id, MessageType::Response, request.op_code);
    message.metadata = Metadata::response_from_request(request);
    message.metadata.response_code = code;
    message.to_vec().map_or(Request::Nothing, Request::Refused)
}

impl Query {
    /// The type asked for, when it is one of the Internet.
    pub(super) fn kind(&self) -> Option<RecordType> {
        (self.question.class == DNSClass::IN).then_some(self.question.kind)
    }

    /// The name asked for.
    pub(super) fn name(&self) -> &Name {
        &self.question.name
    }

    /// The question as bytes.
    pub(super) fn question_bytes(&self) -> &[u8] {
        self.bytes.get(self.question.at.clone()).unwrap_or_default()
    }

    /// An answer of our own authority.
    pub(super) fn answer(&self, answers: Vec<Record>, additionals: Vec<Record>) -> Vec<u8> {
        self.respond(|message| {
            message.metadata.authoritative = true;
            message.answers = answers;
            message.additionals = additionals;
        })
    }

    /// An answer that says only that there is none.
    pub(super) fn fail(&self, code: ResponseCode) -> Vec<u8> {
        self.respond(|message| message.metadata.response_code = code)
    }

    fn respond(&self, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        let mut asked = Asked::query(self.question.name.clone(), self.question.kind);
        asked.set_query_class(self.question.class);
        message.add_query(asked);
        if let Some(abilities) = self.abilities {
            let mut edns = Edns::new();
            edns.set_max_payload(OWN_SIZE).set_dnssec_ok(abilities.signatures);
            message.set_edns(edns);
        }
        fill(&mut message);
        // What does not fit into 64 KiB is left out and said so by the encoder;
        // names are as they were read, so nothing else can go wrong.
        let bytes = message.to_vec().unwrap_or_default();
        packet::cut(bytes, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Asked::query(Name::from_ascii("WwW.example.com.").unwrap(), RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn code(bytes: Vec<u8>) -> Option<ResponseCode> {
        match Request::read(bytes, Transport::Udp) {
            Request::Refused(bytes) => {
                let message = Message::from_vec(&bytes).unwrap();
                assert_eq!(message.metadata.id, 0x1234);
                assert_eq!(message.metadata.message_type, MessageType::Response);
                Some(message.metadata.response_code)
            }
            Request::Query(_) => Some(ResponseCode::NoError),
            Request::Nothing => None,
        }
    }

    #[test]
    fn what_is_no_question_is_refused_and_an_answer_ignored() {
        assert_eq!(code(request(|_| ())), Some(ResponseCode::NoError));
        assert_eq!(code(request(|message| message.queries.clear())), Some(ResponseCode::FormErr));
        let two = request(|message| {
            let again = message.queries[0].clone();
            message.add_query(again);
        });
        assert_eq!(code(two), Some(ResponseCode::FormErr));
        let update = request(|message| message.metadata.op_code = OpCode::Update);
        assert_eq!(code(update), Some(ResponseCode::NotImp));
        let answer = request(|message| message.metadata.message_type = MessageType::Response);
        assert_eq!(code(answer), None);
        let mut short = request(|_| ());
        short.truncate(20);
        assert_eq!(code(short), Some(ResponseCode::FormErr));
        assert_eq!(code(vec![1, 2, 3]), None);
    }

    #[test]
    fn id_case_and_flags_of_the_request_come_back() {
        let Request::Query(query) = Request::read(request(|_| ()), Transport::Udp) else { panic!() };
        assert_eq!(query.host, "www.example.com");
        let message = Message::from_vec(&query.answer(Vec::new(), Vec::new())).unwrap();
        assert_eq!(message.metadata.id, 0x1234);
        assert_eq!(message.queries[0].name().to_ascii(), "WwW.example.com.");
        assert!(message.metadata.recursion_desired && message.metadata.authoritative);
        assert!(message.edns.is_none());
    }

    #[test]
    fn the_clients_size_is_followed_from_512_bytes_on() {
        let limit = |size: Option<u16>, transport| {
            let bytes = request(|message| {
                if let Some(size) = size {
                    message.set_edns(Edns::new());
                    message.edns.as_mut().unwrap().set_max_payload(size);
                }
            });
            let Request::Query(query) = Request::read(bytes, transport) else { panic!() };
            query.limit
        };
        assert_eq!(limit(None, Transport::Udp), 512);
        assert_eq!(limit(Some(1232), Transport::Udp), 1232);
        assert_eq!(limit(Some(100), Transport::Udp), 512);
        assert_eq!(limit(None, Transport::Tcp), 65535);
    }
}
