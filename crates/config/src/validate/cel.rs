//! The syntax of CEL, the language of conditions in access logs. Envoy refuses
//! a whole listener for one expression that it cannot read.

use std::iter::Peekable;
use std::str::Chars;

/// How deep parentheses and the like may lie in each other.
const MAX_DEPTH: usize = 100;

/// Words that the language keeps for later.
const RESERVED: [&str; 18] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Why a text is no CEL expression.
pub(super) fn check(text: &str) -> Result<(), String> {
    let tokens = Lexer { rest: text.chars().peekable() }.all()?;
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    parser.expression()?;
    match parser.tokens.first() {
        None => Ok(()),
        Some(token) => Err(format!("{} is not expected after a whole expression", token.name())),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Literal,
    Mark(&'static str),
}

impl Token {
    fn name(&self) -> String {
        match self {
            Self::Word(word) => format!("{word:?}"),
            Self::Literal => "a value".into(),
            Self::Mark(mark) => format!("{mark:?}"),
        }
    }
}

/// Marks, the longer ones first.
const MARKS: [&str; 23] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")",
    "[", "]", "{",
];

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Lexer<'_> {
    fn all(mut self) -> Result<Vec<Token>, String> {
        let mut tokens = Vec::new();
        while let Some(&c) = self.rest.peek() {
            if c.is_ascii_whitespace() {
                self.rest.next();
            } else if c == '/' && self.starts_with("//") {
                while self.rest.next_if(|c| *c != '\n').is_some() {}
            } else if c.is_ascii_digit() || c == '.' && self.is_fraction() {
                tokens.push(self.number()?);
            } else if c == '"' || c == '\'' {
                tokens.push(self.string(false)?);
            } else if c.is_ascii_alphabetic() || c == '_' {
                tokens.push(self.word()?);
            } else {
                tokens.push(self.mark()?);
            }
        }
        Ok(tokens)
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut ahead = self.rest.clone();
        text.chars().all(|c| ahead.next() == Some(c))
    }

    fn is_fraction(&self) -> bool {
        self.rest.clone().nth(1).is_some_and(|c| c.is_ascii_digit())
    }

    fn mark(&mut self) -> Result<Token, String> {
        let mark = MARKS.into_iter().chain(["}"]).find(|mark| self.starts_with(mark));
        let Some(mark) = mark else {
            let c = self.rest.next().unwrap_or_default();
            return Err(format!("{c:?} is not expected"));
        };
        for _ in mark.chars() {
            self.rest.next();
        }
        Ok(Token::Mark(mark))
    }

    fn digits(&mut self, fits: impl Fn(char) -> bool) -> usize {
        let mut count = 0;
        while self.rest.next_if(|c| fits(*c)).is_some() {
            count += 1;
        }
        count
    }

    fn number(&mut self) -> Result<Token, String> {
        let is_digit = |c: char| c.is_ascii_digit();
        if self.starts_with("0x") || self.starts_with("0X") {
            self.rest.next();
            self.rest.next();
            if self.digits(|c| c.is_ascii_hexdigit()) == 0 {
                return Err("a number ends after 0x".into());
            }
        } else {
            self.digits(is_digit);
            if self.rest.peek() == Some(&'.') && self.is_fraction() {
                self.rest.next();
                self.digits(is_digit);
            }
            if self.rest.next_if(|c| matches!(c, 'e' | 'E')).is_some() {
                self.rest.next_if(|c| matches!(c, '+' | '-'));
                if self.digits(is_digit) == 0 {
                    return Err("a number ends inside its exponent".into());
                }
            }
        }
        self.rest.next_if(|c| matches!(c, 'u' | 'U'));
        if self.rest.peek().is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_') {
            return Err("a letter follows a number".into());
        }
        Ok(Token::Literal)
    }

    fn word(&mut self) -> Result<Token, String> {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            word.push(c);
        }
        let is_prefix = matches!(word.to_ascii_lowercase().as_str(), "r" | "b" | "br" | "rb");
        if is_prefix && matches!(self.rest.peek(), Some('"' | '\'')) {
            return self.string(word.contains(['r', 'R']));
        }
        Ok(match word.as_str() {
            "true" | "false" | "null" => Token::Literal,
            _ => Token::Word(word),
        })
    }

    fn string(&mut self, is_raw: bool) -> Result<Token, String> {
        let quote = self.rest.next().unwrap_or('"');
        let triple: String = [quote; 3].iter().collect();
        let end = if self.starts_with(&triple[1..]) {
            self.rest.next();
            self.rest.next();
            triple
        } else {
            quote.to_string()
        };
        loop {
            if self.starts_with(&end) {
                for _ in end.chars() {
                    self.rest.next();
                }
                return Ok(Token::Literal);
            }
            match self.rest.next() {
                None => return Err("a text does not end".into()),
                Some('\n' | '\r') if end.len() == 1 => return Err("a text does not end in its line".into()),
                Some('\\') if !is_raw => self.escape()?,
                Some(_) => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let count = match self.rest.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '?' | '"' | '\'' | '`') => return Ok(()),
            Some('x' | 'X') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('0'..='3') => {
                for _ in 0..2 {
                    if self.rest.next_if(|c| ('0'..='7').contains(c)).is_none() {
                        return Err("an octal escape has three digits".into());
                    }
                }
                return Ok(());
            }
            Some(c) => return Err(format!("\\{c} is no escape")),
            None => return Err("a text does not end".into()),
        };
        for _ in 0..count {
            if self.rest.next_if(char::is_ascii_hexdigit).is_none() {
                return Err(format!("an escape lacks one of its {count} digits"));
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    depth: usize,
}

type Parsed = Result<(), String>;

impl Parser<'_> {
    fn eat(&mut self, marks: &[&str]) -> bool {
        let fits = matches!(self.tokens.first(), Some(Token::Mark(mark)) if marks.contains(mark));
        if fits {
            self.tokens = &self.tokens[1..];
        }
        fits
    }

    fn expect(&mut self, mark: &str) -> Parsed {
        if self.eat(&[mark]) {
            return Ok(());
        }
        Err(match self.tokens.first() {
            Some(token) => format!("{} stands where {mark:?} is expected", token.name()),
            None => format!("it ends where {mark:?} is expected"),
        })
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        self.operands()?;
        if self.eat(&["?"]) {
            self.operands()?;
            self.expect(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Operands with two-sided operators between them: whether an expression
    /// can be read does not depend on which of them binds tighter.
    fn operands(&mut self) -> Parsed {
        loop {
            while self.eat(&["!", "-"]) {}
            self.member()?;
            let is_in = matches!(self.tokens.first(), Some(Token::Word(word)) if word == "in");
            if is_in {
                self.tokens = &self.tokens[1..];
            } else if !self.eat(&["&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%"]) {
                return Ok(());
            }
        }
    }

    fn member(&mut self) -> Parsed {
        let mut can_be_type = self.primary()?;
        loop {
            if self.eat(&["."]) {
                self.word()?;
                if self.eat(&["("]) {
                    self.list(")", false)?;
                    can_be_type = false;
                }
            } else if self.eat(&["["]) {
                self.expression()?;
                self.expect("]")?;
                can_be_type = false;
            } else if can_be_type && self.eat(&["{"]) {
                self.list("}", true)?;
                can_be_type = false;
            } else {
                return Ok(());
            }
        }
    }

    /// Whether it may be the name of a message type.
    fn primary(&mut self) -> Result<bool, String> {
        if self.eat(&["("]) {
            self.expression()?;
            self.expect(")")?;
            return Ok(false);
        }
        if self.eat(&["["]) {
            self.list("]", false)?;
            return Ok(false);
        }
        if self.eat(&["{"]) {
            self.list("}", true)?;
            return Ok(false);
        }
        if self.tokens.first() == Some(&Token::Literal) {
            self.tokens = &self.tokens[1..];
            return Ok(false);
        }
        self.eat(&["."]);
        self.word()?;
        if self.eat(&["("]) {
            self.list(")", false)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn word(&mut self) -> Parsed {
        match self.tokens.first() {
            Some(Token::Word(word)) if RESERVED.contains(&word.as_str()) => {
                Err(format!("{word:?} is a word of the language"))
            }
            Some(Token::Word(_)) => {
                self.tokens = &self.tokens[1..];
                Ok(())
            }
            Some(token) => Err(format!("{} stands where a name or a value is expected", token.name())),
            None => Err("it ends where a name or a value is expected".into()),
        }
    }

    /// Expressions, or pairs of them, with commas between them.
    fn list(&mut self, end: &str, has_pairs: bool) -> Parsed {
        while !self.eat(&[end]) {
            self.expression()?;
            if has_pairs {
                self.expect(":")?;
                self.expression()?;
            }
            if !self.eat(&[","]) {
                return self.expect(end);
            }
            // Only the list of a call cannot end in a comma.
            if end == ")" && matches!(self.tokens.first(), Some(Token::Mark(")"))) {
                return Err("\")\" stands where a value is expected".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::check;

    #[test]
    fn reads_what_conditions_are_made_of() {
        for text in [
            "response.code >= 400",
            "response.code >= 400 && (connection.mtls || request.url_path.contains('v1beta3'))",
            "!has(request.headers['user-agent']) || -1 < request.size",
            "request.headers[\"x\"] in [\"a\", 'b',] ? true : false",
            "xds.cluster_name == r'a\\d' // comment",
            "{'a': 1u, \"b\": 2.5e-3}.a == 0x1F && .a.b.C{f: [1, 2]}.f[0] == 1",
            "request.time - request.start > duration('1s')",
            "'''a\n\"b\"''' == \"\\u00e9\\n\\x41\\101\"",
            "[1, 2].exists(x, x > 1)",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("", "ends where a name"),
            ("a ==", "ends where a name"),
            ("a b", "\"b\" is not expected after"),
            ("(a", "ends where \")\""),
            ("a == 'x", "does not end"),
            ("a = 1", "'=' is not expected"),
            ("a & b", "'&' is not expected"),
            ("if (a) b", "\"if\" is a word of the language"),
            ("f(a,)", "\")\" stands"),
            ("1abc", "a letter follows"),
            ("'\\q'", "\\q is no escape"),
            ("a ? b", "ends where \":\""),
            ("{a}", "\"}\" stands where \":\""),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let deep = "(".repeat(5000) + "a" + &")".repeat(5000);
        assert!(check(&deep).unwrap_err().contains("nested"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a-z0-9'\"\\\\(){}\\[\\].,?:!&|<>=+*/% \n]{0,60}") {
            let _ = check(&text);
        }
    }
}
