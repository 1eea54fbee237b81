//! Who may see which page: what tells of all workloads and their secrets' names
//! is for this machine, and for who proves to be of the control plane.

use std::net::SocketAddr;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use runtime::http::{Body, text};

use crate::auth::{Chain, Credentials};

/// Pages that say nothing but names and whether all is well.
const OPEN: &[&str] = &["", "configz", "list", "syncz"];

/// Decides on requests that come from elsewhere.
#[derive(Clone, Debug)]
pub struct Guard {
    auth: Chain,
    namespace: String,
}

impl Guard {
    /// Lets those of the control plane's namespace see everything.
    #[must_use]
    pub fn new(auth: Chain, namespace: &str) -> Self {
        Self { auth, namespace: namespace.to_owned() }
    }

    /// The refusal, if the request is refused.
    pub async fn refusal<B>(&self, request: &Request<B>, peer: SocketAddr) -> Option<Response<Body>> {
        let page = request.uri().path().strip_prefix("/debug/")?;
        if OPEN.contains(&page) || peer.ip().to_canonical().is_loopback() {
            return None;
        }
        let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = value
            .and_then(|value| value.strip_prefix(names::header::BEARER))
            .map(|token| token.trim().to_owned());
        match self.auth.authenticate(&Credentials { client_cert: None, bearer: bearer.as_deref() }).await {
            Ok(caller) if caller.identities.iter().any(|id| id.namespace.as_str() == self.namespace) => None,
            Ok(_) => {
                let message = format!("this page is for service accounts of namespace {}\n", self.namespace);
                Some(text(StatusCode::FORBIDDEN, message))
            }
            Err(reason) => Some(text(
                StatusCode::UNAUTHORIZED,
                format!("this page needs a token when it is asked for from another machine: {reason}\n"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn from_elsewhere_only_open_pages_are_seen() {
        let guard = Guard::new(Chain::new(Vec::new()), "istio-system");
        let refused = async |path: &str, peer: &str| {
            let request = Request::get(path).body(()).unwrap();
            guard.refusal(&request, peer.parse().unwrap()).await.map(|response| response.status())
        };
        for path in ["/debug/config_dump?proxyID=a.b", "/debug/adsz", "/debug/force_disconnect?proxyID=a.b"] {
            assert_eq!(refused(path, "10.0.0.1:5").await, Some(StatusCode::UNAUTHORIZED), "{path}");
            assert_eq!(refused(path, "127.0.0.1:5").await, None, "{path}");
            assert_eq!(refused(path, "[::ffff:127.0.0.1]:5").await, None, "{path}");
        }
        for path in ["/debug/syncz", "/metrics", "/ready", "/debug/"] {
            assert_eq!(refused(path, "10.0.0.1:5").await, None, "{path}");
        }
    }
}
