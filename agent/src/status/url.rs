//! Where an HTTP request goes, and where a redirection leads from there.

use std::fmt;

use http::Uri;

/// What a request is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Over TLS.
    pub is_tls: bool,
    /// Host, without the brackets of an IPv6 address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path with its query.
    pub path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl Url {
    /// `HOST:PORT`, as the header `Host` has it.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Where a `Location` leads to; `None` when it can be read in no way.
    #[must_use]
    pub fn follow(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.is_tls { "https" } else { "http" };
            return Self::absolute(&format!("{scheme}://{rest}"));
        }
        if has_scheme(location) {
            return Self::absolute(location);
        }
        let path = self.path.split('?').next().unwrap_or_default();
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{path}{location}"),
            Some(_) => format!("{}/{location}", path.rsplit_once('/').map_or("", |(dir, _)| dir)),
            None => path.to_owned(),
        };
        path.parse::<Uri>().ok()?;
        Some(Self { path, ..self.clone() })
    }

    fn absolute(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self { is_tls, host, port, path })
    }
}

/// Whether a `Location` begins with a scheme; another address in its query is none.
#[must_use]
pub fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once(':').map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `HOST:PORT`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start() -> Url {
        Url { is_tls: false, host: "10.0.0.1".into(), port: 8080, path: "/a/b?c=d".into() }
    }

    #[test]
    fn redirections_lead_somewhere() {
        for (location, target) in [
            ("/x", "http://10.0.0.1:8080/x"),
            ("x?y#z", "http://10.0.0.1:8080/a/x?y"),
            ("?q", "http://10.0.0.1:8080/a/b?q"),
            ("", "http://10.0.0.1:8080/a/b"),
            ("/login?next=https://h/x", "http://10.0.0.1:8080/login?next=https://h/x"),
            ("//h/x", "http://h:80/x"),
            ("https://h", "https://h:443/"),
            ("http://[::1]:81/x", "http://[::1]:81/x"),
        ] {
            assert_eq!(start().follow(location).unwrap().to_string(), target, "{location}");
        }
        for location in ["ftp://h/", "http://", "/a b", "http:// /"] {
            assert_eq!(start().follow(location), None, "{location}");
        }
    }

    proptest! {
        #[test]
        fn any_location_is_followed_or_not(location in ".{0,60}") {
            if let Some(url) = start().follow(&location) {
                prop_assert!(url.path.parse::<Uri>().is_ok());
                prop_assert!(url.to_string().parse::<Uri>().is_ok(), "{url}");
            }
        }
    }
}
