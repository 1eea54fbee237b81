//! Bodies one after the other. What comes of each ends with a whole line, so
//! that one that breaks off does not spoil the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

/// The line that ends OpenMetrics.
const END: &[u8] = b"# EOF";
/// Longest line that is kept together.
const MAX_LINE: usize = 64 << 10;
/// Time for a source whose turn comes when the time is over: what it has sent
/// already is worth having.
const GRACE: Duration = Duration::from_millis(50);

/// A source: its body, and who is told when it breaks off.
pub(super) struct Source<B> {
    pub(super) body: B,
    pub(super) on_failure: Box<dyn FnOnce(&str) + Send + Sync>,
}

/// The text before the sources, the sources, the end.
pub(super) struct Joined<B> {
    first: Option<Bytes>,
    sources: std::vec::IntoIter<Source<B>>,
    current: Option<Current<B>>,
    last: Option<Bytes>,
    deadline: Instant,
}

struct Current<B> {
    source: Source<B>,
    /// The last line, whole or not, with the white space after it.
    kept: BytesMut,
    timer: Pin<Box<Sleep>>,
}

impl<B> Joined<B> {
    /// Joins; after `deadline` nobody is waited for. `has_end` puts the line at
    /// the end that OpenMetrics has there, and only there.
    pub(super) fn new(first: Bytes, sources: Vec<Source<B>>, has_end: bool, deadline: Instant) -> Self {
        let last = has_end.then_some(Bytes::from_static(b"# EOF\n"));
        Self { first: Some(first), sources: sources.into_iter(), current: None, last, deadline }
    }
}

impl<B> Current<B> {
    /// What can go on of the text so far: all but its last line.
    fn take(&mut self, data: &[u8]) -> Option<Bytes> {
        self.kept.extend_from_slice(data);
        let text = self.kept.trim_ascii_end();
        let last = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // White space without end counts as well.
        let at = if self.kept.len() - last > MAX_LINE { self.kept.len() } else { last };
        (at > 0).then(|| self.kept.split_to(at).freeze())
    }

    /// What is left at the end of a whole body.
    fn rest(&mut self) -> Option<Bytes> {
        if self.kept.trim_ascii_end() == END || self.kept.is_empty() {
            return None;
        }
        if !self.kept.ends_with(b"\n") {
            self.kept.extend_from_slice(b"\n");
        }
        Some(self.kept.split().freeze())
    }

    /// What is left of one that broke off: nothing, unless the line was whole.
    fn cut(mut self, reason: &str) -> Option<Bytes> {
        let rest = if self.kept.ends_with(b"\n") { self.rest() } else { None };
        (self.source.on_failure)(reason);
        rest
    }
}

