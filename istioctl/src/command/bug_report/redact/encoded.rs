//! Keys in texts: as PEM, whole or cut, and in base64, wrapped or not.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use regex::{Captures, Regex};

use super::{REMOVED, pattern};

/// What is known of a private key in PEM, whatever it is around.
const MARK: &str = "PRIVATE KEY";
/// Shortest base64 that is looked into.
const SHORTEST: usize = 24;
/// Shortest that may be the middle of a key.
const MIDDLE: usize = 200;
/// Begins of binary files whose contents nobody can read here: gzip, zip, a key store of Java.
const PACKED: [&[u8]; 3] = [&[0x1f, 0x8b], b"PK\x03\x04", &[0xfe, 0xed, 0xfe, 0xed]];

/// Private keys as PEM, also with the ends of their lines written as `\n`, and without
/// their ends where they were cut.
static KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?s)-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY( BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    )
});
/// The end of one.
static END: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?(?:-----)?"));
/// Base64, in one piece or in lines of some length.
static BASE64: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[A-Za-z0-9+/_-]{16,}(?:(?:\\[nr]|[ \t\r\n])+[A-Za-z0-9+/_-]{16,})*(?:(?:\\[nr]|[ \t\r\n])+[A-Za-z0-9+/_-]+={0,2})?={0,2}",
    )
});
/// Takes any padding, and letters that were cut.
static ENGINE: LazyLock<GeneralPurpose> = LazyLock::new(|| {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&alphabet::STANDARD, config)
});

/// A text without keys; `is_clean` tells whether a text has other secrets.
pub(super) fn clean<'a>(text: &'a str, is_clean: &dyn Fn(&str) -> bool) -> Cow<'a, str> {
    let whole = KEY.replace_all(text, |found: &Captures<'_>| {
        let block = found.get(2).map_or("", |block| block.as_str());
        format!("-----BEGIN {}PRIVATE KEY{block}----- {REMOVED}", &found[1])
    });
    let ends = without_begins(&whole).map_or(whole, Cow::Owned);
    let replace = |found: &Captures<'_>| {
        if is_secret(&found[0], is_clean) { REMOVED.to_owned() } else { found[0].to_owned() }
    };
    if let Cow::Owned(clean) = BASE64.replace_all(&ends, replace) {
        return Cow::Owned(clean);
    }
    ends
}

/// Keys whose begin was cut: what is before their ends and may be of them goes, too.
fn without_begins(text: &str) -> Option<String> {
    let mut clean = String::new();
    let mut copied = 0;
    for end in END.find_iter(text) {
        let is_of_key = |letter: char| {
            letter.is_ascii_alphanumeric() || letter.is_ascii_whitespace() || "+/=\\|".contains(letter)
        };
        let kept = text[copied..end.start()].trim_end_matches(is_of_key);
        clean += kept;
        // What stands before it on its line stays apart.
        clean += if kept.is_empty() || kept.ends_with('\n') { "" } else { " " };
        clean += REMOVED;
        copied = end.end();
    }
    (copied > 0).then(|| clean + &text[copied..])
}

/// What base64 is of.
fn decoded(text: &str) -> Vec<u8> {
    let mut letters: Vec<u8> = text
        .replace("\\n", "")
        .replace("\\r", "")
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    if letters.len() % 4 == 1 {
        letters.pop();
    }
    ENGINE.decode(letters).unwrap_or_default()
}

/// Whether base64 is of a key, or of a text with a secret.
fn is_secret(text: &str, is_clean: &dyn Fn(&str) -> bool) -> bool {
    if text.len() < SHORTEST {
        return false;
    }
    let bytes = decoded(text);
    if is_key(&bytes) || PACKED.iter().any(|begin| bytes.starts_with(begin)) {
        return true;
    }
    if let Ok(said) = std::str::from_utf8(&bytes)
        && !said.chars().any(|letter| letter.is_control() && !letter.is_ascii_whitespace())
    {
        return said.contains(MARK) || !is_clean(said) || is_middle(&bytes);
    }
    // Of something that was cut, or with more behind it, a part is enough.
    let has_mark = |bytes: &[u8]| bytes.windows(MARK.len()).any(|part| part == MARK.as_bytes());
    let letters: String = text.split(['\\', ' ', '\t', '\r', '\n']).collect();
    (0..4).any(|shift| letters.get(shift..).is_some_and(|rest| has_mark(&decoded(rest))))
}

/// Whether it is the middle of a key in PEM.
fn is_middle(bytes: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(byte);
    bytes.len() >= MIDDLE && bytes.contains(&b'\n') && bytes.iter().all(is_letter)
}

/// Whether it is a key or a key store in DER: a sequence that begins with its version,
/// which no certificate, request or public key does.
fn is_key(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else { return false };
    let skipped = if *length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    skipped <= 4 && matches!(rest.get(skipped..), Some([0x02, 0x01, 0..=3, _, ..]))
}

/// Whether a text as a whole is in a form that nobody can look into.
pub(super) fn is_packed(text: &str) -> bool {
    text.len() >= SHORTEST
        && (text.starts_with("H4sI") || text.starts_with("UEsDB") || text.starts_with("/u3+7"))
}
