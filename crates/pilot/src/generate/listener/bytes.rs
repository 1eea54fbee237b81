//! Filter chains for services whose connections are forwarded as they are:
//! by the `tls` and `tcp` routes of VirtualServices, else to the service.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::envoy::config::core::v3::Metadata;
use proto::istio::networking::v1alpha3::{L4MatchAttributes, TlsMatchAttributes};

use super::draft::Draft;
use super::forward;
use crate::generate::filter::{Direction, Place};
use crate::generate::message::{api_path, metadata, structure};
use crate::scope::{Egress, Scope};
use crate::snapshot::virtual_service::{Entry, MESH_GATEWAY};
use crate::snapshot::{Port, Service};

/// Where chains are for.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) egress: &'a Egress,
    pub(super) service: &'a Arc<Service>,
    /// Port of the listener.
    pub(super) port: &'a Port,
    /// Ranges of addresses that the service is reached by, when the listener takes any.
    pub(super) ranges: &'a [String],
    /// Whether only the server name of TLS tells the service.
    pub(super) needs_name: bool,
}

/// All chains of a service's port.
pub(super) fn chains(site: Site<'_>) -> Vec<Draft> {
    if site.port.protocol.is_tls() { by_name(site) } else { by_address(site) }
}

/// Chains of TLS that is passed on, told apart by server names.
fn by_name(site: Site<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let number = site.port.number;
    for entry in site.egress.matching(&site.service.host) {
        for route in &entry.spec.tls {
            let Some(filters) = forward::to(site.scope, place(site), entry, &route.route) else { continue };
            for rule in route.r#match.iter().filter(|rule| holds(site, &Static::of_tls(rule))) {
                // A Unix socket has no destination addresses.
                let own = &rule.destination_subnets;
                let ranges = if own.is_empty() || number == 0 { site.ranges } else { own };
                drafts.push(Draft {
                    names: rule.sni_hosts.iter().map(|name| name.to_ascii_lowercase()).collect(),
                    ranges: ranges.to_vec(),
                    metadata: origin(entry),
                    filters: filters.clone(),
                    ..Draft::default()
                });
            }
        }
    }
    if drafts.is_empty() {
        let names = if site.needs_name { names(site.scope, site.service) } else { Vec::new() };
        drafts.push(Draft { names, ..to_service(site) });
    }
    drafts
}

/// Chains of bytes, told apart by destination addresses at most.
fn by_address(site: Site<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let number = site.port.number;
    for entry in site.egress.matching(&site.service.host) {
        for route in &entry.spec.tcp {
            let Some(filters) = forward::to(site.scope, place(site), entry, &route.route) else { continue };
            let rules: Vec<&L4MatchAttributes> =
                route.r#match.iter().filter(|rule| holds(site, &Static::of_tcp(rule))).collect();
            let is_general = |rule: &&L4MatchAttributes| rule.destination_subnets.is_empty() || number == 0;
            if route.r#match.is_empty() || rules.iter().any(is_general) {
                let general = Draft {
                    ranges: site.ranges.to_vec(),
                    metadata: origin(entry),
                    filters,
                    ..Draft::default()
                };
                drafts.push(general);
                // What follows would never be reached.
                return drafts;
            }
            let ranges: Vec<String> =
                rules.iter().flat_map(|rule| rule.destination_subnets.iter().cloned()).collect();
            if !ranges.is_empty() {
                drafts.push(Draft { ranges, filters, ..Draft::default() });
            }
        }
    }
    drafts.push(to_service(site));
    drafts
}

/// The chain to a service that no VirtualService speaks of.
fn to_service(site: Site<'_>) -> Draft {
    let Site { scope, service, port, .. } = site;
    // A listener with a port of its own may stand for the only one of a service.
    let number = match service.ports.as_slice() {
        [only] => only.number,
        _ => port.number,
    };
    let filters = forward::through(scope, place(site), service, number);
    Draft { ranges: site.ranges.to_vec(), filters, ..Draft::default() }
}

fn place(site: Site<'_>) -> Place<'_> {
    Place::new(Direction::Outbound, site.port.protocol, site.port.number, Some(site.service))
}

/// Path of the VirtualService, which telemetry and tools read.
fn origin(entry: &Entry) -> Option<Metadata> {
    let path = api_path("networking.istio.io", "virtual-service", &entry.namespace, &entry.name);
    Some(metadata([("istio", structure([("config", path)]))]))
}

/// The parts of a rule that are known here and now.
struct Static<'a> {
    gateways: &'a [String],
    labels: &'a BTreeMap<String, String>,
    port: u32,
    namespace: &'a str,
}

impl<'a> Static<'a> {
    fn of_tls(rule: &'a TlsMatchAttributes) -> Self {
        Self {
            gateways: &rule.gateways,
            labels: &rule.source_labels,
            port: rule.port,
            namespace: &rule.source_namespace,
        }
    }

    fn of_tcp(rule: &'a L4MatchAttributes) -> Self {
        Self {
            gateways: &rule.gateways,
            labels: &rule.source_labels,
            port: rule.port,
            namespace: &rule.source_namespace,
        }
    }
}

fn holds(site: Site<'_>, rule: &Static<'_>) -> bool {
    let Static { gateways, labels, port, namespace } = rule;
    (gateways.is_empty() || gateways.iter().any(|name| name == MESH_GATEWAY))
        && config::matches(labels, site.scope.labels())
        && (*port == 0 || *port == u32::from(site.port.number))
        && (namespace.is_empty() || *namespace == site.scope.proxy.namespace)
}

/// Whether only the server name tells a service from others of its listener;
/// `address` is the service's own, if it has one.
pub(super) fn needs_name(service: &Service, address: Option<&str>, takes_any: bool) -> bool {
    service.is_dynamic() || address.map_or(takes_any, |address| address.contains('/'))
}

/// Server names of a service: its own, and those that stand for it in every
/// form that its clients may use.
fn names(scope: Scope<'_>, service: &Service) -> Vec<String> {
    let mut names = vec![service.host.to_string()];
    for alias in &service.aliases {
        names.push(alias.to_string());
        let suffix = format!(".svc.{}", scope.snapshot.domain);
        let Some(short) = alias.as_str().strip_suffix(&suffix) else { continue };
        names.push(format!("{short}.svc"));
        names.push(short.to_owned());
        if let Some((name, namespace)) = short.split_once('.')
            && namespace == scope.proxy.namespace
        {
            names.push(name.to_owned());
        }
    }
    names
}
