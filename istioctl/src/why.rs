//! Why a request goes where it goes, or is refused: from what the Envoys on its
//! way hold, by the rules by which Envoy decides.
//!
//! Dumps in, an explanation out: nothing is asked here. What this program cannot
//! judge (Lua, Wasm, a server that is asked) is told as such, never guessed.
//!
//! ```
//! use istioctl::why::{Peer, Proxy, Question, explain};
//!
//! let dump = r#"{"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
//!     "bootstrap": {"node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local"}}}]}"#;
//! let client = Proxy::read(dump, None)?;
//! let question = Question::to("http://10.0.0.9:80/")?;
//! let answer = explain(&client, &question, &|_| Peer::Outside);
//! assert!(answer.summary.contains("virtualOutbound"), "{}", answer.summary);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod capture;
mod cluster;
mod connection;
mod explanation;
mod filter;
mod http;
mod listener;
mod matching;
mod message;
mod outgoing;
mod proxy;
mod question;
mod rbac;
mod request;
mod resolve;
mod rewrite;
mod route;
mod summary;
mod token;
mod tri;
mod walk;

use std::net::IpAddr;

use ::proto::envoy::config::core::v3::Address;
use ::proto::envoy::config::core::v3::address::Address as AddressKind;
use ::proto::envoy::config::core::v3::envoy_internal_address::AddressNameSpecifier;

pub use explanation::{End, Explanation, Step, Then, Verdict, Way};
pub use proxy::{Error, Proxy};
pub use question::{Error as QuestionError, Question, Scheme};

use connection::{Connection, Payload};
use explanation::Trail;
use request::Request;
use walk::{Via, Walk};

/// Who has an address.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// A workload with an Envoy, whose dump is known.
    Proxy(&'a Proxy),
    /// A workload without one, by its name `POD.NAMESPACE`.
    Bare(&'a str),
    /// A workload whose Envoy could not be asked: its name, and why.
    Silent(&'a str, &'a str),
    /// Nobody of the mesh.
    Outside,
}

/// What happens to a request of a workload; with [`Question::from`] to one that
/// comes to the workload. `find` tells who has an address.
#[must_use]
pub fn explain<'a>(
    proxy: &'a Proxy,
    question: &Question,
    find: &'a dyn Fn(IpAddr) -> Peer<'a>,
) -> Explanation {
    let walk = Walk { find };
    let mut trail = Trail::new();
    if question.from.is_some() || proxy.is_router {
        let connection = connection(question, proxy.address(), question.from);
        let from = question.from.map_or_else(|| "a client outside".to_owned(), |ip| ip.to_string());
        let way = walk.arrive(proxy, connection, Via::First, trail);
        return Explanation::new(&from, question, way);
    }
    let address = resolve::resolve(proxy, question, &mut trail);
    let connection = connection(question, address, proxy.address());
    let way = match capture::outbound(proxy, address, question.port) {
        Some(why) => walk.uncaptured(proxy, &why, connection, trail),
        None => walk.leave(proxy, connection, trail),
    };
    Explanation::new(&proxy.name, question, way)
}

/// What a client without an Envoy sends.
fn connection(question: &Question, destination: Option<IpAddr>, source: Option<IpAddr>) -> Connection {
    let request = |scheme: &'static str, is_http2: bool| Request {
        method: question.method.clone(),
        scheme,
        authority: question.authority.clone(),
        path: question.path.clone(),
        headers: question.headers.iter().map(|(name, value)| (name.clone(), Some(value.clone()))).collect(),
        is_http2,
    };
    let payload = match question.scheme {
        Scheme::Http => Payload::Http(request("http", false)),
        Scheme::Http2 | Scheme::Grpc => Payload::Http(request("http", true)),
        Scheme::Tcp => Payload::Bytes,
        Scheme::Https => {
            let host = route::without_port(&question.authority);
            Payload::Tls {
                // An address is no server name.
                name: if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
                    String::new()
                } else {
                    host.to_owned()
                },
                protocols: vec!["h2".into(), "http/1.1".into()],
                inside: request("https", true),
            }
        }
    };
    Connection { destination, port: question.port, source, tls: None, payload }
}

/// The name of an address that is none of a network.
fn internal_name(address: Option<&Address>) -> String {
    match address.and_then(|address| address.address.as_ref()) {
        Some(AddressKind::Pipe(pipe)) => pipe.path.clone(),
        Some(AddressKind::EnvoyInternalAddress(internal)) => match &internal.address_name_specifier {
            Some(AddressNameSpecifier::ServerListenerName(name)) => name.clone(),
            None => String::new(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
