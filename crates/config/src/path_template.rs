//! Paths of an AuthorizationPolicy with `{*}` for one segment and `{**}` for
//! any number of them.

/// Longest template that Envoy takes, in bytes.
const MAX_LENGTH: usize = 256;

/// Why a path cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Braces that are no operator.
    #[error("has a brace that belongs to no segment {{*}} or {{**}} of its own")]
    Brace,
    /// An operator after `{**}`.
    #[error("has {{*}} or {{**}} after a {{**}}, which must be the last of them")]
    AfterAny,
    /// The first character.
    #[error("is a template and does not begin with /")]
    Relative,
    /// Two slashes in a row.
    #[error("is a template and has an empty segment")]
    Empty,
    /// A character that no path has; a `*` among them.
    #[error("is a template and has a segment with a character that is not one of a path")]
    Literal,
    /// Too long.
    #[error("is a template of more than {MAX_LENGTH} characters")]
    Long,
}

/// Whether a path has `{*}` or `{**}` in it, and so none of the other wildcards.
#[must_use]
pub fn is_template(path: &str) -> bool {
    path.contains("{*}") || path.contains("{**}")
}

/// Checks a path, template or not.
///
/// # Errors
/// What Istio refuses, and what Envoy would.
pub fn check(path: &str) -> Result<(), Error> {
    let is_template = is_template(path);
    let segments = path.trim_matches('/').split('/');
    let mut has_any = false;
    for segment in segments {
        match segment {
            "{*}" | "{**}" if has_any => return Err(Error::AfterAny),
            "{*}" => {}
            "{**}" => has_any = true,
            _ if segment.contains(['{', '}']) => return Err(Error::Brace),
            "" if is_template => return Err(Error::Empty),
            _ if is_template && !segment.bytes().all(is_path_byte) => return Err(Error::Literal),
            _ => {}
        }
    }
    if !is_template {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(Error::Relative);
    }
    if path.starts_with("//") || path.ends_with("//") {
        return Err(Error::Empty);
    }
    if path.len() > MAX_LENGTH { Err(Error::Long) } else { Ok(()) }
}

/// What stands in a segment as it is (RFC 3986, `pchar`), but for `*`.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_what_envoy_takes() {
        for path in ["/a", "/a/*", "*", "*/a", "/a/{*}", "/{**}", "/{*}/b/{**}/c", "/{**}/a/", "/a//b", "a"] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        let long = format!("/{{*}}/{}", "a".repeat(260));
        for (path, want) in [
            ("/a{*}", Error::Brace),
            ("/{a}", Error::Brace),
            ("/{", Error::Brace),
            ("/{***}", Error::Brace),
            ("/{**}/{*}", Error::AfterAny),
            ("/{**}/{**}", Error::AfterAny),
            ("{*}", Error::Relative),
            ("/{*}//a", Error::Empty),
            ("//{*}", Error::Empty),
            ("/{*}//", Error::Empty),
            ("/{*}/a*", Error::Literal),
            ("/{*}/a b", Error::Literal),
            (&long, Error::Long),
        ] {
            assert_eq!(check(path), Err(want), "{path}");
        }
    }
}
