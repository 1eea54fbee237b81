//! Reads which messages pass in a gRPC byte stream, without keeping them.
//!
//! A stream of discovery messages is a run of frames (one byte of flags, four
//! bytes of length, then the message). The scanner takes the bytes in pieces of
//! any size and remembers of each message only a few short fields; resources
//! are skipped by their length, so a response of any size costs a few hundred
//! bytes.
//!
//! The type URL of a response comes after its resources. To tell the type at
//! the beginning, the scanner looks into the first resource: resources are
//! `Any`s, which begin with the type URL of what they hold.

use bytes::{Bytes, BytesMut};

/// Bytes before a message: a flag and the length.
pub const PREFIX: usize = 5;

/// A message with the bytes before it.
#[must_use]
pub fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.extend_from_slice(&[0]);
    // Messages are far shorter than 4 GiB.
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // There is room for it.
    message.encode(&mut frame).ok();
    frame.freeze()
}

/// Which field numbers hold what in a message; 0 for what it does not have.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    version: u32,
    resources: u32,
    /// Resources are `Resource`s, which hold the `Any`.
    wrapped: bool,
    type_url: u32,
    nonce: u32,
    error: u32,
}

impl Fields {
    /// `envoy.service.discovery.v3.DiscoveryRequest`.
    pub const SOTW_REQUEST: Self =
        Self { version: 1, resources: 0, wrapped: false, type_url: 4, nonce: 5, error: 6 };
    /// `envoy.service.discovery.v3.DiscoveryResponse`.
    pub const SOTW_RESPONSE: Self =
        Self { version: 1, resources: 2, wrapped: false, type_url: 4, nonce: 5, error: 0 };
    /// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
    pub const DELTA_REQUEST: Self =
        Self { version: 0, resources: 0, wrapped: false, type_url: 2, nonce: 6, error: 7 };
    /// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
    pub const DELTA_RESPONSE: Self =
        Self { version: 1, resources: 2, wrapped: true, type_url: 4, nonce: 5, error: 0 };
}

/// What was seen of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Type URL of the resources, as the message says.
    pub type_url: String,
    /// Type URL of the first resource that has one, when it came first.
    pub resource_type: String,
    /// Version; empty when there is none.
    pub version: String,
    /// Nonce; empty when there is none.
    pub nonce: String,
    /// Why the message refuses a response, when it does.
    pub error: Option<String>,
    /// Length of the message in bytes.
    pub length: u32,
    /// The message is compressed, or no protobuf: not all was seen.
    pub is_unreadable: bool,
}

/// What happens in the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The type of the message is known from here on: what its first resource
    /// or its own field says, whichever comes first. At most once a message.
    Type(String),
    /// The message ends here.
    End(Seen),
}

/// The bytes are no gRPC stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a gRPC stream")
    }
}

impl std::error::Error for Malformed {}

/// Longest text that is kept of a field; longer ones are cut.
const TEXT_MAX: usize = 512;
/// Type of an `Any` that holds a `Resource` with another `Any` in it.
const WRAPPER: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";
/// A message, a `Resource`, an `Any` in it, and the same once more.
const DEPTH: usize = 5;
/// Field of a `Resource` with the `Any`.
const RESOURCE_ANY: u32 = 2;
/// Fields of an `Any`.
const ANY_TYPE: u32 = 1;
const ANY_VALUE: u32 = 2;

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
    /// Inside a field of known length; the text of field 0 is not wanted.
    Body { field: u32, left: u32 },
    /// A message whose fields cannot be read.
    Opaque,
}

const START: State = State::Prefix { got: 0, bytes: [0; PREFIX] };
const TAG: State = State::Tag { value: 0, shift: 0 };

/// What the fields at a level belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Message,
    Resource,
    Any,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    kind: Kind,
    /// Bytes of it that have not come yet; never more than at the level above.
    left: u32,
}

/// Follows one direction of one stream.
#[derive(Debug)]
pub struct Scanner {
    fields: Fields,
    state: State,
    levels: [Level; DEPTH],
    depth: usize,
    seen: Seen,
    text: Vec<u8>,
    /// The type of this message was told.
    is_told: bool,
    /// The `Any` being read holds a `Resource`.
    is_wrapper: bool,
}

