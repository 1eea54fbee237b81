//! Which ports of a proxy's own workload services lead to, for debug pages.

use std::sync::Arc;

use crate::proxy::Proxy;
use crate::scope::{Scope, View};
use crate::snapshot::{Port, Service, Snapshot};

/// Services of a proxy's workload with their port and the workload's own.
#[must_use]
pub fn served(snapshot: &Snapshot, proxy: &Proxy) -> Vec<(Arc<Service>, Port, u16)> {
    let view = View::new(snapshot, proxy);
    let inbound = Scope::new(snapshot, proxy, &view).inbound().into_iter();
    inbound.filter_map(|port| Some((port.service?.clone(), port.port.clone(), port.target))).collect()
}
