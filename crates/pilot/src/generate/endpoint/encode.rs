//! Writes groups of endpoints as Envoy's messages.

use proto::envoy::config::core::v3::{
    Address, HealthStatus, Locality as ApiLocality, Metadata, Pipe, address,
};
use proto::envoy::config::endpoint::v3::endpoint::AdditionalAddress;
use proto::envoy::config::endpoint::v3::{
    Endpoint as ApiEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use super::group::{Group, Member, Target};
use crate::generate::message::{self, metadata, structure, text};
use crate::snapshot::Endpoint;
use crate::snapshot::endpoint::Health;

/// How endpoints say who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// In their metadata, as Istio's proxies read it.
    Plain,
    /// The same with what our module reads beside it: the labels `app` and `version`.
    Full,
    /// In their host name, too: the filters of connections see nothing else of them.
    Hostname,
}

pub(super) fn localities(groups: &[Group<'_>], naming: Naming) -> Vec<LocalityLbEndpoints> {
    groups.iter().map(|group| locality(group, naming)).collect()
}

fn locality(group: &Group<'_>, naming: Naming) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(ApiLocality {
            region: group.locality.region.clone(),
            zone: group.locality.zone.clone(),
            sub_zone: group.locality.sub_zone.clone(),
        }),
        lb_endpoints: group.members.iter().map(|one| member(one, naming)).collect(),
        load_balancing_weight: group.weight,
        priority: group.priority,
        ..LocalityLbEndpoints::default()
    }
}

fn member(member: &Member<'_>, naming: Naming) -> LbEndpoint {
    let (mut workload, mut endpoint) = match member.target {
        Target::Direct(endpoint) => (endpoint.workload.clone(), direct(endpoint)),
        Target::Gateway(gateway) => {
            let address = message::address(&gateway.address.to_string(), gateway.port);
            let endpoint = ApiEndpoint { address: Some(address), ..ApiEndpoint::default() };
            (format!(";;;;{}", gateway.cluster), endpoint)
        }
    };
    if naming != Naming::Plain {
        for label in ["app", "version"] {
            workload.push(';');
            workload.push_str(member.label(label));
        }
    }
    if naming == Naming::Hostname {
        endpoint.hostname.clone_from(&workload);
    }
    let health = match member.health {
        Health::Unknown => HealthStatus::Unknown,
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy | Health::Terminating => HealthStatus::Unhealthy,
        Health::Draining => HealthStatus::Draining,
    };
    LbEndpoint {
        health_status: health.into(),
        metadata: Some(describe(&workload, member.accepts_mtls)),
        load_balancing_weight: Some(member.weight),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)),
    }
}

fn direct(endpoint: &Endpoint) -> ApiEndpoint {
    let further = endpoint.more_addresses.iter();
    ApiEndpoint {
        address: Some(if endpoint.port == 0 {
            let pipe = Pipe { path: (*endpoint.address).into(), ..Pipe::default() };
            Address { address: Some(address::Address::Pipe(pipe)) }
        } else {
            message::address(&endpoint.address, endpoint.port)
        }),
        additional_addresses: further
            .map(|address| AdditionalAddress { address: Some(message::address(address, endpoint.port)) })
            .collect(),
        ..ApiEndpoint::default()
    }
}

/// What telemetry says of the workload, and the mark by which Envoy chooses
/// mutual TLS for it.
fn describe(workload: &str, accepts_mtls: bool) -> Metadata {
    let workload = ("istio", structure([("workload", text(workload))]));
    if accepts_mtls {
        metadata([("envoy.transport_socket_match", structure([("tlsMode", text("istio"))])), workload])
    } else {
        metadata([workload])
    }
}
