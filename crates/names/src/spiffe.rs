//! Workload identity: SPIFFE ids and their parts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a string is not the identity part it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is not `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    #[error(
        "{0:?} is not a workload identity: expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT"
    )]
    Id(String),
    /// A part is empty or holds a character that would end it.
    #[error("{value:?} is not a {what}: it must not be empty or hold '/', ',' or white space")]
    Part {
        /// Which part.
        what: &'static str,
        /// The text as given.
        value: String,
    },
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(value: &str) -> Result<Self, Error> {
                let bad = |c: char| c == '/' || c == ',' || c.is_whitespace() || c.is_control();
                if value.is_empty() || value.contains(bad) {
                    return Err(Error::Part { what: $what, value: value.into() });
                }
                Ok(Self(value.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

part!(
    /// A Kubernetes namespace.
    Namespace,
    "namespace"
);
part!(
    /// A Kubernetes service account (name only).
    ServiceAccount,
    "service account"
);
part!(
    /// A SPIFFE trust domain; `cluster.local` unless configured.
    TrustDomain,
    "trust domain"
);

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

/// `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`, the identity in a
/// workload's certificate (URI SAN).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// Trust domain.
    pub trust_domain: TrustDomain,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// Service account of the workload.
    pub service_account: ServiceAccount,
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Id(text.into());
        let rest = text.strip_prefix("spiffe://").ok_or_else(bad)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else {
            return Err(bad());
        };
        Ok(Self {
            trust_domain: trust_domain.parse().map_err(|_| bad())?,
            namespace: namespace.parse().map_err(|_| bad())?,
            service_account: service_account.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let text = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.namespace.as_str(), "default");
    }

    #[test]
    fn refuses_what_would_change_the_meaning() {
        for bad in [
            "",
            "spiffe://",
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a,b/sa/c",
            "spiffe:///ns/a/sa/b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?}");
        }
    }
}
