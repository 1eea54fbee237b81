//! Lets clients in whose name for the server is the path of the socket.
//!
//! The gRPC libraries of C++, Python and Java send the path of a Unix socket
//! as `:authority` (`%2Fetc%2Fistio%2Fproxy%2FXDS`). That is no authority by
//! RFC 3986, and the HTTP/2 library ends such streams. Nobody here reads the
//! authority, so what cannot stand in one is replaced on the way in. The
//! length stays, and with it the state that both ends keep of the headers.
//!
//! Strings in Huffman code are left alone: those libraries do not use it here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of what a client sends before its first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Length of the head of a frame (RFC 9113, 4.1).
const HEAD: usize = 9;
/// Types of frames with headers, and their flags (RFC 9113, 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Bytes that say the priority.
const PRIORITY_LENGTH: usize = 5;
/// The field that is changed, and its index in the static table (RFC 7541,
/// appendix A).
const NAME: &[u8] = b":authority";
const INDEX: u8 = 1;
/// Stands for everything that an authority cannot hold.
const REPLACEMENT: u8 = b'-';

/// A stream of a client whose requests are made acceptable.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    inner: S,
    frames: Frames,
}

impl<S> Lenient<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.frames.pass(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Follows the frames of a client.
#[derive(Debug)]
struct Frames {
    at: At,
    fields: Fields,
}

impl Default for Frames {
    fn default() -> Self {
        Self { at: At::Skip { left: PREFACE }, fields: Fields::Begin }
    }
}

/// Where in a frame.
#[derive(Debug)]
enum At {
    Head {
        got: usize,
        bytes: [u8; HEAD],
    },
    /// The byte that says how much padding there is; `length` is what follows
    /// the priority.
    Padding {
        length: usize,
        priority: usize,
    },
    /// What comes before the header fields.
    Priority {
        left: usize,
        length: usize,
        padding: usize,
    },
    Fields {
        left: usize,
        padding: usize,
    },
    Skip {
        left: usize,
    },
}

impl Frames {
    /// Takes the next bytes and changes what has to be changed in them.
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = self.step(bytes);
            bytes = &mut bytes[used..];
            self.settle();
        }
    }

    /// Consumes at least one byte.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        match &mut self.at {
            At::Head { got, bytes: head } => {
                head[*got] = bytes[0];
                *got += 1;
                if *got == HEAD {
                    let head = *head;
                    self.begin(head);
                }
                1
            }
            At::Padding { length, priority } => {
                let padding = usize::from(bytes[0]).min(*length);
                self.at = At::Priority { left: *priority, length: *length - padding, padding };
                1
            }
            At::Priority { left, .. } | At::Skip { left } => {
                let used = bytes.len().min(*left);
                *left -= used;
                used
            }
            At::Fields { left, .. } => {
                let used = bytes.len().min(*left);
                *left -= used;
                self.fields.pass(&mut bytes[..used]);
                used
            }
        }
    }

    fn begin(&mut self, head: [u8; HEAD]) {
        let [high, middle, low, kind, flags, ..] = head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let has = |flag: u8| flags & flag != 0;
        self.at = match kind {
            HEADERS => {
                self.fields = Fields::Begin;
                let priority = if has(PRIORITY) { PRIORITY_LENGTH.min(length) } else { 0 };
                if has(PADDED) && length > 0 {
                    // The byte itself is part of the length, as the priority is.
                    let length = length - 1;
                    let priority = priority.min(length);
                    At::Padding { length: length - priority, priority }
                } else {
                    At::Priority { left: priority, length: length - priority, padding: 0 }
                }
            }
            CONTINUATION => At::Fields { left: length, padding: 0 },
            _ => At::Skip { left: length },
        };
    }

    /// Leaves the parts of a frame that are over, as empty ones are at once.
    fn settle(&mut self) {
        if let At::Priority { left: 0, length, padding } = self.at {
            self.at = At::Fields { left: length, padding };
        }
        if let At::Fields { left: 0, padding } = self.at {
            self.at = At::Skip { left: padding };
        }
        if let At::Skip { left: 0 } = self.at {
            self.at = At::Head { got: 0, bytes: [0; HEAD] };
        }
    }
}

