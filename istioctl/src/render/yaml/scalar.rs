//! How a text is written: plain, quoted, or as a block of lines.

use super::{WIDTH, Writer};

/// A text and the way it can be written.
pub(super) struct Scalar<'a> {
    text: &'a str,
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// What of a text rules out a style.
#[derive(Default)]
struct Traits {
    has_indicator: bool,
    has_special: bool,
    has_break: bool,
    begins_or_ends_blank: bool,
    ends_with_space: bool,
    has_space_after_break: bool,
    has_break_after_space: bool,
}

impl<'a> Scalar<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let traits = Traits::of(text);
        let is_multiline = text.contains('\n');
        let is_double = traits.has_break_after_space || traits.has_special;
        let style = if is_multiline {
            if is_double || traits.ends_with_space { Style::Double } else { Style::Literal }
        } else if reads_as_another_type(text) || is_double || traits.has_space_after_break {
            Style::Double
        } else if traits.has_indicator || traits.begins_or_ends_blank || traits.has_break {
            Style::Single
        } else {
            Style::Plain
        };
        Self { text, style }
    }

    /// Writes it; `indent` is where lines after the first begin.
    pub(super) fn write(&self, out: &mut Writer<'_>, indent: usize, is_name: bool) {
        match self.style {
            Style::Literal if !is_name => self.literal(out, indent),
            Style::Plain => folded(out, self.text, indent, !is_name),
            Style::Single => {
                out.put("'");
                folded(out, &self.text.replace('\'', "''"), indent, !is_name);
                out.put("'");
            }
            Style::Double | Style::Literal => self.double(out, indent, !is_name),
        }
    }

    fn literal(&self, out: &mut Writer<'_>, indent: usize) {
        let text = self.text;
        out.put("|");
        if text.starts_with([' ', '\n']) {
            out.put("2");
        }
        if !text.ends_with('\n') {
            out.put("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            out.put("+");
        }
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            out.end_line();
            if !line.is_empty() {
                out.put(&" ".repeat(indent));
                out.put(line);
            }
        }
        out.end_line();
    }

    fn double(&self, out: &mut Writer<'_>, indent: usize, may_break: bool) {
        out.put("\"");
        let letters: Vec<char> = self.text.chars().collect();
        let mut is_after_space = false;
        for (at, letter) in letters.iter().copied().enumerate() {
            if letter == ' ' {
                let is_inside = at > 0 && at + 1 < letters.len();
                if may_break && !is_after_space && out.column > WIDTH && is_inside {
                    out.end_line();
                    out.put(&" ".repeat(indent));
                    if letters.get(at + 1) == Some(&' ') {
                        out.put("\\");
                    }
                } else {
                    out.put(" ");
                }
                is_after_space = true;
            } else {
                out.put(&escaped(letter));
                is_after_space = false;
            }
        }
        out.put("\"");
    }
}

/// Text whose single blanks may become ends of lines when the line is long.
fn folded(out: &mut Writer<'_>, text: &str, indent: usize, may_break: bool) {
    if !may_break || out.column + text.len() <= WIDTH {
        out.put(text);
        return;
    }
    let letters: Vec<char> = text.chars().collect();
    let mut is_after_space = false;
    for (at, letter) in letters.iter().copied().enumerate() {
        let next = letters.get(at + 1);
        if letter == ' ' && !is_after_space && out.column > WIDTH && next.is_some_and(|next| *next != ' ') {
            out.end_line();
            out.put(&" ".repeat(indent));
        } else {
            out.put(letter.encode_utf8(&mut [0; 4]));
        }
        is_after_space = letter == ' ';
    }
}

fn escaped(letter: char) -> String {
    let short = match letter {
        '\0' => "\\0",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\t' => "\\t",
        '\n' => "\\n",
        '\x0b' => "\\v",
        '\x0c' => "\\f",
        '\r' => "\\r",
        '\x1b' => "\\e",
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{85}' => "\\N",
        '\u{2028}' => "\\L",
        '\u{2029}' => "\\P",
        _ if is_printable(letter) => return letter.to_string(),
        _ => {
            let code = u32::from(letter);
            return match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            };
        }
    };
    short.to_owned()
}

