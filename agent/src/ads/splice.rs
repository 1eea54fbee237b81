//! Takes messages out of a gRPC byte stream and finds the places where others
//! may be put in; what passes is not copied.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use xds::frame::{Event, Fields, Malformed, PREFIX, Scanner, Seen};

/// Bytes of a message that are held until its type is known. Types come first
/// in every message that has resources, and messages without are small.
const HOLD_MAX: usize = 1 << 20;
/// Longest message that is taken out of the stream.
pub const TAKE_MAX: usize = 64 << 20;
/// Taken messages begin with room for this; what they say of their length is
/// believed only as it comes.
const TAKE_FIRST: usize = 64 << 10;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is taken out and handed over.
    Take,
    /// It is left out.
    Drop,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It passed.
    Passed,
    /// It was taken out: the message without the bytes before it.
    Taken(Bytes),
    /// It was left out.
    Dropped,
    /// It was to be taken, or its type came late, and it is longer than what is held.
    TooLong,
}

/// A message that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was seen of it.
    pub seen: Seen,
    /// What became of it.
    pub fate: Fate,
}

#[derive(Debug)]
enum Part {
    /// Before a message.
    Between,
    /// The type is not known yet.
    Held {
        pieces: Vec<Bytes>,
        size: usize,
    },
    Passing,
    Taking(BytesMut),
    Dropping,
    TooLong,
}

/// One direction of a stream.
#[derive(Debug)]
pub struct Splice {
    scanner: Scanner,
    /// What becomes of a message is decided by its type; otherwise all pass.
    decides: bool,
    part: Part,
    /// What passes, and whether a message ends with it.
    out: VecDeque<(Bytes, bool)>,
    is_between: bool,
}

impl Splice {
    /// All messages pass.
    #[must_use]
    pub fn passing(fields: Fields) -> Self {
        Self {
            scanner: Scanner::new(fields),
            decides: false,
            part: Part::Between,
            out: VecDeque::new(),
            is_between: true,
        }
    }

    /// The type of a message decides.
    #[must_use]
    pub fn deciding(fields: Fields) -> Self {
        Self { decides: true, ..Self::passing(fields) }
    }

    /// Takes the next bytes; `decide` is asked once for each message, with an
    /// empty type for those that have none. With `apart`, what passes is cut
    /// wherever a message ends, so that others can be put in.
    ///
    /// # Errors
    /// When the bytes are no gRPC stream.
    pub fn feed(
        &mut self,
        chunk: &Bytes,
        apart: bool,
        mut decide: impl FnMut(&str) -> Verdict,
        mut done: impl FnMut(Done),
    ) -> Result<(), Malformed> {
        // Of the chunk, `from..at` passes and was not put out yet; of that, what
        // is after `begin` passes only if the message that is held does.
        let (mut at, mut from, mut begin) = (0, 0, 0);
        loop {
            let (used, event) = self.scanner.next(&chunk[at..])?;
            if used > 0 && matches!(self.part, Part::Between) {
                begin = at;
                self.part =
                    if self.decides { Part::Held { pieces: Vec::new(), size: 0 } } else { Part::Passing };
            }
            let before = at;
            at += used;
            if !matches!(self.part, Part::Between | Part::Held { .. } | Part::Passing) {
                self.put(chunk, from..before, true);
                self.keep(chunk.slice(before..at));
                from = at;
            }
            let kind = match &event {
                Some(Event::Type(kind)) => kind,
                _ => "",
            };
            if event.is_some() && matches!(self.part, Part::Held { .. }) {
                let verdict = match &event {
                    Some(Event::End(seen)) if seen.is_unreadable => Verdict::Drop,
                    _ => decide(kind),
                };
                if verdict != Verdict::Pass {
                    self.put(chunk, from..begin, true);
                    self.keep(chunk.slice(begin..at));
                    from = at;
                }
                self.decided(verdict);
            }
            match event {
                None => {
                    if matches!(self.part, Part::Held { .. }) {
                        self.put(chunk, from..begin, true);
                        self.keep(chunk.slice(begin..at));
                    } else {
                        self.put(chunk, from..at, matches!(self.part, Part::Between));
                    }
                    return Ok(());
                }
                Some(Event::Type(_)) => {}
                Some(Event::End(seen)) => {
                    let fate = self.end();
                    if apart && fate == Fate::Passed {
                        self.put(chunk, from..at, true);
                        from = at;
                    }
                    done(Done { seen, fate });
                }
            }
        }
    }

    fn put(&mut self, chunk: &Bytes, range: std::ops::Range<usize>, ends: bool) {
        if !range.is_empty() {
            self.out.push_back((chunk.slice(range), ends));
        }
    }

    /// Bytes of a message that does not pass, or not yet.
    fn keep(&mut self, piece: Bytes) {
        match &mut self.part {
            Part::Held { pieces, size } => {
                *size += piece.len();
                if *size > HOLD_MAX {
                    self.part = Part::TooLong;
                } else {
                    pieces.push(piece);
                }
            }
            Part::Taking(message) => {
                if message.len() + piece.len() > TAKE_MAX {
                    self.part = Part::TooLong;
                } else {
                    message.extend_from_slice(&piece);
                }
            }
            Part::Between | Part::Passing | Part::Dropping | Part::TooLong => {}
        }
    }

    fn decided(&mut self, verdict: Verdict) {
        let Part::Held { pieces, size } = &mut self.part else { return };
        match verdict {
            Verdict::Pass => {
                self.out.extend(pieces.drain(..).map(|piece| (piece, false)));
                self.part = Part::Passing;
            }
            Verdict::Take => {
                let mut message = BytesMut::with_capacity((*size).max(TAKE_FIRST));
                for piece in pieces {
                    message.extend_from_slice(piece);
                }
                self.part = Part::Taking(message);
            }
            Verdict::Drop => self.part = Part::Dropping,
        }
    }

    fn end(&mut self) -> Fate {
        match std::mem::replace(&mut self.part, Part::Between) {
            Part::Passing => Fate::Passed,
            Part::Taking(message) => {
                let message = message.freeze();
                Fate::Taken(message.slice(PREFIX.min(message.len())..))
            }
            Part::TooLong => Fate::TooLong,
            Part::Between | Part::Held { .. } | Part::Dropping => Fate::Dropped,
        }
    }

    /// The next bytes that pass.
    pub fn pop(&mut self) -> Option<Bytes> {
        let (bytes, ends) = self.out.pop_front()?;
        self.is_between = ends;
        Some(bytes)
    }

    /// Whether nothing waits to pass.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether a message may be put in before what passes next.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.is_between
    }
}

#[cfg(test)]
mod tests;
