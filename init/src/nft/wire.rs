//! Netlink messages of the packet filter: how they are put together and taken
//! apart. Attributes are read with `netlink-packet-core`; they are written in
//! place here, since its `Emitable` wants every length known beforehand.

use netlink_packet_core::{NLA_F_NESTED, NLM_F_REQUEST, NlasIterator};

/// Subsystem of tables, chains and rules.
pub(super) const NF_TABLES: u8 = 10;
/// Subsystem that answers which iptables extensions there are.
pub(super) const NFT_COMPAT: u8 = 11;
/// Family of tables that see IPv4 and IPv6.
pub(super) const INET: u8 = 1;
/// All families.
pub(super) const UNSPECIFIED: u8 = 0;
/// Length of netlink's own header and of the packet filter's behind it.
pub(super) const HEADER: usize = 16;
const SUBHEADER: usize = 4;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The subsystem; none for the marks around a batch.
    pub(super) subsystem: u8,
    /// The message's type in it.
    pub(super) kind: u8,
    /// Further flags.
    pub(super) flags: u16,
    /// Family.
    pub(super) family: u8,
    /// The subsystem that a mark around a batch is for.
    pub(super) resource: u16,
}

impl Request {
    /// A request to the packet filter.
    pub(super) const fn new(kind: u8, flags: u16, family: u8) -> Self {
        Self { subsystem: NF_TABLES, kind, flags, family, resource: 0 }
    }

    /// A mark at one end of a batch.
    pub(super) const fn mark(kind: u8) -> Self {
        Self { subsystem: 0, kind, flags: 0, family: UNSPECIFIED, resource: NF_TABLES as u16 }
    }
}

/// Messages that are being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a message.
    pub(super) fn message(&mut self, request: Request, sequence: u32, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        let kind = u16::from(request.subsystem) << 8 | u16::from(request.kind);
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((request.flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        // The sender; the kernel knows it.
        self.bytes.extend([0; 4]);
        self.bytes.extend([request.family, 0]);
        self.bytes.extend(request.resource.to_be_bytes());
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds an attribute.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_with(kind, |writer| writer.bytes.extend(value));
    }

    /// Adds a number.
    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds a text.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute_with(kind, |writer| {
            writer.bytes.extend(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// Adds an attribute that holds attributes.
    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.attribute_with(kind | NLA_F_NESTED, body);
    }

    fn attribute_with(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        body(self);
        // No attribute of ours comes near the limit: rules have at most 128 expressions.
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Its type.
    pub(super) kind: u16,
    /// Its flags.
    pub(super) flags: u16,
    /// Of which of our messages it is the answer.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Family of what it tells about.
    pub(super) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or_default()
    }

    /// Its attributes.
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(SUBHEADER..).unwrap_or_default())
    }

    /// The number of the error it tells of, 0 for none.
    pub(super) fn error(&self) -> i32 {
        let bytes = self.payload.get(..4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, i32::from_ne_bytes).saturating_neg()
    }
}

/// The messages of one packet of the kernel. What is cut off is left out.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let u16_at = |at: usize| Some(u16::from_ne_bytes(header.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
        let length = usize::try_from(u32_at(0)?).ok()?;
        let payload = bytes.get(HEADER..length)?;
        let message = Message { kind: u16_at(4)?, flags: u16_at(6)?, sequence: u32_at(8)?, payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes that stand side by side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// All of them.
    pub(super) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        NlasIterator::new(self.0).map_while(Result::ok).map(|attribute| {
            let length = attribute.value_length();
            (attribute.kind(), attribute.into_inner().get(4..4 + length).unwrap_or_default())
        })
    }

    /// The value of one.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.iter().find(|(known, _)| *known == kind).map(|(_, value)| value)
    }

    /// The attributes in one.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.get(kind).map(Self)
    }

    /// The number in one.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.get(kind)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// The handle in one.
    pub(super) fn handle(self, kind: u16) -> Option<u64> {
        self.get(kind)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// The text in one.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        let bytes = self.get(kind)?.split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::default();
        for sequence in [7, 8] {
            writer.message(Request::new(3, 0x400, INET), sequence, |message| {
                message.text(1, "nat");
                message.nest(4, |hook| hook.number(2, 0xffff_ff9c));
            });
        }
        let read: Vec<Message<'_>> = messages(writer.bytes()).collect();
        assert_eq!(read.iter().map(|message| message.sequence).collect::<Vec<_>>(), [7, 8]);
        let message = read[1];
        assert_eq!((message.kind, message.flags, message.family()), (0x0a03, 0x401, INET));
        assert_eq!(message.attributes().text(1).unwrap(), "nat");
        assert_eq!(message.attributes().nested(4).unwrap().number(2), Some(0xffff_ff9c));
        assert_eq!(message.attributes().get(9), None);
    }

    #[test]
    fn broken_messages_are_no_panic() {
        let mut writer = Writer::default();
        writer.message(Request::mark(16), 1, |message| message.text(1, "table"));
        let whole = writer.bytes().to_vec();
        for end in 0..whole.len() {
            for message in messages(&whole[..end]) {
                message.attributes().iter().for_each(drop);
            }
        }
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                for message in messages(&broken).take(9) {
                    message.attributes().iter().for_each(drop);
                }
            }
        }
    }
}