impl<B> Body for Joined<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(first) = this.first.take().filter(|first| !first.is_empty()) {
                return Poll::Ready(Some(Ok(Frame::data(first))));
            }
            let Some(current) = &mut this.current else {
                let Some(source) = this.sources.next() else {
                    return Poll::Ready(this.last.take().map(|last| Ok(Frame::data(last))));
                };
                let until = this.deadline.max(Instant::now() + GRACE);
                let timer = Box::pin(sleep_until(until));
                this.current = Some(Current { source, kept: BytesMut::new(), timer });
                continue;
            };
            let polled = match Pin::new(&mut current.source.body).poll_frame(cx) {
                Poll::Ready(polled) => polled,
                Poll::Pending => {
                    ready!(current.timer.as_mut().poll(cx));
                    let rest = this.current.take().and_then(|current| current.cut("not whole in time"));
                    match rest {
                        Some(rest) => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                        None => continue,
                    }
                }
            };
            let piece = match polled {
                Some(Ok(frame)) => frame.into_data().ok().and_then(|data| current.take(&data)),
                Some(Err(error)) => {
                    let reason = format!("breaks off: {error}");
                    this.current.take().and_then(|current| current.cut(&reason))
                }
                None => this.current.take().and_then(|mut current| current.rest()),
            };
            if let Some(piece) = piece {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Pieces of a body, and how it goes on: whole, broken, or never.
    struct Pieces(VecDeque<Vec<u8>>, Rest);

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Rest {
        End,
        Break,
        Hang,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match (self.0.pop_front(), self.1) {
                (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                (None, Rest::End) => Poll::Ready(None),
                (None, Rest::Break) => Poll::Ready(Some(Err("gone"))),
                (None, Rest::Hang) => Poll::Pending,
            }
        }
    }

    /// The joined text, and how often something failed.
    async fn joined(has_end: bool, sources: &[(&[&str], Rest)]) -> (String, Vec<String>) {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let sources = sources.iter().map(|(pieces, rest)| {
            let failures = failures.clone();
            Source {
                body: Pieces(pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect(), *rest),
                on_failure: Box::new(move |reason: &str| failures.lock().unwrap().push(reason.to_owned())),
            }
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        let body = Joined::new(Bytes::from_static(b"own 1\n"), sources.collect(), has_end, deadline);
        let text = body.collect().await.unwrap().to_bytes();
        let failures = failures.lock().unwrap().clone();
        (String::from_utf8(text.to_vec()).unwrap(), failures)
    }

    #[tokio::test]
    async fn bodies_follow_each_other_line_by_line() {
        let sources = [
            (&["a 1\nb", " 2"][..], Rest::End),
            (&[][..], Rest::End),
            (&["c 3\n", "# EO", "F\n"][..], Rest::End),
            (&["# EOF\r\n\n"][..], Rest::End),
            (&["d # EOF"][..], Rest::End),
        ];
        let (text, failures) = joined(false, &sources).await;
        assert_eq!(text, "own 1\na 1\nb 2\nc 3\nd # EOF\n");
        assert!(failures.is_empty());
        assert_eq!(joined(true, &sources).await.0, format!("{text}# EOF\n"));
        assert_eq!(joined(true, &[]).await.0, "own 1\n# EOF\n");
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_leaves_whole_lines() {
        let start = Instant::now();
        let sources = [
            (&["a 1\nb 2"][..], Rest::Break),
            (&["c 3\n"][..], Rest::Break),
            (&["d 4\ne"][..], Rest::Hang),
            (&["f 5"][..], Rest::Hang),
            (&["g 6"][..], Rest::End),
        ];
        let (text, failures) = joined(false, &sources).await;
        assert_eq!(text, "own 1\na 1\nc 3\nd 4\ng 6\n");
        assert_eq!(
            failures,
            ["breaks off: gone", "breaks off: gone", "not whole in time", "not whole in time"]
        );
        assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&start.elapsed()));
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept() {
        for long in ["x".repeat(MAX_LINE + 1), "\n".repeat(MAX_LINE + 1)] {
            let mut current = Current {
                source: Source { body: (), on_failure: Box::new(|_| {}) },
                kept: BytesMut::new(),
                timer: Box::pin(sleep_until(Instant::now())),
            };
            assert_eq!(current.take(long.as_bytes()).unwrap().len(), long.len());
            assert!(current.kept.is_empty());
        }
    }

    #[tokio::test]
    async fn a_large_piece_ends_with_a_whole_line_and_without_its_end() {
        let lines = "a 1\n".repeat(MAX_LINE);
        let (whole, cut) = (format!("{lines}# EOF\n"), format!("{lines}b"));
        let sources = [(&[whole.as_str()][..], Rest::End), (&[cut.as_str()][..], Rest::Break)];
        assert_eq!(joined(false, &sources).await.0, format!("own 1\n{lines}{lines}"));
    }

    proptest! {
        /// However a text is cut into pieces, it comes out the same.
        #[test]
        fn pieces_do_not_matter(
            text in "([a-z]{0,3}|# EOF|\n|\r){0,20}",
            cuts in prop::collection::vec(0usize..60, 0..6),
        ) {
            let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let mut at = 0;
            let mut pieces = Vec::new();
            for end in ends {
                pieces.push(&text[at..end]);
                at = end;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let run = |pieces: &[&str]| runtime.block_on(joined(false, &[(pieces, Rest::End)])).0;
            let whole = run(&[&text]);
            prop_assert_eq!(&run(&pieces), &whole);
            prop_assert!(whole.ends_with('\n'));
            prop_assert!(whole.len() <= "own 1\n".len() + text.len() + 1);
        }
    }
}
