//! Texts for people, safe to stand in HTML and SVG.

/// A text inside of an element or a quoted attribute. What XML cannot hold is replaced.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\r' | '\t' => out.push(' '),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}')
            }
            // Marks that turn the direction of what follows.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

/// At most that many letters: the middle of a long name says least.
pub(super) fn short(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.to_owned();
    }
    let tail = (most - 1) / 3;
    let head = most - 1 - tail;
    let begin: String = letters[..head].iter().collect();
    let end: String = letters[letters.len() - tail..].iter().collect();
    format!("{begin}\u{2026}{end}")
}

/// A number that is read at a glance.
pub(super) fn number(value: f64) -> String {
    let (scaled, unit) = match value {
        _ if value >= 1e9 => (value / 1e9, "G"),
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = if scaled >= 100.0 || scaled.fract().abs() < 1e-9 {
        0
    } else if scaled >= 10.0 {
        1
    } else {
        2
    };
    format!("{scaled:.digits$}{unit}")
}

/// A part as percents.
pub(super) fn percent(part: f64) -> String {
    match part * 100.0 {
        0.0 => "0%".into(),
        share if share < 0.1 => "<0.1%".into(),
        share if share < 10.0 => format!("{share:.1}%"),
        share => format!("{share:.0}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_markup() {
        assert_eq!(
            escape("<a b='\"'>&\u{0}\n\u{202e}"),
            "&lt;a b=&#39;&quot;&#39;&gt;&amp;\u{fffd} \u{fffd}"
        );
    }

    #[test]
    fn numbers_are_short() {
        for (value, wanted) in [
            (0.0, "0"),
            (3.0, "3"),
            (1.25, "1.25"),
            (12.34, "12.3"),
            (1234.0, "1234"),
            (12_345.0, "12.3k"),
            (2.5e6, "2.50M"),
        ] {
            assert_eq!(number(value), wanted);
        }
        assert_eq!(
            (percent(0.0), percent(0.0001), percent(0.015), percent(0.5)),
            ("0%".into(), "<0.1%".into(), "1.5%".into(), "50%".into())
        );
        assert_eq!(short("abcdefghijkl", 7), "abcd\u{2026}kl");
        assert_eq!(short("abc", 7), "abc");
    }
}
