//! Reads which messages pass in a gRPC byte stream, without keeping them.
//!
//! A stream of discovery messages is a run of frames (one byte of flags, four
//! bytes of length, then the message). The scanner takes the bytes in pieces of
//! any size and remembers of each message only its type URL, its nonce and
//! whether it carries an error; resources are skipped by their length, so a
//! response of any size costs a few hundred bytes.

/// Which field numbers hold what in a message.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    type_url: u32,
    nonce: u32,
    error: u32,
}

impl Fields {
    /// `envoy.service.discovery.v3.DiscoveryRequest`.
    pub const SOTW_REQUEST: Self = Self { type_url: 4, nonce: 5, error: 6 };
    /// `envoy.service.discovery.v3.DiscoveryResponse`.
    pub const SOTW_RESPONSE: Self = Self { type_url: 4, nonce: 5, error: 0 };
    /// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
    pub const DELTA_REQUEST: Self = Self { type_url: 2, nonce: 6, error: 7 };
    /// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
    pub const DELTA_RESPONSE: Self = Self { type_url: 4, nonce: 5, error: 0 };
}

/// What was seen of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Type URL of the resources.
    pub type_url: String,
    /// Nonce; empty when there is none.
    pub nonce: String,
    /// Whether the message refuses a response.
    pub is_error: bool,
    /// Length of the message in bytes.
    pub length: u32,
}

/// The bytes are no gRPC stream of protobuf messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a gRPC stream of discovery messages")
    }
}

impl std::error::Error for Malformed {}

/// Longest text that is kept of a field; longer ones are cut.
const TEXT_MAX: usize = 512;

#[derive(Debug)]
enum State {
    /// Reading the five bytes before a message.
    Prefix { got: usize, bytes: [u8; 5] },
    /// Reading the tag of a field.
    Tag { value: u64, shift: u32 },
    /// Reading a varint value that nobody wants.
    Varint,
    /// Reading the length of a field.
    Length { field: u32, value: u64, shift: u32 },
    /// Inside a field of known length.
    Body { field: u32, left: u32 },
    /// A compressed message: its fields cannot be read.
    Opaque,
}

/// Follows one direction of one stream.
#[derive(Debug)]
pub struct Scanner {
    fields: Fields,
    state: State,
    /// Bytes of the current message that have not come yet.
    left: u32,
    seen: Seen,
    text: Vec<u8>,
}

impl Scanner {
    /// A scanner for messages with those field numbers.
    #[must_use]
    pub fn new(fields: Fields) -> Self {
        Self {
            fields,
            state: State::Prefix { got: 0, bytes: [0; 5] },
            left: 0,
            seen: Seen::default(),
            text: Vec::new(),
        }
    }

    /// Takes the next bytes; calls `each` for every message that ends in them.
    ///
    /// # Errors
    /// When the bytes are not what they should be. The scanner is of no use
    /// afterwards.
    pub fn scan(&mut self, mut bytes: &[u8], mut each: impl FnMut(Seen)) -> Result<(), Malformed> {
        while !bytes.is_empty() {
            let used = self.step(bytes)?;
            bytes = &bytes[used..];
            if self.left == 0 && !matches!(self.state, State::Prefix { .. }) {
                if !matches!(self.state, State::Tag { shift: 0, .. } | State::Opaque) {
                    return Err(Malformed);
                }
                each(std::mem::take(&mut self.seen));
                self.state = State::Prefix { got: 0, bytes: [0; 5] };
            }
        }
        Ok(())
    }

