//! Filters that policies and telemetry put into filter chains. Each module says
//! for a [`Place`] what stands there, and returns nothing where nothing applies;
//! the order is that of [`super::http`] and [`super::listener`].

pub(super) mod access_log;
pub(super) mod alpn;
pub(super) mod dynamic;
pub(super) mod ext_authz;
pub(super) mod grpc_stats;
pub(super) mod jwt;
pub(super) mod rbac;
pub(super) mod session;
pub(crate) mod stats;
pub(super) mod tracing;
pub(super) mod wasm;

use crate::protocol::Protocol;
use crate::snapshot::Service;

/// Whose traffic passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// To the proxy's workload.
    Inbound,
    /// From the proxy's workload.
    Outbound,
    /// Through a gateway.
    Gateway,
}

/// Where a filter chain stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Whose traffic passes.
    pub(super) direction: Direction,
    /// What passes.
    pub(super) protocol: Protocol,
    /// Port of the workload (inbound), of the service (outbound) or of the listener (gateway);
    /// 0 for whatever no service declares.
    pub(super) port: u16,
    /// The service, where there is one.
    pub(super) service: Option<&'a Service>,
}

impl<'a> Place<'a> {
    pub(super) fn new(
        direction: Direction,
        protocol: Protocol,
        port: u16,
        service: Option<&'a Service>,
    ) -> Self {
        Self { direction, protocol, port, service }
    }
}
