//! Which blocks of a DestinationRule hold for one cluster.

use mesh::MeshConfig;
use proto::istio::networking::v1alpha3::load_balancer_settings::{LbPolicy as Balancer, SimpleLb};
use proto::istio::networking::v1alpha3::traffic_policy::{PortTrafficPolicy, ProxyProtocol, RetryBudget};
use proto::istio::networking::v1alpha3::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, TrafficPolicy,
};

/// The blocks of a traffic policy that hold for one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::generate) struct Policy<'a> {
    pub(in crate::generate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(in crate::generate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(in crate::generate) outlier_detection: Option<&'a OutlierDetection>,
    pub(in crate::generate) tls: Option<&'a ClientTlsSettings>,
    pub(super) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(super) retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Policy<'a> {
    /// The blocks of one level for a port. Settings for the port stand for all
    /// blocks: what they leave out is not taken from the level itself.
    fn level(policy: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(policy) = policy else { return Self::default() };
        if let Some(own) = of_port(policy, port) {
            return Self {
                connection_pool: own.connection_pool.as_ref(),
                load_balancer: own.load_balancer.as_ref(),
                outlier_detection: own.outlier_detection.as_ref(),
                tls: own.tls.as_ref(),
                ..Self::default()
            };
        }
        Self {
            connection_pool: policy.connection_pool.as_ref(),
            load_balancer: policy.load_balancer.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
            proxy_protocol: policy.proxy_protocol.as_ref(),
            retry_budget: policy.retry_budget.as_ref(),
        }
    }

    /// The blocks that hold without a subset: the rule's, else those of the mesh.
    pub(super) fn of_rule(rule: Option<&'a TrafficPolicy>, port: u16, mesh: &'a MeshConfig) -> Self {
        let mut blocks = Self::level(rule, port);
        if let Some(defaults) = &mesh.default_traffic_policy {
            blocks.connection_pool = blocks.connection_pool.or(defaults.connection_pool.as_ref());
            blocks.outlier_detection = blocks.outlier_detection.or(defaults.outlier_detection.as_ref());
        }
        blocks
    }

    /// The same for a subset that may have a policy of its own.
    pub(super) fn for_subset(self, subset: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(subset) = subset else { return self };
        let inner = Self::level(Some(subset), port);
        // Settings for the port stand for all blocks here as well.
        let replaces = of_port(subset, port).is_some();
        Self {
            connection_pool: over(inner.connection_pool, self.connection_pool, replaces),
            load_balancer: over(inner.load_balancer, self.load_balancer, replaces),
            outlier_detection: over(inner.outlier_detection, self.outlier_detection, replaces),
            tls: over(inner.tls, self.tls, replaces),
            proxy_protocol: inner.proxy_protocol.or(self.proxy_protocol),
            retry_budget: inner.retry_budget.or(self.retry_budget),
        }
    }
}

fn of_port(policy: &TrafficPolicy, port: u16) -> Option<&PortTrafficPolicy> {
    policy
        .port_level_settings
        .iter()
        .find(|settings| settings.port.as_ref().is_some_and(|selector| selector.number == u32::from(port)))
}

fn over<T>(inner: Option<T>, outer: Option<T>, replaces: bool) -> Option<T> {
    if replaces { inner } else { inner.or(outer) }
}

/// The blocks for a port: the subset's before the rule's.
pub(in crate::generate) fn for_port<'a>(
    rule: Option<&'a TrafficPolicy>,
    subset: Option<&'a TrafficPolicy>,
    port: u16,
) -> Policy<'a> {
    Policy::level(rule, port).for_subset(subset, port)
}

pub(in crate::generate) fn simple(policy: &Policy<'_>) -> Option<SimpleLb> {
    of_balancer(policy.load_balancer)
}

fn of_balancer(balancer: Option<&LoadBalancerSettings>) -> Option<SimpleLb> {
    match balancer?.lb_policy.as_ref()? {
        Balancer::Simple(simple) => SimpleLb::try_from(*simple).ok(),
        Balancer::ConsistentHash(_) | Balancer::BackendUtilization(_) => None,
    }
}

/// Whether a policy itself, not its settings for ports, says that requests go
/// to the address that the client chose.
pub(super) fn is_passthrough(policy: Option<&TrafficPolicy>) -> bool {
    of_balancer(policy.and_then(|policy| policy.load_balancer.as_ref())) == Some(SimpleLb::Passthrough)
}
