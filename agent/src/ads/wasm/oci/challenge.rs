//! `WWW-Authenticate`: how a registry wants to know who asks.

use http::HeaderValue;

/// A scheme with its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Whether it is of that scheme, written in lower case.
    pub(super) fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    /// A parameter, by its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of all headers; what cannot be read is left out.
pub(super) fn read<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Challenge> {
    headers.into_iter().filter_map(|header| header.to_str().ok()).flat_map(read_one).collect()
}

fn read_one(text: &str) -> Vec<Challenge> {
    let mut all: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, tail) = token(rest);
        let after = tail.trim_start();
        if word.is_empty() {
            // Not of this syntax: go on behind the next comma.
            rest = rest.find(',').map_or("", |at| &rest[at..]);
        } else if let (Some(value), Some(challenge)) = (after.strip_prefix('='), all.last_mut()) {
            let (value, tail) = self::value(value.trim_start());
            challenge.parameters.push((word.to_ascii_lowercase(), value));
            rest = tail;
        } else {
            all.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = after.strip_prefix('=').unwrap_or(after);
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    all
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !(char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)));
    text.split_at(end.unwrap_or(text.len()))
}

/// A quoted text, or what goes to the next comma or space.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, char)| char)),
            char => value.push(char),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bearer_and_basic_are_told_apart() {
        let all = read_one(
            r#"Negotiate, Basic realm="a \"b\", c",Bearer realm="https://auth.example/token",service=registry , scope="repository:a/b:pull,push""#,
        );
        let schemes: Vec<&str> = all.iter().map(|one| one.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(all[1].get("realm"), Some("a \"b\", c"));
        assert_eq!(all[2].get("realm"), Some("https://auth.example/token"));
        assert_eq!(all[2].get("service"), Some("registry"));
        assert_eq!(all[2].get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(all[2].get("error"), None);
    }

    proptest! {
        #[test]
        fn every_header_is_read_to_its_end(text in "[ -~]{0,80}") {
            read_one(&text);
        }
    }
}
