//! Counts the messages in a gRPC body.

/// The header that tells what a body is.
pub const HEADER: &str = "content-type";
/// Bytes before each message: one of flags, four of its length.
const PREFIX: usize = 5;

/// Where in the body of one direction we are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    prefix: [u8; PREFIX],
    /// Bytes of `prefix` that have come.
    have: usize,
    /// Bytes of the message that have not come.
    left: u64,
}

impl Frames {
    /// Reads a piece of the body; answers how many messages began in it.
    pub fn read(&mut self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= skip as u64;
                data = data.get(skip..).unwrap_or_default();
                continue;
            }
            let taken = (PREFIX - self.have).min(data.len());
            let (head, rest) = data.split_at(taken);
            if let Some(prefix) = self.prefix.get_mut(self.have..self.have + taken) {
                prefix.copy_from_slice(head);
            }
            self.have += taken;
            data = rest;
            if self.have == PREFIX {
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.have = 0;
                begun += 1;
            }
        }
        begun
    }
}

/// Whether a content type is gRPC's.
#[must_use]
pub fn is(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Frames, is};

    #[test]
    fn content_types() {
        assert!(is(b"application/grpc") && is(b"application/grpc+proto"));
        assert!(!is(b"application/grpc-web") && !is(b"application/json") && !is(b""));
    }

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            sizes in prop::collection::vec(0usize..300, 0..20),
            cuts in prop::collection::vec(1usize..40, 1..200),
        ) {
            let mut body = Vec::new();
            for size in &sizes {
                body.push(0);
                body.extend(u32::try_from(*size).unwrap().to_be_bytes());
                body.extend(std::iter::repeat_n(7, *size));
            }
            let (mut frames, mut counted, mut rest, mut cuts) =
                (Frames::default(), 0, body.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                counted += frames.read(head);
                rest = tail;
            }
            prop_assert_eq!(counted, sizes.len() as u64);
        }

        #[test]
        fn any_bytes_are_harmless(data in prop::collection::vec(any::<u8>(), 0..400)) {
            Frames::default().read(&data);
        }
    }
}
