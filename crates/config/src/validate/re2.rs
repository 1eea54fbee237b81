//! Regular expressions as RE2 reads them, which is what Envoy uses. The `regex`
//! crate reads some of them otherwise, so a pattern is rewritten for it piece
//! by piece; what RE2 does not have is refused on the way.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::RegexBuilder;

/// As long as Istio allows.
const MAX_LENGTH: usize = 1024;
/// RE2 repeats no more often than that.
const MAX_REPEAT: u32 = 1000;
/// What the compiled form may take; RE2 allows 8 MiB.
const MAX_SIZE: usize = 8 << 20;

/// Why RE2 would refuse a pattern.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("it is empty".into());
    }
    if pattern.len() > MAX_LENGTH {
        return Err(format!("it has {} characters, more than the {MAX_LENGTH} allowed", pattern.len()));
    }
    let mut reader = Reader { rest: pattern.chars().peekable(), made: String::new(), names: BTreeSet::new() };
    reader.pattern()?;
    // Compiling is bounded: a pattern may come from anybody who may write objects.
    RegexBuilder::new(&reader.made).size_limit(MAX_SIZE).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })?;
    Ok(())
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// The same pattern for the `regex` crate.
    made: String,
    names: BTreeSet<String>,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        self.rest.next()
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest.next_if_eq(&c).is_some()
    }

    fn eat_all(&mut self, text: &str) -> bool {
        let mut ahead = self.rest.clone();
        let fits = text.chars().all(|c| ahead.next() == Some(c));
        if fits {
            self.rest = ahead;
        }
        fits
    }

    /// What stands before `end`, which is taken too.
    fn until(&mut self, end: char) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                c if c == end => return Some(text),
                c => text.push(c),
            }
        }
    }

    fn pattern(&mut self) -> Result<(), String> {
        let mut is_repeated = false;
        // How often each open group is repeated is known at its end only; what
        // was seen inside of it is kept until then.
        let mut repeats: Vec<u32> = vec![1];
        let mut last = 1;
        while let Some(c) = self.next() {
            let mut repeat = None;
            match c {
                '*' | '+' | '?' => {
                    self.made.push(c);
                    repeat = Some(1);
                }
                '{' => match self.bounds() {
                    Some((min, max)) => {
                        if min.max(max.unwrap_or(0)) > MAX_REPEAT || max.is_some_and(|max| max < min) {
                            return Err(format!("a repetition may go up to {MAX_REPEAT}"));
                        }
                        let max_text = max.map_or(String::new(), |max| max.to_string());
                        self.made += &format!("{{{min},{max_text}}}");
                        repeat = Some(max.unwrap_or(min).max(1));
                    }
                    // No repetition: the character itself.
                    None => self.literal('{'),
                },
                '(' => {
                    self.group()?;
                    if self.made.ends_with('(') || self.made.ends_with(':') {
                        repeats.push(1);
                    }
                    last = 1;
                }
                ')' => {
                    self.made.push(')');
                    let inner = repeats.pop().unwrap_or(1);
                    if repeats.is_empty() {
                        return Err("a ) closes nothing".into());
                    }
                    last = inner;
                }
                '[' => self.class()?,
                '\\' => self.escape()?,
                '|' | '^' | '$' | '.' => self.made.push(c),
                c => self.literal(c),
            }
            match repeat {
                Some(_) if is_repeated => {
                    return Err("a repetition of a repetition: put parentheses around the inner one".into());
                }
                Some(times) => {
                    // As few as possible.
                    if self.eat('?') {
                        self.made.push('?');
                    }
                    last = last.saturating_mul(times);
                    if last > MAX_REPEAT {
                        return Err(format!("repetitions of repetitions may go up to {MAX_REPEAT} together"));
                    }
                }
                None if c != ')' => last = 1,
                None => {}
            }
            is_repeated = repeat.is_some();
            if let Some(most) = repeats.last_mut() {
                *most = (*most).max(last);
            }
        }
        Ok(())
    }

    fn literal(&mut self, c: char) {
        self.made += &regex::escape(c.encode_utf8(&mut [0; 4]));
    }

    /// `n}`, `n,}` or `n,m}`; anything else is left.
    fn bounds(&mut self) -> Option<(u32, Option<u32>)> {
        let mut ahead = self.rest.clone();
        let mut text = String::new();
        while let Some(c) = ahead.next_if(|c| c.is_ascii_digit() || *c == ',') {
            text.push(c);
        }
        let number = |text: &str| text.parse::<u32>().ok();
        let bounds = match text.split_once(',') {
            None => (number(&text)?, number(&text)),
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        ahead.next_if_eq(&'}')?;
        self.rest = ahead;
        Some(bounds)
    }

    /// What begins with a parenthesis: a group, or flags.
    fn group(&mut self) -> Result<(), String> {
        if !self.eat('?') {
            self.made.push('(');
            return Ok(());
        }
        if self.eat_all("P<")
            || self.rest.clone().take(2).collect::<String>().starts_with('<') && {
                let second = self.rest.clone().nth(1);
                !matches!(second, Some('=' | '!'))
            }
        {
            self.eat('<');
            let name = self.until('>').unwrap_or_default();
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return Err("a group has no proper name: expected (?P<name>...)".into());
            }
            if !self.names.insert(name.clone()) {
                return Err(format!("there are two groups {name:?}"));
            }
            self.made.push('(');
            return Ok(());
        }
        let mut flags = String::new();
        while let Some(c) = self.rest.next_if(|c| "imsU-".contains(*c)) {
            flags.push(c);
        }
        let end = self.next();
        let (on, off) = flags.split_once('-').unwrap_or((&flags, "x"));
        let is_proper = !off.is_empty() && !off.contains('-') && (!on.is_empty() || flags.starts_with('-'));
        match end {
            Some(':') if flags.is_empty() || is_proper => self.made += &format!("(?{flags}:"),
            Some(')') if flags.is_empty() => {}
            Some(')') if is_proper => self.made += &format!("(?{flags})"),
            _ => {
                return Err(
                    "RE2 has no such group: neither look-around nor other flags than i, m, s, U".into()
                );
            }
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        self.made.push('[');
        if self.eat('^') {
            self.made.push('^');
        }
        let mut is_first = true;
        loop {
            if !is_first && self.eat(']') {
                self.made.push(']');
                return Ok(());
            }
            is_first = false;
            if self.rest.peek() == Some(&'[') && self.posix()? {
                continue;
            }
            let Some(low) = self.member()? else { continue };
            let mut high = low;
            let mut ahead = self.rest.clone();
            if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
                self.rest = ahead;
                high = self.member()?.ok_or("a range of a class has no end")?;
            }
            if high < low {
                return Err(format!("the range {low}-{high} of a class is the wrong way round"));
            }
            self.made += &format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high));
        }
    }

    /// `[:alpha:]` and the like inside of a class.
    fn posix(&mut self) -> Result<bool, String> {
        let mut ahead = self.rest.clone();
        ahead.next();
        if ahead.next() != Some(':') {
            return Ok(false);
        }
        let text: String = ahead.clone().collect();
        let Some((name, _)) = text.split_once(":]") else { return Ok(false) };
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        if !NAMES.contains(&name.trim_start_matches('^')) {
            return Err(format!("there is no class [:{name}:]"));
        }
        self.made += &format!("[:{name}:]");
        self.rest = ahead;
        self.rest.by_ref().take(name.len() + 2).for_each(drop);
        Ok(true)
    }

    /// A character of a class; `None` when it was a class itself.
    fn member(&mut self) -> Result<Option<char>, String> {
        match self.next() {
            None => Err("a [ has no ]".into()),
            Some('\\') => {
                if let Some(class) = self.perl_class()? {
                    self.made += &class;
                    return Ok(None);
                }
                self.escaped_char().map(Some)
            }
            Some(c) => Ok(Some(c)),
        }
    }

    /// What a backslash begins, outside of classes.
    fn escape(&mut self) -> Result<(), String> {
        if let Some(class) = self.perl_class()? {
            self.made += &class;
            return Ok(());
        }
        match self.rest.peek() {
            Some('Q') => {
                self.next();
                while self.rest.peek().is_some() && !self.eat_all("\\E") {
                    if let Some(c) = self.next() {
                        self.literal(c);
                    }
                }
            }
            Some(c @ ('A' | 'z' | 'b' | 'B')) => {
                // Words are of ASCII letters.
                self.made += if matches!(c, 'A' | 'z') { "\\" } else { "(?-u:\\" };
                self.made.push(*c);
                if matches!(c, 'b' | 'B') {
                    self.made.push(')');
                }
                self.next();
            }
            Some('C') => {
                self.next();
                self.made += "(?s-u:.)";
            }
            _ => {
                let c = self.escaped_char()?;
                self.made += &format!("\\x{{{:x}}}", u32::from(c));
            }
        }
        Ok(())
    }

    /// `\d`, `\pL` and the like after their backslash, for the `regex` crate.
    fn perl_class(&mut self) -> Result<Option<String>, String> {
        let Some(&c) = self.rest.peek() else { return Ok(None) };
        let class = match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            's' => "[\\t\\n\\x0c\\r ]",
            'S' => "[^\\t\\n\\x0c\\r ]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            'p' | 'P' => {
                self.next();
                return self.unicode_class(c).map(Some);
            }
            _ => return Ok(None),
        };
        self.next();
        Ok(Some(class.into()))
    }

    fn unicode_class(&mut self, p: char) -> Result<String, String> {
        let name = match self.next() {
            Some('{') => self.until('}'),
            c => c.map(String::from),
        };
        let name = name.ok_or("\\p has no name")?;
        let (sign, word) = name.strip_prefix('^').map_or(("", &*name), |word| ("^", word));
        const CATEGORIES: &str = " Any C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po \
                                  Ps S Sc Sk Sm So Z Zl Zp Zs ";
        let made = if CATEGORIES.contains(&format!(" {word} ")) {
            format!("\\{p}{{{word}}}")
        } else if word.len() > 2 && word.starts_with(|c: char| c.is_ascii_uppercase()) {
            // Scripts have names in full; of other properties RE2 knows nothing.
            let made = format!("\\{p}{{Script={word}}}");
            regex::Regex::new(&made).map_err(|_| format!("RE2 has no class \\p{{{name}}}"))?;
            made
        } else {
            return Err(format!("RE2 has no class \\p{{{name}}}"));
        };
        Ok(if sign.is_empty() { made } else { format!("[^{made}]") })
    }

    /// One character after its backslash.
    fn escaped_char(&mut self) -> Result<char, String> {
        let c = self.next().ok_or("a \\ stands at the end")?;
        let code = match c {
            'a' => 7,
            'f' => 12,
            't' => 9,
            'n' => 10,
            'r' => 13,
            'v' => 11,
            'x' => {
                let digits = if self.eat('{') {
                    self.until('}').unwrap_or_default()
                } else {
                    let digits: String = self.rest.by_ref().take(2).collect();
                    if digits.len() == 2 { digits } else { String::new() }
                };
                u32::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no character"))?
            }
            '0'..='7' => {
                let is_octal = |c: Option<&char>| c.is_some_and(|c| ('0'..='7').contains(c));
                if c != '0' && !is_octal(self.rest.peek()) {
                    return Err(format!("RE2 has no references to groups: \\{c}"));
                }
                let mut code = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    if let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c)) {
                        code = code * 8 + digit.to_digit(8).unwrap_or(0);
                    }
                }
                code
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => u32::from(c),
            c => return Err(format!("RE2 has no \\{c}")),
        };
        char::from_u32(code).ok_or_else(|| format!("\\x{{{code:x}}} is no character"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_re2_takes() {
        for pattern in [
            r"^/[\w.-]{1,253}/[\w.-]{1,253}$",
            "/a/{id}",
            "/a/{,3}",
            "a{2}b{2,}c{2,3}?",
            r"(?i)abc(?P<n>x)(?<m>y)(?s-m:.)(?:z)",
            r"[]a][^]a][a-][-a][a\]&&b[+--~~]",
            r"[[:alpha:][:^digit:]\d\pL]",
            r"\p{Greek}\PN\p{^Lu}\pL",
            r"\Qa.b(\E.*\x41\x{1F600}\101\0",
            r"\bword\B\A\z\C",
            r"\<\-\/\@\_",
            "(?)a",
            "é[é-ü]",
            "(a{10}){100}",
            "a|b||()",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn refuses_what_re2_refuses() {
        for pattern in [
            "",
            "*",
            "a**",
            "a+*",
            "a{2}{3}",
            "a{1001}",
            "(a{100}){11}",
            "((a{20}){20}){20}",
            "a(",
            "a)",
            "[a",
            "[b-a]",
            r"[a-\d]",
            "[[:foo:]]",
            "/(?x) a",
            "(?=a)",
            "(?<=a)b",
            "(?<!a)b",
            "(?#c)",
            "(?u)a",
            r"\p{Lowercase}",
            r"\p{letter}",
            r"\p{Script=Greek}",
            r"\u{61}",
            r"\U00000061",
            r"\1",
            r"\Z",
            r"\h",
            r"\x4",
            "\\",
            r"\x{110000}",
            "(?P<a>x)(?P<a>y)",
            "(?P<>x)",
            "((((((((((a{100}b){9}c{100}){2}){2}){2}){2}){2}){2}){2}){2})",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
        assert!(check(&"a".repeat(1025)).is_err());
    }
}
