//! How the agent ends, and what its status server does.

mod health;
mod merge;
mod probes;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use names::NodeType;
use proto::istio::mesh::v1alpha1::proxy_config::InboundInterceptionMode;
use serde_json::json;

use super::super::env::{self, Reader};
use super::super::node::Node;
use super::super::status::Status;
use super::super::{Drain, ProxyConfig};
use super::PORT;

/// Length of the drain when nobody sets one.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Reads both; the file whose appearance ends the agent comes last.
pub(super) fn lifecycle(
    proxy: &ProxyConfig,
    node: Option<&Node>,
    reader: &mut Reader<'_>,
) -> (Drain, Status, Option<PathBuf>) {
    let mut port = |what: &str, value: i32| {
        u16::try_from(value).unwrap_or_else(|_| {
            reader.error(format!("{what} of the ProxyConfig is {value}: expected {PORT}"));
            0
        })
    };
    let admin_port = port("proxyAdminPort", proxy.proxy_admin_port);
    let status_port = port("statusPort", proxy.status_port);
    let is_sidecar = node.is_none_or(|node| node.node_type() == NodeType::Sidecar);
    let runs_envoy = !reader.flag(env::DISABLE_ENVOY);
    let status = Status {
        port: status_port,
        admin_port,
        metrics_localhost_only: reader.flag(env::METRICS_LOCALHOST_ACCESS_ONLY),
        ip: node.map_or(IpAddr::from([127, 0, 0, 1]), |node| node.id.ip),
        runs_envoy,
        unready_after: Some(reader.duration(env::ISTIO_AGENT_UNREADY_AFTER_XDS_LOSS))
            .filter(|limit| !limit.is_zero()),
        merge: merge::merge(status_port, is_sidecar, runs_envoy, reader),
        probes: probes::probes(reader),
        health: proxy.readiness_probe.as_ref().and_then(|probe| health::check(probe, reader)),
    };
    let exit_file = reader.set(env::ISTIO_AGENT_EXIT_FILE).map(PathBuf::from);
    (drain(proxy, node, admin_port, is_sidecar, reader), status, exit_file)
}

fn drain(
    proxy: &ProxyConfig,
    node: Option<&Node>,
    admin_port: u16,
    is_sidecar: bool,
    reader: &mut Reader<'_>,
) -> Drain {
    let until_idle = reader.flag(env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS);
    let minimum = reader.duration(env::MINIMUM_DRAIN_DURATION);
    let limit = proxy.termination_drain_duration.and_then(|span| span.to_std()).unwrap_or_default();
    let mode = node.and_then(|node| node.metadata.get("INTERCEPTION_MODE"));
    let is_mode = |mode: InboundInterceptionMode| proxy.interception_mode == i32::from(mode);
    let redirects = !is_mode(InboundInterceptionMode::Tproxy)
        && !is_mode(InboundInterceptionMode::None)
        && mode.is_none_or(|mode| *mode == json!("REDIRECT"));
    Drain {
        // Peers learn only in a while that the pod is leaving; what they open
        // until then would be refused by a proxy that is gone.
        minimum: if until_idle { minimum } else { minimum.min(limit) },
        // The default is nobody's wish: with that switch it would end
        // connections that were meant to be waited for.
        limit: (!until_idle || (limit != DEFAULT_DRAIN && limit > minimum)).then_some(limit),
        asks_envoy: until_idle,
        inbound_only: is_sidecar,
        counts_connections: !is_sidecar || redirects,
        is_gateway: !is_sidecar,
        admin_port,
    }
}

#[cfg(test)]
mod tests;
