//! Secrets in running text: what a name before it tells, and what looks like one.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use regex::{Captures, Regex};

use super::names::{is_header, is_plural, is_secret, is_secret_query};
use super::{REMOVED, pattern};

/// Values that say that there is none.
const NOTHING: [&str; 7] = ["false", "true", "null", "nil", "<nil>", "none", "(none)"];
/// Words after the name of a way to prove who calls that are no proof.
const PROSE: [&str; 7] =
    ["authentication", "authorization", "challenge", "credential", "credentials", "realm", "scheme"];

/// Digits of a number of secrets.
const DIGITS: usize = 6;

/// Bytes before a name that tell how its value is written.
const HEAD: usize = 4096;

/// JSON web tokens.
static TOKEN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*"));
/// What is known to be a key by its begin: GitHub, GitLab, Slack, AWS, Google, Vault, npm, Stripe, SendGrid.
static KNOWN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\b(?:gh[opusr]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{8,}|glpat-[A-Za-z0-9_-]{8,}|xox[a-z]-[A-Za-z0-9-]{8,}",
        r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{8,}|hv[sb]\.[A-Za-z0-9_-]{8,}",
        r"|npm_[A-Za-z0-9]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{8,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"
    ))
});
/// The way to prove who calls, and the proof.
static SCHEME: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(bearer|basic|negotiate|apikey)((?:[ \t]|%20|\+)+)([A-Za-z0-9+/=._~%-]{3,})")
});
/// What proves it by a digest, to the end of the line.
static DIGEST: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(digest[ \t]+)(?:username|realm|c?nonce|response|uri|qop|nc|opaque)=.*")
});
/// A URL up to its end.
static URL: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)\b([a-z][a-z0-9+.-]*:(?:\\?/){2})([^\s"'<>`]*)"#));
/// User and password before an address, as drivers of databases write it.
static DRIVER: LazyLock<Regex> = LazyLock::new(|| pattern(r#"[^\s:@/"'=]+:[^\s"']+@((?:tcp|tcp6|unix)\()"#));

/// A line without what is secret.
pub(super) fn line(text: &str) -> String {
    let mut clean = pairs(text);
    let mut replace = |pattern: &Regex, with: &dyn Fn(&Captures<'_>) -> String| {
        if let Cow::Owned(next) = pattern.replace_all(&clean, |found: &Captures<'_>| with(found)) {
            clean = Cow::Owned(next);
        }
    };
    replace(&URL, &|found| format!("{}{}", &found[1], without_user(&found[2])));
    replace(&DRIVER, &|found| format!("{REMOVED}@{}", &found[1]));
    replace(&TOKEN, &|_| REMOVED.to_owned());
    replace(&KNOWN, &|_| REMOVED.to_owned());
    replace(&DIGEST, &|found| format!("{}{REMOVED}", &found[1]));
    replace(&SCHEME, &|found| {
        let proof = if is_proof(&found[1], &found[3]) { REMOVED } else { &found[3] };
        format!("{}{}{proof}", &found[1], &found[2])
    });
    clean.into_owned()
}

/// Whether a word proves who calls, or only goes on with the sentence.
fn is_proof(scheme: &str, word: &str) -> bool {
    if PROSE.contains(&word.to_ascii_lowercase().as_str()) {
        return false;
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return word.len() >= 8 || word.bytes().any(|byte| byte.is_ascii_digit());
    }
    // `Basic information` is no user with a password.
    let plain = word.trim_end_matches('=');
    let is_pair = |bytes: Vec<u8>| bytes.contains(&b':') && bytes.is_ascii();
    [STANDARD_NO_PAD.decode(plain), URL_SAFE_NO_PAD.decode(plain)].into_iter().flatten().any(is_pair)
        || word.bytes().skip(1).any(|byte| !byte.is_ascii_lowercase())
}

/// What follows the scheme of a URL, without user and password.
fn without_user(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let is_address = |text: &str| {
        let port = text.rsplit_once(':').map_or("", |(_, port)| port);
        text.ends_with(']') || port.bytes().all(|byte| byte.is_ascii_digit())
    };
    // A password may have what ends an authority; then what looks like a port is none.
    let has_user = authority.contains('@') || !is_address(authority);
    match rest.rfind('@') {
        Some(at) if has_user => format!("{REMOVED}@{}", &rest[at + 1..]),
        _ => rest.to_owned(),
    }
}

/// A text without the values that follow names of secrets.
fn pairs(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut clean = String::new();
    let (mut copied, mut at) = (0, 0);
    while at < bytes.len() {
        if !is_of_name(bytes[at]) {
            at += 1;
            continue;
        }
        let begin = at;
        while at < bytes.len() && is_of_name(bytes[at]) {
            at += 1;
        }
        if let Some(value) = value_of(text, begin..at) {
            clean += &text[copied..value.start];
            clean += REMOVED;
            copied = value.end;
            at = value.end;
        }
    }
    if copied == 0 { text.into() } else { (clean + &text[copied..]).into() }
}

/// Whether a text ends with a name of a secret, to which what follows belongs.
pub(super) fn awaits_secret(text: &str) -> bool {
    let before = text.trim_end();
    let Some(before) = before.strip_suffix(':').or_else(|| before.strip_suffix('=')) else { return false };
    let before = before.trim_end().trim_end_matches(['"', '\'', '\\', ']']);
    let begin = before.rfind(|letter: char| !letter.is_ascii() || !is_of_name(letter as u8));
    is_secret(&before[begin.map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8))..])
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// How a name and its value are written.
struct Place<'a> {
    text: &'a str,
    /// Where the name begins.
    begin: usize,
    name: &'a str,
    /// Whether it is a parameter of a URL.
    is_query: bool,
    /// Whether it is a flag of a command line.
    is_flag: bool,
}

/// Where the value is that belongs to a name, if that is secret.
fn value_of(text: &str, name: Range<usize>) -> Option<Range<usize>> {
    let (before, whole) = (&text[..name.start], &text[name.clone()]);
    let is_flag = whole.starts_with('-') && !before.ends_with(char::is_alphanumeric);
    // Most names have no value: that is seen at once.
    let next = text[name.end..].trim_start_matches([' ', '\t']).chars().next()?;
    if !("=:%]\"'`\\".contains(next) || is_flag) {
        return None;
    }
    let escaped = whole.strip_prefix("u0026").filter(|_| before.ends_with('\\'));
    let is_query = before.ends_with(['?', '&']) || escaped.is_some();
    let plain = escaped.unwrap_or(whole).trim_start_matches('-').trim_matches('.');
    if !(is_secret(plain) || is_query && is_secret_query(plain)) {
        return None;
    }
    let place = Place { text, begin: name.start, name: plain, is_query, is_flag };
    let value = place.value(name.end)?;
    let said = &text[value.clone()];
    let count = said.split([' ', ',', ';']).next().unwrap_or_default();
    let is_count =
        is_plural(plain) && count.len() <= DIGITS && count.bytes().all(|byte| byte.is_ascii_digit());
    let is_nothing = said.is_empty() || is_count || NOTHING.contains(&said.trim_end_matches([',', '}', ')']));
    (!is_nothing).then_some(value)
}

impl Place<'_> {
    /// Where the value is, behind the end of the name.
    fn value(&self, mut at: usize) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let byte = |at: usize| bytes.get(at).copied();
        let blanks = |mut at: usize| {
            while matches!(byte(at), Some(b' ' | b'\t')) {
                at += 1;
            }
            at
        };
        while byte(at) == Some(b']') {
            at += 1;
        }
        let mut is_quoted = false;
        let mut outer = self.head();
        let behind = at + bytes[at..].iter().take_while(|byte| **byte == b'\\').count();
        if matches!(byte(behind), Some(b'"' | b'\'' | b'`')) {
            outer = outer.trim_end_matches(['"', '\'', '`', '\\']);
            at = behind + 1;
            is_quoted = true;
        }
        let separator = blanks(at);
        let rest = &self.text[separator..];
        let is_colon = rest.starts_with(':');
        if rest.starts_with("://") || rest.starts_with("::") {
            return None;
        }
        // A part of a path names an object, of which something is told.
        if is_colon && !is_quoted && self.text[..self.begin].ends_with('/') {
            return None;
        }
        let encoded = rest.get(..3).is_some_and(|three| ["%3D", "%3d", "%3A", "%3a"].contains(&three));
        let begin = match byte(separator) {
            Some(b'=' | b':') => {
                let more = matches!(byte(separator + 1), Some(b'=' | b'>'));
                separator + 1 + usize::from(more)
            }
            Some(b',') if is_quoted => separator + 1,
            Some(b'%') if encoded => separator + 3,
            Some(first) if self.is_flag && separator > at && first != b'-' => separator,
            _ => return None,
        };
        let is_spaced = blanks(begin) > begin;
        let begin = blanks(begin);
        if begin >= bytes.len() || matches!(byte(begin), Some(b'\n' | b'\r')) {
            return None;
        }
        if let Some(inner) = self.quoted(begin) {
            return Some(inner);
        }
        let line = self.text[begin..].find(['\n', '\r']).map_or(bytes.len(), |end| begin + end);
        // What is in a bracket, or in a block, begins on the next line.
        if self.text[begin..line].trim_end().chars().all(|letter| "|>+-[{(".contains(letter)) {
            return None;
        }
        // `-H "x-api-key: a b"`: it is all that is quoted.
        let is_header_of_flag = !is_quoted && outer.ends_with(['"', '\'', '`']);
        let is_line = is_spaced && (self.is_first() || is_header_of_flag);
        let is_all = is_colon && (is_header(self.name) || is_line);
        Some(begin..self.end(begin..line, outer, is_all))
    }

    /// The inside of a quoted value.
    fn quoted(&self, begin: usize) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let escapes = bytes[begin..].iter().take_while(|byte| **byte == b'\\').count();
        let quote = *bytes.get(begin + escapes)?;
        if !matches!(quote, b'"' | b'\'' | b'`') {
            return None;
        }
        let inner = begin + escapes + 1;
        let (mut at, mut run) = (inner, 0);
        while let Some(byte) = bytes.get(at) {
            match *byte {
                b'\n' if quote != b'`' => break,
                b'\\' => run += 1,
                found if found == quote && run == escapes => {
                    // Two of them are one, in YAML.
                    if quote == b'\'' && bytes.get(at + 1) == Some(&quote) {
                        at += 1;
                    } else {
                        return Some(inner..at - escapes);
                    }
                    run = 0;
                }
                _ => run = 0,
            }
            at += 1;
        }
        Some(inner..at)
    }

    /// What is before the name on its line; of a long one, not all.
    fn head(&self) -> &str {
        let begin = self.text.floor_char_boundary(self.begin.saturating_sub(HEAD));
        self.text[begin..self.begin].rsplit('\n').next().unwrap_or_default()
    }

    /// Whether nothing is before the name on its line, as in YAML and in headers.
    fn is_first(&self) -> bool {
        self.head().chars().all(|letter| " \t-\"'<>".contains(letter))
    }

    /// Where a value ends that is not quoted; `outer` goes before its name.
    fn end(&self, rest: Range<usize>, outer: &str, is_all: bool) -> usize {
        let begin = rest.start;
        let text = &self.text[rest];
        if self.is_query {
            let stop = |letter: char| letter.is_whitespace() || "&#\"'`\\<>".contains(letter);
            return begin + text.find(stop).unwrap_or(text.len());
        }
        let closing = open_quote(outer).and_then(|quote| text.find(quote)).unwrap_or(text.len());
        if is_all {
            return begin + closing;
        }
        let blank = text.find(char::is_whitespace).unwrap_or(text.len());
        // `map[Cookie:[a=b; c=d]]`.
        let closed = match text.as_bytes().first() {
            Some(b'[') => text.find(']'),
            Some(b'{') => text.find('}'),
            Some(b'(') => text.find(')'),
            _ => None,
        };
        let end = match closed {
            Some(end) if end >= blank => {
                let rest = &text[end + 1..];
                end + 1 + rest.find(char::is_whitespace).unwrap_or(rest.len())
            }
            _ => blank,
        };
        begin + end.min(closing)
    }
}

/// The quote that a text opens and does not close; one between letters is an apostrophe.
fn open_quote(text: &str) -> Option<char> {
    let mut open = None;
    let mut letters = text.chars().peekable();
    let mut before = ' ';
    while let Some(letter) = letters.next() {
        let is_inside = before.is_alphanumeric() && letters.peek().is_some_and(|next| next.is_alphanumeric());
        match open {
            Some(quote) if quote == letter => open = None,
            None if "\"'`".contains(letter) && !is_inside => open = Some(letter),
            _ => {}
        }
        before = letter;
    }
    open
}
