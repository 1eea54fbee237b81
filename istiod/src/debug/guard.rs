//! Who may see which page: what tells of all workloads is for this machine, and
//! for who proves to be of the control plane; others see proxies of their own
//! namespace.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use runtime::http::{Body, text};

use crate::auth::{Caller, Chain, Credentials, Refusal};

/// Pages that say nothing but names and whether all is well.
const OPEN: &[&str] = &["", "list", "sourcez", "syncz"];
/// Pages about one proxy, for those of its namespace.
const NAMESPACED: &[&str] = &["config_dump", "edsz", "ndsz"];
/// The other scheme that a token may be named by.
const ISTIO: &str = "Istio ";

/// What somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    All,
    /// What concerns proxies of a namespace.
    Namespace(String),
}

impl Access {
    /// Whether it reaches proxies of a namespace.
    #[must_use]
    pub fn may_see(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
        }
    }

    /// The namespace that it is limited to.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(own) => Some(own),
        }
    }

    /// Whether it reaches a page at all.
    #[must_use]
    pub fn reaches(&self, page: &str) -> bool {
        *self == Self::All || NAMESPACED.contains(&page)
    }
}

/// Decides on requests.
#[derive(Clone, Debug)]
pub struct Guard {
    auth: Chain,
    /// Namespaces whose service accounts see everything.
    namespaces: BTreeSet<String>,
    /// Whether the namespace of a caller matters (`ENABLE_DEBUG_ENDPOINT_AUTH`).
    is_strict: bool,
}

impl Guard {
    /// Lets those of some namespaces see everything, and anybody who proves to
    /// be somebody unless it `is_strict`.
    #[must_use]
    pub fn new(auth: Chain, namespaces: BTreeSet<String>, is_strict: bool) -> Self {
        Self { auth, namespaces, is_strict }
    }

    /// What a caller may see.
    #[must_use]
    pub fn access(&self, caller: &Caller) -> Access {
        let mut own = caller.identities.iter().map(|id| id.namespace.as_str());
        if !self.is_strict || own.clone().any(|namespace| self.namespaces.contains(namespace)) {
            return Access::All;
        }
        Access::Namespace(own.next().unwrap_or_default().to_owned())
    }

    /// Whether the namespace of a caller matters.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// What the sender of a request may see.
    ///
    /// # Errors
    /// The refusal, if the request is refused.
    pub async fn admit<B>(
        &self,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Result<Access, Box<Response<Body>>> {
        let Some(page) = request.uri().path().strip_prefix("/debug/") else { return Ok(Access::All) };
        if OPEN.contains(&page) || peer.ip().to_canonical().is_loopback() {
            return Ok(Access::All);
        }
        let value = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = |value: &str| {
            let token = value.strip_prefix(names::header::BEARER).or_else(|| value.strip_prefix(ISTIO));
            token.map(|token| token.trim().to_owned())
        };
        let bearer = value.and_then(token);
        let credentials = Credentials { bearer: bearer.as_deref(), ..Credentials::default() };
        let caller = self.auth.authenticate(&credentials).await.map_err(|reason| {
            let words =
                format!("this page needs a token when it is asked for from another machine: {reason}\n");
            let code = match reason {
                Refusal::Unproven(_) => StatusCode::UNAUTHORIZED,
                Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Box::new(text(code, words))
        })?;
        let access = self.access(&caller);
        if access.reaches(page) {
            return Ok(access);
        }
        let all: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        let words = format!("this page is for service accounts of namespace {}\n", all.join(", "));
        Err(Box::new(text(StatusCode::FORBIDDEN, words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Authenticator;

    struct Anybody;

    #[tonic::async_trait]
    impl Authenticator for Anybody {
        fn name(&self) -> &'static str {
            "anybody"
        }

        async fn authenticate(&self, request: &Credentials<'_>) -> Option<Result<Caller, Refusal>> {
            let namespace = request.bearer?;
            let id = format!("spiffe://cluster.local/ns/{namespace}/sa/a");
            Some(Ok(Caller { identities: vec![id.parse().unwrap()], by: "test", pod: None }))
        }
    }

    fn guard(is_strict: bool) -> Guard {
        let authenticators: Vec<Box<dyn Authenticator>> = vec![Box::new(Anybody)];
        Guard::new(Chain::new(authenticators), ["istio-system".into(), "ops".into()].into(), is_strict)
    }

    async fn ask(guard: &Guard, path: &str, peer: &str, token: &str) -> Result<Access, StatusCode> {
        let mut request = Request::get(path);
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request.body(()).unwrap();
        guard.admit(&request, peer.parse().unwrap()).await.map_err(|response| response.status())
    }

    #[tokio::test]
    async fn from_elsewhere_only_open_pages_are_seen_without_a_token() {
        let guard = guard(true);
        for path in ["/debug/config_dump?proxyID=a.b", "/debug/adsz", "/debug/configz", "/debug/x"] {
            assert_eq!(ask(&guard, path, "10.0.0.1:5", "").await, Err(StatusCode::UNAUTHORIZED), "{path}");
            assert_eq!(ask(&guard, path, "127.0.0.1:5", "").await, Ok(Access::All), "{path}");
            assert_eq!(ask(&guard, path, "[::ffff:127.0.0.1]:5", "").await, Ok(Access::All), "{path}");
        }
        for path in ["/debug/syncz", "/metrics", "/ready", "/debug/", "/debug/sourcez"] {
            assert_eq!(ask(&guard, path, "10.0.0.1:5", "").await, Ok(Access::All), "{path}");
        }
    }

    #[tokio::test]
    async fn a_token_opens_what_its_namespace_may_see() {
        let (guard, lenient) = (guard(true), guard(false));
        for token in ["Bearer istio-system", "Istio ops"] {
            assert_eq!(ask(&guard, "/debug/adsz", "10.0.0.1:5", token).await, Ok(Access::All));
        }
        let token = "Bearer default";
        assert_eq!(ask(&guard, "/debug/adsz", "10.0.0.1:5", token).await, Err(StatusCode::FORBIDDEN));
        let own = ask(&guard, "/debug/edsz?proxyID=x", "10.0.0.1:5", token).await.unwrap();
        assert!(own.may_see("default") && !own.may_see("other"));
        assert_eq!(ask(&lenient, "/debug/adsz", "10.0.0.1:5", token).await, Ok(Access::All));
    }
}
