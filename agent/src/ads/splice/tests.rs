use proptest::prelude::*;
use proto::Any;
use proto::envoy::service::discovery::v3::DiscoveryResponse;
use xds::frame::framed;

use super::*;

const PASS: &str = "t/pass";
const TAKE: &str = "t/take";
const DROP: &str = "t/drop";

fn decide(kind: &str) -> Verdict {
    match kind {
        PASS => Verdict::Pass,
        TAKE => Verdict::Take,
        _ => Verdict::Drop,
    }
}

fn message(kind: &str, sizes: &[usize], nonce: &str) -> Bytes {
    let any = |size: &usize| Any { type_url: kind.into(), value: vec![7; *size].into() };
    framed(&DiscoveryResponse {
        resources: sizes.iter().map(any).collect(),
        type_url: kind.into(),
        nonce: nonce.into(),
        ..DiscoveryResponse::default()
    })
}

fn joined(parts: &[&Bytes]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}

/// Feeds the bytes in pieces; puts `insert` in wherever it may.
fn run(bytes: &Bytes, cuts: &[usize], insert: Option<&Bytes>) -> (Vec<u8>, Vec<Done>) {
    let mut splice = Splice::deciding(Fields::SOTW_RESPONSE);
    let (mut out, mut done) = (Vec::new(), Vec::new());
    let (mut at, mut cuts) = (0, cuts.iter().cycle());
    while at < bytes.len() {
        let end = (at + cuts.next().copied().unwrap_or(bytes.len()).max(1)).min(bytes.len());
        splice.feed(&bytes.slice(at..end), insert.is_some(), decide, |each| done.push(each)).unwrap();
        at = end;
        loop {
            if let Some(insert) = insert
                && splice.is_between()
            {
                out.extend_from_slice(insert);
            }
            let Some(piece) = splice.pop() else { break };
            out.extend_from_slice(&piece);
        }
    }
    (out, done)
}

#[test]
fn only_what_passes_comes_out_and_what_is_taken_is_whole() {
    let pass = message(PASS, &[10, 2000], "1");
    let take = message(TAKE, &[3000], "2");
    let drop = message(DROP, &[500], "3");
    let bare = message(PASS, &[], "4");
    let bytes = Bytes::from(joined(&[&pass, &take, &bare, &drop, &pass, &take]));
    for piece in [1, 2, 5, 17, 100, 4096, bytes.len()] {
        let (out, done) = run(&bytes, &[piece], None);
        assert_eq!(out, joined(&[&pass, &bare, &pass]), "pieces of {piece}");
        let fates: Vec<_> = done.iter().map(|done| (done.seen.nonce.as_str(), done.fate.clone())).collect();
        let taken = Fate::Taken(take.slice(PREFIX..));
        let expected = [
            ("1", Fate::Passed),
            ("2", taken.clone()),
            ("4", Fate::Passed),
            ("3", Fate::Dropped),
            ("1", Fate::Passed),
            ("2", taken),
        ];
        assert_eq!(fates, expected, "pieces of {piece}");
    }
}

#[test]
fn what_passes_whole_is_one_piece() {
    let bytes = Bytes::from([message(PASS, &[10], "1"), message(PASS, &[10], "2")].concat());
    let mut splice = Splice::deciding(Fields::SOTW_RESPONSE);
    splice.feed(&bytes, false, decide, |_| {}).unwrap();
    let piece = splice.pop().unwrap();
    assert_eq!((piece.as_ptr(), piece.len()), (bytes.as_ptr(), bytes.len()), "not copied");
    assert!(splice.pop().is_none() && splice.is_between());
}

#[test]
fn a_message_that_hides_its_type_is_not_kept_for_ever() {
    // Resources without a type, and the type after them.
    let hidden = message("", &[HOLD_MAX / 2, HOLD_MAX], "1");
    let pass = message(PASS, &[10], "2");
    let (out, done) = run(&Bytes::from([hidden, pass.clone()].concat()), &[16 << 10], None);
    assert_eq!(out, pass);
    assert_eq!(done[0].fate, Fate::TooLong);
    // Neither is one that is taken.
    let long = message(TAKE, &[TAKE_MAX], "1");
    let (out, done) = run(&Bytes::from([long, pass.clone()].concat()), &[256 << 10], None);
    assert_eq!(out, pass);
    assert_eq!(done[0].fate, Fate::TooLong);
    assert_eq!(done[0].seen.nonce, "1", "it can be refused all the same");
}

#[test]
fn what_cannot_be_read_does_not_pass_and_does_no_harm() {
    let garbage = Bytes::from_static(&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]);
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 2, 1, 2]);
    let pass = message(PASS, &[10], "1");
    let bytes = Bytes::from(joined(&[&garbage, &pass, &compressed, &pass]));
    for piece in [1, 3, 1000] {
        assert_eq!(run(&bytes, &[piece], None).0, joined(&[&pass, &pass]));
    }
    let mut splice = Splice::deciding(Fields::SOTW_RESPONSE);
    assert!(splice.feed(&Bytes::from_static(b"HTTP/1.1 200 OK"), false, decide, |_| {}).is_err());
}

#[test]
fn without_decisions_every_message_passes_at_once() {
    let bytes = Bytes::from([message("", &[HOLD_MAX, 1 << 20], "1"), message(DROP, &[10], "2")].concat());
    let mut splice = Splice::passing(Fields::SOTW_RESPONSE);
    splice.feed(&bytes.slice(..100), false, decide, |_| {}).unwrap();
    assert_eq!(splice.pop().unwrap().len(), 100);
    assert!(!splice.is_between());
    let mut fates = Vec::new();
    splice.feed(&bytes.slice(100..), false, decide, |done| fates.push(done.fate)).unwrap();
    assert_eq!(fates, [Fate::Passed, Fate::Passed]);
    assert_eq!(splice.pop().unwrap().len(), bytes.len() - 100);
}

proptest! {
    #[test]
    fn messages_are_put_in_between_messages_only(
        kinds in proptest::collection::vec((0..3_usize, proptest::collection::vec(0..400_usize, 0..4)), 0..8),
        cuts in proptest::collection::vec(1..300_usize, 1..12),
    ) {
        let kind = |at: usize| [PASS, TAKE, DROP][at];
        let messages: Vec<Bytes> = kinds.iter().map(|(at, sizes)| message(kind(*at), sizes, "n")).collect();
        let bytes = Bytes::from(messages.concat());
        let insert = message("t/insert", &[3], "i");
        let (plain, done) = run(&bytes, &cuts, None);
        let passing = kinds.iter().zip(&messages).filter(|((at, _), _)| *at == 0);
        let passing: Vec<&Bytes> = passing.map(|(_, message)| message).collect();
        prop_assert_eq!(&plain, &passing.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>().concat());
        prop_assert_eq!(done.len(), messages.len());
        // With the inserted messages taken out again, the same is left.
        let (mixed, again) = run(&bytes, &cuts, Some(&insert));
        prop_assert_eq!(again, done);
        let mut rest = Splice::deciding(Fields::SOTW_RESPONSE);
        let mut left = Vec::new();
        rest.feed(&Bytes::from(mixed), false, decide, |_| {}).unwrap();
        while let Some(piece) = rest.pop() {
            left.extend_from_slice(&piece);
        }
        prop_assert_eq!(left, plain);
    }
}
