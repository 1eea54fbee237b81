//! Node ids: how a proxy names itself on an xDS stream.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What kind of proxy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeType {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
}

impl NodeType {
    /// The word on the wire and on the agent's command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

impl fmt::Display for NodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NodeType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "router" => Ok(Self::Router),
            _ => Err(Error(text.into())),
        }
    }
}

/// `TYPE~IP~POD.NAMESPACE~DNS_DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeId {
    /// Kind of proxy.
    pub node_type: NodeType,
    /// First address of the proxy.
    pub ip: IpAddr,
    /// Name of the pod or workload.
    pub name: String,
    /// Namespace of the pod or workload.
    pub namespace: String,
    /// DNS domain, usually `NAMESPACE.svc.cluster.local`.
    pub domain: String,
}

/// The text is not a node id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a node id: expected (sidecar|router)~IP~POD.NAMESPACE~DNS_DOMAIN")]
pub struct Error(String);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}~{}.{}~{}", self.node_type, self.ip, self.name, self.namespace, self.domain)
    }
}

impl FromStr for NodeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error(text.into());
        let parts: Vec<&str> = text.split('~').collect();
        let [node_type, ip, workload, domain] = parts[..] else { return Err(bad()) };
        let (name, namespace) = workload.rsplit_once('.').ok_or_else(bad)?;
        Ok(Self {
            node_type: node_type.parse().map_err(|_| bad())?,
            ip: ip.parse().map_err(|_| bad())?,
            name: name.into(),
            namespace: namespace.into(),
            domain: domain.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let text = "sidecar~10.1.0.10~client-1.default~default.svc.cluster.local";
        let id: NodeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!((id.name.as_str(), id.namespace.as_str()), ("client-1", "default"));
        assert!("sidecar~x~y~z".parse::<NodeId>().is_err());
    }
}