    /// Consumes at least one byte.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let byte = bytes[0];
        match &mut self.state {
            State::Prefix { got, bytes: prefix } => {
                prefix[*got] = byte;
                *got += 1;
                if *got == prefix.len() {
                    let [compressed, length @ ..] = *prefix;
                    self.left = u32::from_be_bytes(length);
                    self.seen = Seen { length: self.left, ..Seen::default() };
                    self.state = match compressed {
                        0 => State::Tag { value: 0, shift: 0 },
                        1 => State::Opaque,
                        _ => return Err(Malformed),
                    };
                }
                return Ok(1);
            }
            State::Opaque => return Ok(self.skip(bytes.len())),
            State::Tag { value, shift } => {
                if !varint(value, shift, byte)? {
                    let field = u32::try_from(*value >> 3).map_err(|_| Malformed)?;
                    self.state = match *value & 7 {
                        0 => State::Varint,
                        1 => State::Body { field: 0, left: 8 },
                        2 => State::Length { field, value: 0, shift: 0 },
                        5 => State::Body { field: 0, left: 4 },
                        _ => return Err(Malformed),
                    };
                }
            }
            State::Varint => {
                if byte & 0x80 == 0 {
                    self.state = State::Tag { value: 0, shift: 0 };
                }
            }
            State::Length { field, value, shift } => {
                if !varint(value, shift, byte)? {
                    let left = u32::try_from(*value).map_err(|_| Malformed)?;
                    let field = *field;
                    if left > self.left.saturating_sub(1) {
                        return Err(Malformed);
                    }
                    self.text.clear();
                    self.state = State::Body { field, left };
                    if left == 0 {
                        self.end_of_field(field);
                    }
                }
            }
            State::Body { field, left } => {
                let field = *field;
                let used = (*left as usize).min(bytes.len());
                if field != 0 && (field == self.fields.type_url || field == self.fields.nonce) {
                    let room = TEXT_MAX.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&bytes[..used.min(room)]);
                }
                // `used` is at most `left`, which is a u32.
                *left -= used as u32;
                if *left == 0 {
                    self.end_of_field(field);
                }
                return Ok(self.skip(used));
            }
        }
        Ok(self.skip(1))
    }

    /// Counts bytes of the message; `self.left` never goes below zero.
    fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.left as usize);
        self.left -= count as u32;
        count
    }

    fn end_of_field(&mut self, field: u32) {
        self.state = State::Tag { value: 0, shift: 0 };
        if field == 0 {
            return;
        }
        let text = || String::from_utf8_lossy(&self.text).into_owned();
        if field == self.fields.type_url {
            self.seen.type_url = text();
        } else if field == self.fields.nonce {
            self.seen.nonce = text();
        } else if field == self.fields.error {
            self.seen.is_error = true;
        }
    }
}

/// Adds a byte to a varint; `false` when it was the last one.
fn varint(value: &mut u64, shift: &mut u32, byte: u8) -> Result<bool, Malformed> {
    if *shift > 63 {
        return Err(Malformed);
    }
    *value |= u64::from(byte & 0x7f) << *shift;
    *shift += 7;
    Ok(byte & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryResponse};

    use super::*;

    fn framed(message: &impl prost::Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        frame.extend(body);
        frame
    }

    #[test]
    fn finds_type_and_nonce_however_the_bytes_are_cut() {
        let response = DiscoveryResponse {
            version_info: "7".into(),
            resources: vec![proto::Any { type_url: "t".into(), value: vec![7; 3000].into() }; 3],
            type_url: "type.googleapis.com/x".into(),
            nonce: "n-1".into(),
            ..DiscoveryResponse::default()
        };
        let bytes = [framed(&response), framed(&DiscoveryResponse::default()), framed(&response)].concat();
        let size = u32::try_from(response.encoded_len()).unwrap();
        for piece in [1, 2, 3, 7, 64, 4096, bytes.len()] {
            let mut scanner = Scanner::new(Fields::SOTW_RESPONSE);
            let mut seen = Vec::new();
            for part in bytes.chunks(piece) {
                scanner.scan(part, |message| seen.push(message)).unwrap();
            }
            let full = Seen {
                type_url: "type.googleapis.com/x".into(),
                nonce: "n-1".into(),
                is_error: false,
                length: size,
            };
            assert_eq!(seen, [full.clone(), Seen::default(), full], "pieces of {piece}");
        }
    }

    #[test]
    fn sees_a_refusal() {
        let request = DeltaDiscoveryRequest {
            type_url: "x".into(),
            error_detail: Some(proto::google::rpc::Status { message: "bad".into(), ..Default::default() }),
            ..DeltaDiscoveryRequest::default()
        };
        let mut seen = Vec::new();
        Scanner::new(Fields::DELTA_REQUEST).scan(&framed(&request), |message| seen.push(message)).unwrap();
        assert!(seen[0].is_error);
    }

    #[test]
    fn refuses_bytes_that_are_no_messages() {
        for bytes in [&[9u8, 0, 0, 0, 1, 0][..], &[0, 0, 0, 0, 3, 0x22, 0x7f, 0], &[0, 0, 0, 0, 2, 0x07, 0]] {
            assert_eq!(Scanner::new(Fields::SOTW_REQUEST).scan(bytes, |_| {}), Err(Malformed), "{bytes:?}");
        }
    }
}