impl Scanner {
    /// A scanner for messages with those field numbers.
    #[must_use]
    pub fn new(fields: Fields) -> Self {
        Self {
            fields,
            state: START,
            levels: [Level { kind: Kind::Message, left: 0 }; DEPTH],
            depth: 0,
            seen: Seen::default(),
            text: Vec::new(),
            is_told: false,
            is_wrapper: false,
        }
    }

    /// Takes bytes up to the next event, or all; returns how many it took.
    ///
    /// # Errors
    /// When the bytes are no gRPC stream. The scanner is of no use afterwards.
    pub fn next(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>), Malformed> {
        let mut used = 0;
        loop {
            if let Some(seen) = self.settle() {
                return Ok((used, Some(Event::End(seen))));
            }
            if used == bytes.len() {
                return Ok((used, None));
            }
            let was_told = self.is_told;
            used += self.step(&bytes[used..])?;
            if self.is_told && !was_told {
                let first = [&self.seen.resource_type, &self.seen.type_url];
                let told = first.into_iter().find(|text| !text.is_empty());
                return Ok((used, Some(Event::Type(told.cloned().unwrap_or_default()))));
            }
        }
    }

    /// Closes what ends here; returns the message when it does.
    fn settle(&mut self) -> Option<Seen> {
        if matches!(self.state, State::Prefix { .. }) {
            return None;
        }
        while self.levels[self.depth].left == 0 {
            match self.state {
                State::Tag { shift: 0, .. } if self.depth > 0 => self.depth -= 1,
                State::Tag { shift: 0, .. } | State::Opaque => {
                    self.state = START;
                    self.is_told = false;
                    return Some(std::mem::take(&mut self.seen));
                }
                // It ends within a field.
                _ => self.give_up(),
            }
        }
        None
    }

    /// The rest of the message is no protobuf.
    fn give_up(&mut self) {
        self.seen.is_unreadable = true;
        self.depth = 0;
        self.state = State::Opaque;
    }

