//! Names of Envoy clusters.

use std::fmt;
use std::str::FromStr;

use crate::Hostname;

/// Destination of traffic that matches nothing and may leave.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// Destination of inbound traffic to a port that no service declares.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Destination of traffic that must not go anywhere.
pub const BLACK_HOLE: &str = "BlackHoleCluster";

/// Destination of requests that match nothing, by the name that they bear.
pub const DYNAMIC_DNS: &str = "AllowAnyDynamicDNSCluster";

/// Which way traffic goes, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload to a service.
    Outbound,
    /// To the workload.
    Inbound,
}

/// `outbound|PORT|SUBSET|HOST` or `inbound|PORT||`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterName {
    /// Direction.
    pub direction: Direction,
    /// Service port (outbound) or target port (inbound).
    pub port: u16,
    /// Subset of the DestinationRule; empty for all endpoints.
    pub subset: String,
    /// Host name of the service; empty for inbound clusters.
    pub host: Hostname,
}

/// The text is not a cluster name of the mesh.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a cluster name: expected DIRECTION|PORT|SUBSET|HOST")]
pub struct Error(String);

impl ClusterName {
    /// Cluster of a service port, or of one subset of it.
    #[must_use]
    pub fn outbound(port: u16, subset: &str, host: &Hostname) -> Self {
        Self { direction: Direction::Outbound, port, subset: subset.into(), host: host.clone() }
    }

    /// Cluster of a local target port.
    #[must_use]
    pub fn inbound(port: u16) -> Self {
        Self { direction: Direction::Inbound, port, subset: String::new(), host: Hostname::new("") }
    }

    /// The server name a client sends for this cluster under Istio mutual TLS:
    /// `outbound_.PORT_.SUBSET_.HOST`.
    #[must_use]
    pub fn sni(&self) -> String {
        format!("{}_.{}_.{}_.{}", self.direction, self.port, self.subset, self.host)
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        })
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}|{}", self.direction, self.port, self.subset, self.host)
    }
}

impl FromStr for ClusterName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error(text.into());
        let mut parts = text.splitn(4, '|');
        let mut next = || parts.next().ok_or_else(bad);
        let direction = match next()? {
            "outbound" => Direction::Outbound,
            "inbound" => Direction::Inbound,
            _ => return Err(bad()),
        };
        let port = next()?.parse().map_err(|_| bad())?;
        Ok(Self { direction, port, subset: next()?.into(), host: Hostname::new(next()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["outbound|9080|v2|reviews.default.svc.cluster.local", "inbound|9080||"] {
            assert_eq!(text.parse::<ClusterName>().unwrap().to_string(), text);
        }
        assert!("PassthroughCluster".parse::<ClusterName>().is_err());
        assert!("outbound|99999||x".parse::<ClusterName>().is_err());
    }
}
