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
    /// HTTP/1 to a proxy: requests name their whole destination. Only a Sidecar's
    /// egress listener speaks it.
    HttpProxy,
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
    /// By `appProtocol` if given, else by the port's name, either up to its first
    /// dash; a well-known port whose server speaks first is TCP when neither says
    /// more (Istio's protocol selection).
    #[must_use]
    pub fn of_port(number: u16, name: &str, transport: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let name = match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            Some(name) => name.to_ascii_lowercase(),
            None => name.to_ascii_lowercase(),
        };
        if name.starts_with("grpc-web") {
            return Self::GrpcWeb;
        }
        match Self::by_name(name.split('-').next().unwrap_or_default()) {
            Self::Auto if SERVER_FIRST.contains(&number) => Self::Tcp,
            protocol => protocol,
        }
    }

    /// By its name as objects of Istio write it, in any case.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self::by_name(&name.to_ascii_lowercase())
    }

    fn by_name(name: &str) -> Self {
        match name {
            "http" => Self::Http,
            "http_proxy" => Self::HttpProxy,
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
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy)
    }

    /// Whether it is TLS that the mesh does not end.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Whether it is bytes, and neither requests nor unknown.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::MySql | Self::Redis)
    }

    /// What is inside once its TLS has been ended.
    #[must_use]
    pub fn after_tls(self) -> Self {
        match self {
            Self::Https => Self::Http,
            Self::Tls => Self::Tcp,
            other => other,
        }
    }

    /// Whether the upstream connection is HTTP/2 from the start.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
}

/// Ports of SMTP, DNS, MySQL and MongoDB: waiting for the client's first bytes
/// would wait for ever.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

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
            ("x", Some("grpc-web-text"), Protocol::GrpcWeb),
            ("x", Some("https-alt"), Protocol::Https),
        ] {
            assert_eq!(Protocol::of_port(80, name, "TCP", app), want, "{name} {app:?}");
        }
        assert_eq!(Protocol::of_port(80, "http", "UDP", None), Protocol::Udp);
    }

    #[test]
    fn well_known_ports_are_not_sniffed_unless_declared() {
        assert_eq!(Protocol::of_port(3306, "db", "TCP", None), Protocol::Tcp);
        assert_eq!(Protocol::of_port(3306, "http", "TCP", None), Protocol::Http);
        assert_eq!(Protocol::of_port(53, "", "TCP", Some("x")), Protocol::Tcp);
    }

    #[test]
    fn objects_of_istio_write_protocols_in_any_case() {
        assert_eq!(Protocol::of_name("GRPC-Web"), Protocol::GrpcWeb);
        assert_eq!(Protocol::of_name("HTTP_PROXY"), Protocol::HttpProxy);
        assert_eq!(Protocol::of_name("Mongo"), Protocol::Mongo);
        assert_eq!(Protocol::Https.after_tls(), Protocol::Http);
    }
}
