//! Text that others have written, as it may go to a terminal: what a proxy says of
//! itself moves no cursor and renames no window.

use std::borrow::Cow;
use std::fmt::Display;

/// Whether a terminal obeys a letter, or shows what is next to it in another order.
const fn is_obeyed(letter: char) -> bool {
    match letter {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_ascii_control() || matches!(other, '\u{80}'..='\u{9f}'),
    }
}

/// A text without what a terminal would obey; ends of lines and tabs stay.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.contains(is_obeyed) { text.replace(is_obeyed, "\u{fffd}").into() } else { text.into() }
}

/// Tells on standard error what does not end the command.
pub fn warn(what: impl Display) {
    eprintln!("Warning: {}", plain(&what.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        assert_eq!(
            plain("a\u{1b}]0;x\u{7}\u{9b}2J\r\u{202e}b"),
            "a\u{fffd}]0;x\u{fffd}\u{fffd}2J\u{fffd}\u{fffd}b"
        );
        for same in ["1.32\n\tü \u{2714}", ""] {
            assert!(matches!(plain(same), Cow::Borrowed(text) if text == same));
        }
    }
}
