//! A connection on its way: what is on the wire, layer by layer.

use std::net::IpAddr;

use super::request::Request;

/// What is inside, when all of the mesh's TLS is taken off.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// A request in plaintext.
    Http(Request),
    /// The client's own TLS, with a request inside.
    Tls { name: String, protocols: Vec<String>, inside: Request },
    /// Bytes.
    Bytes,
}

/// TLS that an Envoy put around it.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    /// Server name.
    pub(super) name: String,
    /// What is offered (ALPN).
    pub(super) protocols: Vec<String>,
    /// Who the client proves to be; `None` without a certificate.
    pub(super) identity: Option<String>,
    /// Names of which the server's certificate must have one; empty for any.
    pub(super) wanted: Vec<String>,
}

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// `None` where the name of the destination is all that is known.
    pub(super) destination: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) source: Option<IpAddr>,
    /// Around the payload, if there is any.
    pub(super) tls: Option<Tls>,
    pub(super) payload: Payload,
}

/// What Envoy sees before it chooses a filter chain.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) transport: &'static str,
    pub(super) name: String,
    pub(super) protocols: Vec<String>,
}

impl Connection {
    /// What the inspectors of a listener, as far as they look, see of it.
    pub(super) fn seen(&self, looks_at_tls: bool, looks_at_http: bool) -> Seen {
        let tls = match (&self.tls, &self.payload) {
            (Some(tls), _) => Some((&tls.name, &tls.protocols)),
            (None, Payload::Tls { name, protocols, .. }) => Some((name, protocols)),
            (None, _) => None,
        };
        match (tls, &self.payload) {
            (Some((name, protocols)), _) if looks_at_tls => {
                Seen { transport: "tls", name: name.to_ascii_lowercase(), protocols: protocols.clone() }
            }
            (None, Payload::Http(request)) if looks_at_http => {
                let protocol = if request.is_http2 { "h2c" } else { "http/1.1" };
                Seen { transport: "raw_buffer", name: String::new(), protocols: vec![protocol.into()] }
            }
            _ => Seen { transport: "raw_buffer", name: String::new(), protocols: Vec::new() },
        }
    }

    /// Where it goes.
    pub(super) fn target(&self) -> String {
        match self.destination {
            Some(ip) => std::net::SocketAddr::new(ip, self.port).to_string(),
            None => format!("?:{}", self.port),
        }
    }
}
