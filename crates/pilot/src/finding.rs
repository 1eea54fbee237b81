//! What translation leaves out, since something else takes its place, and what
//! leads nowhere: for metrics, debug pages and the users whose objects it concerns.

mod notes;

use config::{Key, Severity};

pub(crate) use notes::Notes;

/// What a finding is about. Each is counted by a metric of Istio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Services of different protocols lead to one port of a workload.
    InboundListener,
    /// Services want the same connections of one outbound listener.
    OutboundListener,
    /// Services have clusters of one name.
    DuplicateCluster,
    /// A cluster that Envoy is to resolve by DNS has no names to resolve.
    NothingToResolve,
    /// A cluster has no endpoints.
    NoEndpoints,
    /// Hosts of routes have a name that another host has.
    DuplicateDomain,
    /// DestinationRules for one host have subsets of one name.
    DuplicateSubset,
    /// A proxy's own workload is not ready.
    NotReady,
    /// An endpoint names a pod that is not there.
    NoPod,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::InboundListener,
        Self::OutboundListener,
        Self::DuplicateCluster,
        Self::NothingToResolve,
        Self::NoEndpoints,
        Self::DuplicateDomain,
        Self::DuplicateSubset,
        Self::NotReady,
        Self::NoPod,
    ];

    /// Name of its metric, which is also its key at `/debug/push_status`.
    #[must_use]
    pub fn metric(self) -> &'static str {
        match self {
            Self::InboundListener => "pilot_conflict_inbound_listener",
            Self::OutboundListener => "pilot_conflict_outbound_listener_tcp_over_current_tcp",
            Self::DuplicateCluster => "pilot_duplicate_envoy_clusters",
            Self::NothingToResolve => "pilot_dns_cluster_without_endpoints",
            Self::NoEndpoints => "pilot_eds_no_instances",
            Self::DuplicateDomain => "pilot_vservice_dup_domain",
            Self::DuplicateSubset => "pilot_destrule_subsets",
            Self::NotReady => "pilot_endpoint_not_ready",
            Self::NoPod => "endpoint_no_pod",
        }
    }

    /// How bad it is for the object that it is about; `None` for what comes and
    /// goes as workloads do, and is no fault of any object.
    #[must_use]
    pub fn severity(self) -> Option<Severity> {
        match self {
            Self::NoEndpoints | Self::NotReady | Self::NoPod => None,
            _ => Some(Severity::Warning),
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// What it is counted by: a listener, a cluster, a host or a proxy.
    pub key: String,
    /// What happens, and to what; may be empty where the key says it all.
    pub message: String,
    /// Id of the proxy that it was found for, if it is about what proxies get.
    pub proxy: String,
    /// The object that is left out.
    pub object: Option<Key>,
}
