//! What is asked: a request as somebody would type it.

use std::net::IpAddr;

use serde::Serialize;

/// How the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1 in plaintext.
    Http,
    /// HTTP/2 in plaintext.
    Http2,
    /// gRPC: HTTP/2 in plaintext, as a call of a method.
    Grpc,
    /// The client's own TLS.
    Https,
    /// Bytes.
    Tcp,
}

/// Why an address cannot be asked about.
#[derive(Debug, thiserror::Error)]
#[error("--to {url:?}: {why}; write it as http://HOST:PORT/PATH (also https, grpc, http2, tcp)")]
pub struct Error {
    url: String,
    why: String,
}

/// A request.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// How the client speaks.
    pub scheme: Scheme,
    /// Host, as it stands in the URL; without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path with its query.
    pub path: String,
    /// Method.
    pub method: String,
    /// Host as the request names it: with the port, where the URL has one.
    pub authority: String,
    /// Further headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The client's address: it is outside of the mesh then, and the pod is who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Address of the host, where it is known; instead of what the proxy knows of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

impl Question {
    /// A request for a URL; `GET`, or `POST` for gRPC.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn to(url: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error { url: url.to_owned(), why: why.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("no scheme"))?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, Some(80)),
            "http2" | "h2c" => (Scheme::Http2, Some(80)),
            "grpc" => (Scheme::Grpc, None),
            "https" | "tls" => (Scheme::Https, Some(443)),
            "tcp" => (Scheme::Tcp, None),
            _ => return Err(bad("unknown scheme")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        // A browser keeps the fragment to itself, and user and password go into a header.
        let path = path.split('#').next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse::<u16>().map_err(|_| bad("the port is no number up to 65535"))?))
            }
            _ => (authority, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.or(default_port).filter(|port| *port != 0).ok_or_else(|| bad("no port"))?;
        if host.is_empty() && !authority.is_empty() && !authority.starts_with(':') {
            return Err(bad("no host"));
        }
        let is_grpc = scheme == Scheme::Grpc;
        let mut headers = Vec::new();
        if is_grpc {
            headers.push(("content-type".to_owned(), "application/grpc".to_owned()));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
            path,
            method: if is_grpc { "POST" } else { "GET" }.into(),
            authority: if host.is_empty() { format!("localhost:{port}") } else { authority.to_owned() },
            headers,
            from: None,
            address: None,
        })
    }

    /// The same with another method.
    #[must_use]
    pub fn method(self, method: &str) -> Self {
        Self { method: method.to_owned(), ..self }
    }

    /// The same with one more header; `host` takes the place of that of the URL.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "host" | ":authority" => value.clone_into(&mut self.authority),
            name => self.headers.push((name.to_owned(), value.to_owned())),
        }
        self
    }
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let (port, path) = (self.port, &self.path);
        match self.scheme {
            Scheme::Tcp => write!(f, "tcp://{host}:{port}"),
            Scheme::Https => write!(f, "https://{host}:{port}{path}"),
            Scheme::Http => write!(f, "{} http://{host}:{port}{path}", self.method),
            Scheme::Http2 => write!(f, "{} http2://{host}:{port}{path}", self.method),
            Scheme::Grpc => write!(f, "{} grpc://{host}:{port}{path}", self.method),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_all_kinds_are_read() {
        let read = |url: &str| {
            let asked = Question::to(url).unwrap();
            (asked.host, asked.port, asked.path, asked.authority)
        };
        let of = |host: &str, port: u16, path: &str, authority: &str| {
            (host.into(), port, path.into(), authority.into())
        };
        assert_eq!(read("http://reviews:9080/a?b=c#d"), of("reviews", 9080, "/a?b=c", "reviews:9080"));
        assert_eq!(read("HTTPS://a.example"), of("a.example", 443, "/", "a.example"));
        assert_eq!(read("http://[::1]:8080?x"), of("::1", 8080, "/?x", "[::1]:8080"));
        assert_eq!(read("http://[fd00::2]/x"), of("fd00::2", 80, "/x", "[fd00::2]"));
        assert_eq!(read("http://u:p@h:1/"), of("h", 1, "/", "h:1"));
        assert_eq!(read("tcp://db:3306"), of("db", 3306, "/", "db:3306"));
        assert_eq!(read("http://:9080/x"), of("", 9080, "/x", "localhost:9080"));
        assert_eq!(Question::to("grpc://a:1/x.Y/Z").unwrap().method, "POST");
        for url in [
            "reviews:9080",
            "ftp://a/",
            "http://a:70000/",
            "http://a:x/",
            "tcp://a",
            "grpc://a/x",
            "http://a:0/",
        ] {
            assert!(Question::to(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_header_may_be_the_host() {
        let asked = Question::to("http://a:1/").unwrap().header("Host", "b").header("X-A", "c");
        assert_eq!(asked.authority, "b");
        assert_eq!(asked.headers, [("x-a".to_owned(), "c".to_owned())]);
        assert_eq!(asked.method("POST").to_string(), "POST http://a:1/");
    }
}