fn is_printable(letter: char) -> bool {
    matches!(letter, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && letter != '\u{feff}'
}

fn is_break(letter: char) -> bool {
    matches!(letter, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

impl Traits {
    fn of(text: &str) -> Self {
        let letters: Vec<char> = text.chars().collect();
        let is_blank = |letter: char| letter == ' ' || letter == '\t';
        let mut traits =
            Self { has_indicator: text.starts_with("---") || text.starts_with("..."), ..Self::default() };
        for (at, letter) in letters.iter().copied().enumerate() {
            let before = at.checked_sub(1).map(|at| letters[at]);
            let after = letters.get(at + 1).copied();
            let is_followed_by_blank = after.is_none_or(|next| is_blank(next) || is_break(next));
            let is_preceded_by_blank = before.is_none_or(|last| is_blank(last) || is_break(last));
            let is_ends = before.is_none() || after.is_none();
            traits.has_indicator |= match letter {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`'
                    if at == 0 =>
                {
                    true
                }
                '?' | '-' => at == 0 && is_followed_by_blank,
                ':' => is_followed_by_blank,
                '#' => is_preceded_by_blank,
                _ => false,
            };
            traits.has_special |= !is_printable(letter);
            if letter == ' ' {
                traits.begins_or_ends_blank |= is_ends;
                traits.ends_with_space |= after.is_none();
                traits.has_space_after_break |= before.is_some_and(is_break);
            } else if is_break(letter) {
                traits.has_break = true;
                traits.begins_or_ends_blank |= is_ends;
                traits.has_break_after_space |= before == Some(' ');
            }
        }
        traits
    }
}

/// Words that are no text in YAML 1.1.
const WORDS: &[&str] = &[
    "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON",
    "n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", ".nan", ".NaN", ".NAN",
    ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<",
];

fn reads_as_another_type(text: &str) -> bool {
    if WORDS.contains(&text) {
        return true;
    }
    match text.as_bytes().first() {
        Some(b'.') => is_float(text, false),
        Some(b'0'..=b'9' | b'+' | b'-') => {
            let plain = text.replace('_', "");
            is_timestamp(text) || is_integer(&plain) || is_float(&plain, true) || is_base_60(text)
        }
        _ => false,
    }
}

/// As Go reads an integer of any base.
fn is_integer(text: &str) -> bool {
    let (is_negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return false;
    }
    u64::from_str_radix(digits, radix).is_ok_and(|value| !is_negative || value <= 1 << 63)
}

fn is_float(text: &str, may_have_sign: bool) -> bool {
    let text = if may_have_sign { text.strip_prefix(['+', '-']).unwrap_or(text) } else { text };
    let (number, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (number, None),
    };
    let has_digits = !whole.is_empty() || fraction.is_some_and(|digits| !digits.is_empty());
    let exponent = exponent.map(|digits| digits.strip_prefix(['+', '-']).unwrap_or(digits));
    has_digits
        && all_digits(whole)
        && fraction.is_none_or(all_digits)
        && exponent.is_none_or(|digits| !digits.is_empty() && all_digits(digits))
}

/// `190:20:30`, as YAML 1.1 writes degrees and hours.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let text = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit.is_ascii_digit() || digit == b'_') => {
            whole
        }
        Some(_) => return false,
        None => text,
    };
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let is_first = first.starts_with(|digit: char| digit.is_ascii_digit())
        && first.bytes().all(|digit| digit.is_ascii_digit() || digit == b'_');
    let mut count = 0;
    let are_rest = parts.all(|part| {
        count += 1;
        match part.as_bytes() {
            [one] => one.is_ascii_digit(),
            [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
            _ => false,
        }
    });
    is_first && are_rest && count > 0
}

/// A day, or a day and a time.
fn is_timestamp(text: &str) -> bool {
    let (day, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let number = |text: &str, longest: usize, range: std::ops::RangeInclusive<u32>| {
        (1..=longest).contains(&text.len())
            && text.bytes().all(|digit| digit.is_ascii_digit())
            && text.parse().is_ok_and(|value| range.contains(&value))
    };
    let parts: Vec<&str> = day.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if year.len() != 4 || !number(year, 4, 0..=9999) || !number(month, 2, 1..=12) || !number(day, 2, 1..=31) {
        return false;
    }
    let (Ok(year), Ok(month), Ok(day)) = (year.parse::<i32>(), month.parse::<u8>(), day.parse::<u8>()) else {
        return false;
    };
    let is_day = time::Month::try_from(month)
        .is_ok_and(|month| time::Date::from_calendar_date(year, month, day).is_ok());
    let Some((between, clock)) = time else { return is_day };
    let clock = if between == b' ' {
        clock
    } else if let Some(rest) = clock.strip_suffix('Z') {
        rest
    } else {
        let Some(at) = clock.rfind(['+', '-']) else { return false };
        let Some((hours, minutes)) = clock[at + 1..].split_once(':') else { return false };
        let is_zone =
            hours.len() == 2 && minutes.len() == 2 && number(hours, 2, 0..=24) && number(minutes, 2, 0..=60);
        if !is_zone {
            return false;
        }
        &clock[..at]
    };
    let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, rest)| (clock, Some(rest)));
    let parts: Vec<&str> = clock.split(':').collect();
    let [hour, minute, second] = parts[..] else { return false };
    is_day
        && number(hour, 2, 0..=23)
        && number(minute, 2, 0..=59)
        && number(second, 2, 0..=59)
        && fraction
            .is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
}