    /// Consumes at least one byte. There is one left at every level.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let byte = bytes[0];
        match &mut self.state {
            State::Prefix { got, bytes: prefix } => {
                prefix[*got] = byte;
                *got += 1;
                if *got == prefix.len() {
                    let prefix = *prefix;
                    self.begin(prefix)?;
                }
                return Ok(1);
            }
            State::Opaque => return Ok(self.skip(bytes.len())),
            State::Tag { value, shift } => match varint(value, shift, byte) {
                Varint::More => {}
                Varint::Done => {
                    let value = *value;
                    match u32::try_from(value >> 3) {
                        Ok(field) if field > 0 => self.field(field, value & 7),
                        _ => self.give_up(),
                    }
                }
                Varint::Bad => self.give_up(),
            },
            State::Varint => {
                if byte & 0x80 == 0 {
                    self.state = TAG;
                }
            }
            State::Length { field, value, shift } => match varint(value, shift, byte) {
                Varint::More => {}
                Varint::Done => {
                    let (field, value) = (*field, *value);
                    match u32::try_from(value) {
                        Ok(length) if length < self.levels[self.depth].left => {
                            self.skip(1);
                            self.enter(field, length);
                            return Ok(1);
                        }
                        _ => self.give_up(),
                    }
                }
                Varint::Bad => self.give_up(),
            },
            State::Body { field, left } => {
                let field = *field;
                let used = (*left as usize).min(bytes.len());
                if field != 0 {
                    let room = TEXT_MAX.saturating_sub(self.text.len());
                    self.text.extend_from_slice(&bytes[..used.min(room)]);
                }
                // `used` is at most `left`, which is a u32.
                *left -= used as u32;
                let is_done = *left == 0;
                self.skip(used);
                if is_done {
                    self.leave(field);
                }
                return Ok(used);
            }
        }
        Ok(self.skip(1))
    }

    fn begin(&mut self, [flags, length @ ..]: [u8; 5]) -> Result<(), Malformed> {
        let length = u32::from_be_bytes(length);
        self.seen = Seen { length, is_unreadable: flags == 1, ..Seen::default() };
        self.levels[0].left = length;
        self.depth = 0;
        self.is_told = false;
        self.state = match flags {
            0 => TAG,
            1 => State::Opaque,
            _ => return Err(Malformed),
        };
        Ok(())
    }

    /// Counts bytes; no level goes below zero.
    fn skip(&mut self, count: usize) -> usize {
        let count = (self.levels[self.depth].left as usize).min(count);
        for level in &mut self.levels[..=self.depth] {
            // At most what is left, which is a u32.
            level.left -= count as u32;
        }
        count
    }

    /// A field begins. Lengths are read only where fields have one.
    fn field(&mut self, field: u32, wire: u64) {
        self.state = match wire {
            0 => State::Varint,
            1 => State::Body { field: 0, left: 8 },
            2 => State::Length { field, value: 0, shift: 0 },
            5 => State::Body { field: 0, left: 4 },
            _ => return self.give_up(),
        };
        if let State::Body { left, .. } = self.state
            && left >= self.levels[self.depth].left
        {
            // The tag's last byte is not counted yet.
            self.give_up();
        }
    }

    /// The content of a field with a length begins: is read, looked into or skipped.
    fn enter(&mut self, field: u32, length: u32) {
        let kind = self.levels[self.depth].kind;
        let inner = match kind {
            Kind::Message if field == self.fields.resources && !self.is_told => {
                Some(if self.fields.wrapped { Kind::Resource } else { Kind::Any })
            }
            Kind::Resource if field == RESOURCE_ANY => Some(Kind::Any),
            Kind::Any if field == ANY_VALUE && self.is_wrapper => Some(Kind::Resource),
            _ => None,
        };
        if let Some(kind) = inner
            && self.depth + 1 < DEPTH
        {
            self.depth += 1;
            self.levels[self.depth] = Level { kind, left: length };
            self.is_wrapper = false;
            self.state = TAG;
            return;
        }
        let is_wanted = match kind {
            Kind::Message => {
                let Fields { version, type_url, nonce, error, .. } = self.fields;
                [version, type_url, nonce, error].contains(&field)
            }
            Kind::Any => field == ANY_TYPE,
            Kind::Resource => false,
        };
        let field = if is_wanted { field } else { 0 };
        self.text.clear();
        self.state = State::Body { field, left: length };
        if length == 0 {
            self.leave(field);
        }
    }

    /// The content of a field ends.
    fn leave(&mut self, field: u32) {
        self.state = TAG;
        if field == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&self.text).into_owned();
        if self.levels[self.depth].kind == Kind::Any {
            self.is_wrapper = text == WRAPPER;
            if !self.is_wrapper && !text.is_empty() {
                self.seen.resource_type = text;
                self.is_told = true;
                // Nothing more is wanted of the resource.
                let left = self.levels[1].left;
                self.depth = 0;
                if left > 0 {
                    self.state = State::Body { field: 0, left };
                }
            }
        } else if field == self.fields.type_url {
            self.is_told |= !text.is_empty();
            self.seen.type_url = text;
        } else if field == self.fields.nonce {
            self.seen.nonce = text;
        } else if field == self.fields.version {
            self.seen.version = text;
        } else if field == self.fields.error {
            self.seen.error = Some(reason(&self.text));
        }
    }
}

enum Varint {
    More,
    Done,
    Bad,
}

/// Adds a byte to a varint.
fn varint(value: &mut u64, shift: &mut u32, byte: u8) -> Varint {
    if *shift > 63 {
        return Varint::Bad;
    }
    *value |= u64::from(byte & 0x7f) << *shift;
    *shift += 7;
    if byte & 0x80 == 0 { Varint::Done } else { Varint::More }
}

/// The message of a `google.rpc.Status` that may be cut.
fn reason(mut status: &[u8]) -> String {
    let mut next = || -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = status.split_first()?;
            status = rest;
            match varint(&mut value, &mut shift, *byte) {
                Varint::More => {}
                Varint::Done => return Some(value),
                Varint::Bad => return None,
            }
        }
    };
    while let Some(tag) = next() {
        match (tag, next()) {
            // The code.
            (0x08, Some(_)) => {}
            (0x12, Some(length)) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(status.len());
                return String::from_utf8_lossy(&status[..length]).into_owned();
            }
            _ => break,
        }
    }
    String::new()
}

#[cfg(test)]
mod tests;
