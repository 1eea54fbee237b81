//! What the pod knows of itself: labels and annotations as the downward API
//! writes them, and the addresses of its interfaces.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Reads a file of lines `key="quoted value"`; a file that is not there is empty.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Reads lines `key="quoted value"`; other lines are skipped.
#[must_use]
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        Some((key.trim().to_owned(), unquote(value.trim())?))
    });
    pairs.collect()
}

/// The value of a quoted string as Go writes it.
fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    let number = |rest: &mut std::str::Chars<'_>, digits: usize, radix: u32| {
        let text: String = rest.by_ref().take(digits).collect();
        (text.len() == digits).then(|| u32::from_str_radix(&text, radix).ok())?
    };
    while let Some(next) = rest.next() {
        let mut push = |c: char| bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        if next != '\\' {
            push(next);
            continue;
        }
        match rest.next()? {
            'n' => push('\n'),
            't' => push('\t'),
            'r' => push('\r'),
            'a' => push('\x07'),
            'b' => push('\x08'),
            'f' => push('\x0c'),
            'v' => push('\x0b'),
            c @ ('\\' | '"' | '\'') => push(c),
            'u' => push(char::from_u32(number(&mut rest, 4, 16)?)?),
            'U' => push(char::from_u32(number(&mut rest, 8, 16)?)?),
            'x' => bytes.push(u8::try_from(number(&mut rest, 2, 16)?).ok()?),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// The addresses of all interfaces that are up, without loopback, link-local
/// and those of `excluded` interfaces.
#[must_use]
pub fn addresses(excluded: &[String]) -> Vec<IpAddr> {
    use nix::net::if_::InterfaceFlags;

    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for interface in interfaces {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP);
        let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        if !up || loopback || excluded.contains(&interface.interface_name) {
            continue;
        }
        let Some(address) = interface.address else { continue };
        let ip = if let Some(v4) = address.as_sockaddr_in() {
            IpAddr::V4(v4.ip())
        } else if let Some(v6) = address.as_sockaddr_in6() {
            IpAddr::V6(v6.ip())
        } else {
            continue;
        };
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if !link_local && !ip.is_loopback() && !ip.is_unspecified() {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_downward_api_writes() {
        let text =
            "app=\"reviews\"\nnote=\"two\\nlines \\\"x\\\" \\u00e4 \\xc3\\xa4\"\nbroken\nbad=\"\\q\"\n";
        let pairs = parse(text);
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs["app"], "reviews");
        assert_eq!(pairs["note"], "two\nlines \"x\" ä ä");
    }

    proptest::proptest! {
        #[test]
        fn what_the_downward_api_writes_is_read_back(value in "\\PC*") {
            // Go leaves printable text but for these two as it is.
            let text = format!("key=\"{}\"\n", value.replace('\\', "\\\\").replace('"', "\\\""));
            proptest::prop_assert_eq!(parse(&text).remove("key"), Some(value));
        }

        #[test]
        fn no_text_of_a_pod_file_ends_the_agent(text in "(?s).*", escapes in "[a=\"\\\\nuUx0-9\n]*") {
            drop(parse(&text));
            drop(parse(&escapes));
        }
    }

    #[test]
    fn a_missing_file_is_empty() {
        assert!(read(Path::new("/nowhere/labels")).unwrap().is_empty());
    }
}
