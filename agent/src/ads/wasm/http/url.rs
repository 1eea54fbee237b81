//! URLs: parts, what is shown of them, and where relative ones lead.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use crate::status::url::has_scheme;

/// The host without brackets.
pub(in super::super) fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

/// The port that is meant.
pub(super) fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(if url.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 })
}

/// `HOST[:PORT]` as it stands, without the user.
pub(super) fn host_and_port(url: &Uri) -> String {
    let authority = url.authority().map(Authority::as_str).unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

/// A URL for messages: no password, and no query, which may hold a signature.
pub(in super::super) fn shown(url: &Uri) -> String {
    format!("{}://{}{}", url.scheme_str().unwrap_or_default(), host_and_port(url), url.path())
}

/// Basic credentials of `user:password@`.
pub(super) fn authorization(url: &Uri) -> Option<HeaderValue> {
    let (user, _) = url.authority()?.as_str().rsplit_once('@')?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let plain = [decoded(name), b":".to_vec(), decoded(password)].concat();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Bytes behind `%XX`; what is no such sequence stays.
fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = code
            .and_then(|code| std::str::from_utf8(code).ok())
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        rest = if byte.is_some() { &tail[2..] } else { tail };
        out.push(byte.unwrap_or(*first));
    }
    out
}

/// Where `location` leads from `base`; `None` when that is no http or https URL.
pub(super) fn join(base: &Uri, location: &HeaderValue) -> Option<Uri> {
    let text = location.to_str().ok()?;
    let text = text.split('#').next()?;
    let joined = if text.starts_with("//") {
        format!("{}:{text}", base.scheme_str()?).parse().ok()?
    } else if has_scheme(text) {
        text.parse::<Uri>().ok()?
    } else {
        let path = match text {
            "" => return None,
            text if text.starts_with('/') => text.to_owned(),
            text if text.starts_with('?') => format!("{}{text}", base.path()),
            text => format!("{}/{text}", base.path().rsplit_once('/').map_or("", |(dir, _)| dir)),
        };
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(path.parse::<PathAndQuery>().ok()?);
        Uri::from_parts(parts).ok()?
    };
    let is_web = matches!(joined.scheme_str(), Some("http" | "https"));
    (is_web && !host(&joined).is_empty()).then_some(joined)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(base: &str, location: &str) -> Option<String> {
        let location = HeaderValue::from_str(location).unwrap();
        join(&base.parse().unwrap(), &location).map(|url| url.to_string())
    }

    #[test]
    fn relative_locations_are_resolved() {
        let base = "https://a.example:8443/x/y?q=1";
        for (location, want) in [
            ("/z", "https://a.example:8443/z"),
            ("z?r=2", "https://a.example:8443/x/z?r=2"),
            ("?r", "https://a.example:8443/x/y?r"),
            ("//b.example/z", "https://b.example/z"),
            ("http://c.example/w#part", "http://c.example/w"),
            ("z?next=http://d.example/", "https://a.example:8443/x/z?next=http://d.example/"),
        ] {
            assert_eq!(joined(base, location).as_deref(), Some(want), "{location}");
        }
        for location in ["file:///etc/passwd", "gopher://a/", "", "http://", "https:///x"] {
            assert_eq!(joined(base, location), None, "{location}");
        }
    }

    #[test]
    fn passwords_are_sent_and_never_shown() {
        let url: Uri = "https://me:p%40ss@a.example/x?sig=secret".parse().unwrap();
        assert_eq!(shown(&url), "https://a.example/x");
        let header = authorization(&url).unwrap();
        assert_eq!(header, format!("Basic {}", STANDARD.encode("me:p@ss")));
        assert_eq!(format!("{header:?}"), "Sensitive");
        assert_eq!(authorization(&"https://a.example/x".parse().unwrap()), None);
        assert_eq!(decoded("%4"), b"%4");
        assert_eq!(decoded("%+1a%zz"), b"%+1a%zz");
    }

    #[test]
    fn hosts_and_ports_are_told() {
        let url: Uri = "https://[::1]:8443/".parse().unwrap();
        assert_eq!((host(&url), port(&url)), ("::1", 8443));
        let url: Uri = "http://a.example/".parse().unwrap();
        assert_eq!((host(&url), port(&url)), ("a.example", 80));
    }

    proptest! {
        #[test]
        fn any_location_leads_to_the_web_or_nowhere(text in "[ -~]{0,60}") {
            if let Some(url) = join(&"https://a.example/x".parse().unwrap(), &HeaderValue::from_str(&text).unwrap()) {
                prop_assert!(matches!(url.scheme_str(), Some("http" | "https")));
            }
        }
    }
}
