//! Which protocol a port speaks, by its declaration.

/// Protocol of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// TLS that is passed on as it is, with HTTP inside.
    Https,
    /// TLS that is passed on as it is.
    Tls,
    /// Bytes.
    Tcp,
    /// MongoDB; bytes for routing.
    Mongo,
    /// MySQL; bytes for routing.
    MySql,
    /// Redis; bytes for routing.
    Redis,
    /// Datagrams, which the mesh leaves alone.
    Udp,
    /// Not declared: told from the first bytes of each connection.
    Auto,
}

impl Protocol {
    /// By `appProtocol` if given, else by the port's name up to its first dash
    /// (Istio's protocol selection).
    #[must_use]
    pub fn of_port(name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => Self::Http2,
            Some("kubernetes.io/ws") => Self::Http,
            Some("kubernetes.io/wss") => Self::Https,
            Some(name) => Self::by_name(&name.to_ascii_lowercase()),
            None => {
                let name = name.to_ascii_lowercase();
                if name == "grpc-web" || name.starts_with("grpc-web-") {
                    return Self::GrpcWeb;
                }
                Self::by_name(name.split('-').next().unwrap_or_default())
            }
        }
    }

    fn by_name(name: &str) -> Self {
        match name {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            "udp" => Self::Udp,
            _ => Self::Auto,
        }
    }

    /// Whether requests are routed.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the upstream connection is HTTP/2 from the start.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_app_protocols_tell() {
        for (name, app, want) in [
            ("http-web", None, Protocol::Http),
            ("HTTP", None, Protocol::Http),
            ("grpc-web-x", None, Protocol::GrpcWeb),
            ("grpc", None, Protocol::Grpc),
            ("web", None, Protocol::Auto),
            ("", None, Protocol::Auto),
            ("tcp", Some("http"), Protocol::Http),
            ("x", Some("kubernetes.io/h2c"), Protocol::Http2),
            ("mysql-db", None, Protocol::MySql),
        ] {
            assert_eq!(Protocol::of_port(name, "TCP", app), want, "{name} {app:?}");
        }
        assert_eq!(Protocol::of_port("http", "UDP", None), Protocol::Udp);
    }
}
