//! xDS type URLs.

use std::fmt;

/// The type of the resources on one xDS subscription.
///
/// Types that Envoy asks for have a variant of their own; every other URL is
/// kept as it came, so that it can be named in an error.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TypeUrl {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoint,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    Route,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
    Extension,
    /// `istio.networking.nds.v1.NameTable` (NDS).
    NameTable,
    /// `istio.mesh.v1alpha1.ProxyConfig` (PCDS).
    ProxyConfig,
    /// `istio.v1.HealthInformation`.
    Health,
    /// Any other URL.
    Other(Box<str>),
}

impl TypeUrl {
    /// The order in which a push sends types: what is referred to comes first,
    /// so that Envoy never sees a listener or route before its clusters.
    /// Names come last: who resolves one finds what leads there in place.
    pub const PUSH_ORDER: [Self; 6] =
        [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Secret, Self::NameTable];

    /// The URL as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
            Self::ProxyConfig => "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig",
            Self::Health => "type.googleapis.com/istio.v1.HealthInformation",
            Self::Other(url) => url,
        }
    }

    /// The short name that people use (`CDS`, `EDS`, …); the URL for others.
    #[must_use]
    pub fn short(&self) -> &str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::Secret => "SDS",
            Self::Extension => "ECDS",
            Self::NameTable => "NDS",
            Self::ProxyConfig => "PCDS",
            Self::Health => "HEALTH",
            Self::Other(url) => url,
        }
    }

    /// Whether a subscription without names means "everything" (the xDS
    /// protocol's wildcard, which only CDS and LDS and Istio's own types have).
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable | Self::ProxyConfig)
    }
}

impl From<&str> for TypeUrl {
    fn from(url: &str) -> Self {
        [
            Self::Cluster,
            Self::Endpoint,
            Self::Listener,
            Self::Route,
            Self::Secret,
            Self::Extension,
            Self::NameTable,
            Self::ProxyConfig,
            Self::Health,
        ]
        .into_iter()
        .find(|known| known.as_str() == url)
        .unwrap_or_else(|| Self::Other(url.into()))
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_round_trip() {
        for url in TypeUrl::PUSH_ORDER {
            assert_eq!(TypeUrl::from(url.as_str()), url);
        }
        assert_eq!(TypeUrl::from("x/y").as_str(), "x/y");
    }
}