/// Where in a block of header fields (RFC 7541, 5 and 6). It goes on in the
/// next frame where one frame ends.
#[derive(Debug)]
enum Fields {
    Begin,
    /// More bytes of an index; a value comes after it if `has_value`.
    Index {
        has_value: bool,
    },
    /// The first byte of a string's length.
    Length(Role),
    /// More bytes of a string's length.
    MoreLength {
        text: Text,
        shift: u32,
    },
    Text(Text),
}

/// What a string is.
#[derive(Clone, Copy, Debug)]
enum Role {
    Name,
    Value { is_authority: bool },
}

#[derive(Clone, Copy, Debug)]
struct Text {
    role: Role,
    left: usize,
    is_huffman: bool,
    /// Bytes of a name that are those of `:authority` so far.
    same: usize,
}

impl Fields {
    fn pass(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let used = self.step(bytes);
            bytes = &mut bytes[used..];
            if let Self::Text(text @ Text { left: 0, .. }) = *self {
                *self = match text.role {
                    Role::Name => Self::Length(Role::Value { is_authority: text.same == NAME.len() }),
                    Role::Value { .. } => Self::Begin,
                };
            }
        }
    }

    /// Consumes at least one byte.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let byte = bytes[0];
        *self = match *self {
            Self::Begin => Self::field(byte),
            Self::Index { .. } if byte & 0x80 != 0 => return 1,
            Self::Index { has_value: true } => Self::Length(Role::Value { is_authority: false }),
            Self::Index { has_value: false } => Self::Begin,
            Self::Length(role) => {
                let left = usize::from(byte & 0x7f);
                let text = Text { role, left, is_huffman: byte & 0x80 != 0, same: 0 };
                if left == 0x7f { Self::MoreLength { text, shift: 0 } } else { Self::Text(text) }
            }
            Self::MoreLength { mut text, shift } => {
                // A length beyond any frame is the HTTP/2 library's to refuse.
                let more = usize::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
                text.left = text.left.saturating_add(more);
                if byte & 0x80 == 0 {
                    Self::Text(text)
                } else {
                    Self::MoreLength { text, shift: shift.saturating_add(7) }
                }
            }
            Self::Text(mut text) => {
                let used = bytes.len().min(text.left);
                text.take(&mut bytes[..used]);
                *self = Self::Text(text);
                return used;
            }
        };
        1
    }

    /// What follows the first byte of a field.
    fn field(byte: u8) -> Self {
        let (bits, is_literal) = match byte {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let full = (1u8 << bits) - 1;
        match (is_literal, byte & full) {
            (_, index) if index == full => Self::Index { has_value: is_literal },
            (false, _) => Self::Begin,
            (true, 0) => Self::Length(Role::Name),
            (true, index) => Self::Length(Role::Value { is_authority: index == INDEX }),
        }
    }
}

impl Text {
    /// Takes the next bytes, of which all belong to it.
    fn take(&mut self, bytes: &mut [u8]) {
        self.left -= bytes.len();
        match self.role {
            _ if self.is_huffman => {}
            Role::Name => {
                let matches = NAME.get(self.same..self.same + bytes.len()) == Some(bytes);
                // Once it differs it can never become the whole name.
                self.same = if matches { self.same + bytes.len() } else { NAME.len() + 1 };
            }
            Role::Value { is_authority: false } => {}
            Role::Value { is_authority: true } => {
                bytes.iter_mut().filter(|byte| !fits(**byte)).for_each(|byte| *byte = REPLACEMENT);
            }
        }
    }
}

/// Whether a byte can stand in an authority, be it a name or an address.
fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~:[]".contains(&byte)
}

#[cfg(test)]
mod tests;
