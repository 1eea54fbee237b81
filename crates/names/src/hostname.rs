//! Host names of services, exact or with a leading wildcard.

use std::fmt;
use std::sync::Arc;

/// A service's host name in lower case, such as `reviews.default.svc.cluster.local`,
/// or a wildcard such as `*.example.com` or `*`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// The host name of that text, in lower case.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Self(text.to_ascii_lowercase().into())
        } else {
            Self(text.into())
        }
    }

    /// `NAME.NAMESPACE.svc.DOMAIN`, the name of a Kubernetes Service.
    #[must_use]
    pub fn of_service(name: &str, namespace: &str, domain: &str) -> Self {
        Self::new(&format!("{name}.{namespace}.svc.{domain}"))
    }

    /// Resolves a host as a user wrote it in an object of `namespace`: a name
    /// without a dot is a service of that namespace, all else stays as it is
    /// (the rule for `hosts` and `destination.host` in Istio's API).
    #[must_use]
    pub fn resolve(text: &str, namespace: &str, domain: &str) -> Self {
        if text.contains('.') || text.starts_with('*') {
            Self::new(text)
        } else {
            Self::of_service(text, namespace, domain)
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it starts with `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether some host is meant by both names (either may be a wildcard).
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        match (self.is_wildcard(), other.is_wildcard()) {
            (false, false) => self == other,
            (true, false) => other.0.ends_with(&self.0[1..]),
            (false, true) => self.0.ends_with(&other.0[1..]),
            (true, true) => self.0[1..].ends_with(&other.0[1..]) || other.0[1..].ends_with(&self.0[1..]),
        }
    }

    /// Whether every host that `other` means is also meant by this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if self.is_wildcard() {
            let other = if other.is_wildcard() { &other.0[1..] } else { &*other.0 };
            other.ends_with(&self.0[1..])
        } else {
            self == other
        }
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Hostname {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Hostname {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_short_names_only() {
        let domain = "cluster.local";
        assert_eq!(Hostname::resolve("a", "ns", domain).as_str(), "a.ns.svc.cluster.local");
        assert_eq!(Hostname::resolve("a.other", "ns", domain).as_str(), "a.other");
        assert_eq!(Hostname::resolve("*", "ns", domain).as_str(), "*");
    }

    #[test]
    fn wildcards_match_and_cover() {
        let host = |text: &str| Hostname::new(text);
        assert!(host("*.com").matches(&host("a.com")));
        assert!(host("*.com").covers(&host("*.b.com")));
        assert!(!host("*.b.com").covers(&host("*.com")));
        assert!(host("*.b.com").matches(&host("*.com")));
        assert!(!host("*.b.com").matches(&host("b.com")));
        assert!(host("*").covers(&host("x")));
    }
}
