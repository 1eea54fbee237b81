//! A request on its way: what filters and routes look at and change.

use std::borrow::Cow;

use proto::envoy::config::core::v3::HeaderValueOption;
use proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction;
use proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use regex::Regex;

/// A header of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header<'a> {
    Missing,
    /// It is there, with a value that Envoy makes.
    Unknown,
    Value(Cow<'a, str>),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    /// With its query.
    pub(super) path: String,
    /// Names in lower case; a value of `None` is one that Envoy makes.
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) is_http2: bool,
}

impl Request {
    /// The path without its query.
    pub(super) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The query.
    pub(super) fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether it is a call of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        let is = |value: &str| value == "application/grpc" || value.starts_with("application/grpc+");
        matches!(self.header("content-type"), Header::Value(value) if is(&value))
    }

    /// All values of a header.
    pub(super) fn header(&self, name: &str) -> Header<'_> {
        let name = name.to_ascii_lowercase();
        let own = match name.as_str() {
            ":method" => Some(self.method.as_str()),
            ":path" => Some(self.path.as_str()),
            ":authority" | "host" => Some(self.authority.as_str()),
            ":scheme" => Some(self.scheme),
            _ => None,
        };
        if let Some(own) = own {
            return Header::Value(own.into());
        }
        let mut found = Vec::new();
        for (_, value) in self.headers.iter().filter(|(known, _)| *known == name) {
            match value {
                Some(value) => found.push(value.as_str()),
                None => return Header::Unknown,
            }
        }
        match found.as_slice() {
            [] => Header::Missing,
            [only] => Header::Value((*only).into()),
            _ => Header::Value(found.join(",").into()),
        }
    }

    /// Sets a header that Envoy makes.
    pub(super) fn make(&mut self, name: &str, value: Option<&str>) {
        if self.header(name) == Header::Missing {
            self.headers.push((name.to_owned(), value.map(str::to_owned)));
        }
    }

    /// What a route does to headers.
    pub(super) fn change(&mut self, remove: &[String], add: &[HeaderValueOption]) {
        for name in remove {
            let name = name.to_ascii_lowercase();
            self.headers.retain(|(known, _)| *known != name);
        }
        for option in add {
            let Some(header) = &option.header else { continue };
            let name = header.key.to_ascii_lowercase();
            // A value with a command is made from what this program does not know.
            let plain = header.value.replace("%%", "");
            let value = (!plain.contains('%')).then(|| header.value.replace("%%", "%"));
            let is_there = self.header(&name) != Header::Missing;
            let action = match option.append {
                Some(false) => HeaderAppendAction::OverwriteIfExistsOrAdd,
                _ => option.append_action(),
            };
            match action {
                HeaderAppendAction::AddIfAbsent if is_there => continue,
                HeaderAppendAction::OverwriteIfExists if !is_there => continue,
                HeaderAppendAction::OverwriteIfExistsOrAdd | HeaderAppendAction::OverwriteIfExists => {
                    self.headers.retain(|(known, _)| *known != name);
                }
                _ => {}
            }
            self.headers.push((name, value));
        }
    }

    /// Writes the path as the connection manager does before anything looks at it.
    /// An error is the answer of a path that it refuses.
    pub(super) fn normalize(&mut self, manager: &HttpConnectionManager) -> Result<(), u16> {
        let (path, query) = match self.path.find('?') {
            Some(at) => (self.path[..at].to_owned(), self.path[at..].to_owned()),
            None => (self.path.clone(), String::new()),
        };
        let mut path = path;
        let lower = path.to_ascii_lowercase();
        let is_escaped = lower.contains("%2f") || lower.contains("%5c");
        match manager.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::RejectRequest if is_escaped => return Err(400),
            PathWithEscapedSlashesAction::UnescapeAndRedirect if is_escaped => return Err(307),
            PathWithEscapedSlashesAction::UnescapeAndForward => {
                for (escape, plain) in [("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")] {
                    path = path.replace(escape, plain);
                }
            }
            _ => {}
        }
        if manager.normalize_path.unwrap_or(false) {
            path = canonical(&path);
        }
        if manager.merge_slashes {
            while path.contains("//") {
                path = path.replace("//", "/");
            }
        }
        self.path = path + &query;
        Ok(())
    }
}

/// A path without `.` and `..`, with `/` for `\`, and no escapes where none are needed.
fn canonical(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| path.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten()
            .filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte));
        match escaped {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(if bytes[at] == b'\\' { b'/' } else { bytes[at] });
                at += 1;
            }
        }
    }
    let plain = String::from_utf8_lossy(&plain).into_owned();
    let mut parts: Vec<&str> = Vec::new();
    let mut segments = plain.strip_prefix('/').unwrap_or(&plain).split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(parts.pop()),
            segment => {
                parts.push(segment);
                continue;
            }
        }
        if is_last {
            parts.push("");
        }
    }
    format!("/{}", parts.join("/"))
}

/// What a rewrite by a pattern makes of a text; `None` where this program cannot tell.
pub(super) fn substitute(rule: &RegexMatchAndSubstitute, text: &str) -> Option<String> {
    let regex = Regex::new(&rule.pattern.as_ref()?.regex).ok()?;
    // RE2 writes groups as \1, this library as ${1}.
    let mut with = String::new();
    let mut chars = rule.substitution.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => with.push_str("$$"),
            '\\' => match chars.next() {
                Some(digit) if digit.is_ascii_digit() => {
                    with.push_str("${");
                    with.push(digit);
                    with.push('}');
                }
                Some(other) => with.push(other),
                None => {}
            },
            c => with.push(c),
        }
    }
    Some(regex.replace_all(text, with.as_str()).into_owned())
}

#[cfg(test)]
mod tests {
    use proto::envoy::r#type::matcher::v3::RegexMatcher;

    use super::*;

    #[test]
    fn paths_are_written_in_one_way() {
        for (path, wanted) in [
            ("/a/b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2e/b", "/b"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a\\b", "/a/b"),
            ("/%61%2F", "/a%2F"),
            ("//a//", "//a//"),
        ] {
            assert_eq!(canonical(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_pattern_rewrites_all_that_fits() {
        let rule = RegexMatchAndSubstitute {
            pattern: Some(RegexMatcher { regex: "^/([a-z]+)/v([0-9])".into(), ..RegexMatcher::default() }),
            substitution: "/\\2$/\\1".into(),
        };
        assert_eq!(substitute(&rule, "/reviews/v2/x").as_deref(), Some("/2$/reviews/x"));
        assert_eq!(substitute(&rule, "/other").as_deref(), Some("/other"));
    }
}
