//! A cluster: which endpoints get requests, and how connections to them are made.

use std::net::SocketAddr;

use proto::envoy::config::cluster::v3::Cluster;
use proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use proto::envoy::config::core::v3::{HealthStatus, Metadata, TransportSocket, transport_socket};
use proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
};
use proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config,
};

use super::matching::show;
use super::message::{kind, unpack};
use super::proxy::{Host, Proxy, socket};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Metadata of an endpoint that chooses how it is spoken to.
const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Share of healthy endpoints, in hundreds, below which Envoy uses all.
const PANIC: f64 = 50.0;
/// So many times what is needed for all requests counts as healthy.
const OVERPROVISIONING: f64 = 1.4;

/// How a cluster finds its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// By lists of istiod, of the cluster itself, or of DNS.
    Listed(&'static str),
    /// Wherever the client wanted to go.
    Original,
    /// A kind of its own, by name.
    Other(String),
}

/// How a cluster finds its endpoints.
pub(super) fn discovery(cluster: &Cluster) -> Discovery {
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let name = custom.typed_config.as_ref().map(kind).unwrap_or_default();
            match name.rsplit('.').nth(2) {
                Some("dns") => Discovery::Listed("DNS"),
                _ => Discovery::Other(custom.name.clone()),
            }
        }
        Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(*kind) {
            Ok(DiscoveryType::Eds) => Discovery::Listed("EDS"),
            Ok(DiscoveryType::StrictDns) => Discovery::Listed("STRICT_DNS"),
            Ok(DiscoveryType::LogicalDns) => Discovery::Listed("LOGICAL_DNS"),
            Ok(DiscoveryType::OriginalDst) => Discovery::Original,
            _ => Discovery::Listed("STATIC"),
        },
        None => Discovery::Listed("STATIC"),
    }
}

/// An endpoint that gets requests.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) address: Option<SocketAddr>,
    /// As it is written: an address, a name or a socket.
    pub(super) shown: String,
    /// Of the cluster's requests.
    pub(super) share: f64,
    pub(super) metadata: Option<Metadata>,
    pub(super) note: String,
}

/// The endpoints of a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints {
    pub(super) used: Vec<Endpoint>,
    /// Those that get nothing, each with the reason.
    pub(super) idle: Vec<String>,
    /// Whether all are used since most are not healthy.
    pub(super) panics: bool,
}

/// Who gets the requests of a cluster.
pub(super) fn endpoints(proxy: &Proxy, cluster: &Cluster) -> Result<Endpoints, String> {
    let name = service_name(cluster);
    let assignment = match (&cluster.load_assignment, proxy.assignments.get(name)) {
        (Some(own), _) if !own.endpoints.is_empty() => Some(own),
        (_, Some(known)) => Some(known.get()?),
        (own, None) => own.as_ref(),
    };
    let hosts = match proxy.hosts.as_ref().and_then(|all| all.get(&cluster.name)) {
        Some(hosts) => hosts.clone(),
        None => assignment.map(listed).unwrap_or_default(),
    };
    Ok(shares(cluster, assignment, &hosts))
}

fn service_name(cluster: &Cluster) -> &str {
    let service = cluster.eds_cluster_config.as_ref().map_or("", |eds| eds.service_name.as_str());
    if service.is_empty() { &cluster.name } else { service }
}

/// The endpoints of an assignment, as istiod judges them.
fn listed(assignment: &ClusterLoadAssignment) -> Vec<Host> {
    let mut hosts = Vec::new();
    for group in &assignment.endpoints {
        let place = group
            .locality
            .as_ref()
            .map(|own| [&own.region, &own.zone, &own.sub_zone].map(String::as_str).join("/"));
        let place = place.map(|place| place.trim_end_matches('/').to_owned()).unwrap_or_default();
        for endpoint in &group.lb_endpoints {
            let Some(HostIdentifier::Endpoint(own)) = &endpoint.host_identifier else { continue };
            let (address, port) = socket(own.address.as_ref()).map_or_else(
                || (super::internal_name(own.address.as_ref()), 0),
                |(address, port)| (address.to_owned(), port),
            );
            let trouble = match endpoint.health_status() {
                HealthStatus::Unhealthy | HealthStatus::Timeout => Some("istiod says that it is not healthy"),
                HealthStatus::Draining => Some("it is draining"),
                _ => None,
            };
            hosts.push(Host {
                address,
                port,
                trouble: trouble.map(str::to_owned).into_iter().collect(),
                note: String::new(),
                priority: group.priority,
                weight: endpoint.load_balancing_weight.unwrap_or(1)
                    * group.load_balancing_weight.unwrap_or(1).min(1),
                locality: place.clone(),
                hostname: own.hostname.clone(),
            });
        }
    }
    hosts
}

fn metadata(assignment: Option<&ClusterLoadAssignment>, host: &Host) -> Option<Metadata> {
    let mut all = assignment?.endpoints.iter().flat_map(|group| &group.lb_endpoints);
    let found = all.find(|endpoint| match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(own)) => {
            socket(own.address.as_ref()) == Some((&host.address, host.port))
                || (socket(own.address.as_ref()).is_none()
                    && super::internal_name(own.address.as_ref()) == host.address)
                || socket(own.address.as_ref()).is_some_and(|(name, port)| {
                    port == host.port
                        && name.parse::<std::net::IpAddr>().is_err()
                        && (host.hostname == name || host.hostname.is_empty())
                })
        }
        _ => false,
    });
    found?.metadata.clone()
}

/// The shares of the endpoints: priorities take what is over from those before,
/// and within one the weights decide. Localities are not told apart.
fn shares(cluster: &Cluster, assignment: Option<&ClusterLoadAssignment>, hosts: &[Host]) -> Endpoints {
    let threshold = cluster.common_lb_config.as_ref().and_then(|config| config.healthy_panic_threshold);
    let threshold = threshold.map_or(PANIC, |percent| percent.value);
    let factor =
        assignment.and_then(|own| own.policy.as_ref()).and_then(|policy| policy.overprovisioning_factor);
    let factor = factor.map_or(OVERPROVISIONING, |factor| f64::from(factor) / 100.0);
    let mut priorities: Vec<u32> = hosts.iter().map(|host| host.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let of = |priority: u32| hosts.iter().filter(move |host| host.priority == priority);
    let weight =
        |hosts: &mut dyn Iterator<Item = &Host>| hosts.map(|host| f64::from(host.weight)).sum::<f64>();
    let count = |hosts: &mut dyn Iterator<Item = &Host>| hosts.map(|_| 1.0).sum::<f64>();
    let is_well = |host: &&Host| host.trouble.is_empty();
    let health: Vec<f64> = priorities
        .iter()
        .map(|&priority| count(&mut of(priority).filter(is_well)) / count(&mut of(priority)))
        .collect();
    let total: f64 = health.iter().map(|own| (own * factor).min(1.0)).sum::<f64>().min(1.0);
    let mut endpoints = Endpoints::default();
    let mut left = 1.0;
    for (&priority, own) in priorities.iter().zip(&health) {
        // All are in panic: the first takes everything.
        let load = if total > 0.0 {
            ((own * factor).min(1.0) / total).min(left)
        } else if left > 0.0 {
            left
        } else {
            0.0
        };
        left -= load;
        let panics = own * 100.0 < threshold && total < 1.0;
        endpoints.panics |= panics && load > 0.0;
        let gets = |host: &&Host| panics || host.trouble.is_empty();
        let sum = weight(&mut of(priority).filter(gets));
        for host in of(priority) {
            let shown = match host.port {
                0 => host.address.clone(),
                port => host.address.parse().map_or_else(
                    |_| format!("{}:{port}", host.address),
                    |ip| SocketAddr::new(ip, port).to_string(),
                ),
            };
            let mut notes = Vec::new();
            if priorities.len() > 1 {
                notes.push(format!("priority {priority}"));
            }
            if !host.locality.is_empty() {
                notes.push(host.locality.clone());
            }
            if !host.note.is_empty() {
                notes.push(host.note.clone());
            }
            if !gets(&host) || load <= 1e-9 {
                let why = if host.trouble.is_empty() {
                    format!("priority {priority} gets nothing while those before it are healthy")
                } else {
                    host.trouble.join(", ")
                };
                endpoints.idle.push(format!("{shown}: {why}"));
                continue;
            }
            notes.extend(host.trouble.iter().cloned());
            endpoints.used.push(Endpoint {
                address: host.address.parse().ok().map(|ip| SocketAddr::new(ip, host.port)),
                shown,
                share: if sum > 0.0 { load * f64::from(host.weight) / sum } else { load },
                metadata: metadata(assignment, host),
                note: notes.join(", "),
            });
        }
    }
    endpoints
}

/// TLS of the connections to an endpoint.
#[derive(Clone, Debug)]
pub(super) enum Socket {
    Plain,
    Tls(Box<UpstreamTlsContext>),
    /// Of a kind that this program does not know.
    Other(String),
}

/// How an endpoint is spoken to.
pub(super) fn transport(cluster: &Cluster, metadata: Option<&Metadata>) -> Socket {
    if cluster.transport_socket_matcher.is_some() {
        return Socket::Other("a tree of matchers".into());
    }
    let said = metadata.and_then(|metadata| metadata.filter_metadata.get(SOCKET_MATCH));
    let chosen = cluster.transport_socket_matches.iter().find(|one| {
        let wanted = one.r#match.iter().flat_map(|wanted| &wanted.fields);
        wanted.into_iter().all(|(name, value)| said.and_then(|said| said.fields.get(name)) == Some(value))
    });
    let socket = chosen.map_or(cluster.transport_socket.as_ref(), |one| one.transport_socket.as_ref());
    socket.map_or(Socket::Plain, of_socket)
}

fn of_socket(socket: &TransportSocket) -> Socket {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return if socket.name.ends_with("raw_buffer") {
            Socket::Plain
        } else {
            Socket::Other(socket.name.clone())
        };
    };
    if let Some(tls) = unpack::<UpstreamTlsContext>(any) {
        return Socket::Tls(Box::new(tls));
    }
    if let Some(wrapped) = unpack::<ProxyProtocolUpstreamTransport>(any) {
        return wrapped.transport_socket.as_ref().map_or(Socket::Plain, of_socket);
    }
    match kind(any).rsplit('.').next() {
        Some("RawBuffer") => Socket::Plain,
        _ => Socket::Other(kind(any)),
    }
}

/// What a peer's certificate must be.
pub(super) fn validation(context: &CommonTlsContext) -> Option<&CertificateValidationContext> {
    match context.validation_context_type.as_ref()? {
        ValidationContextType::ValidationContext(own) => Some(own),
        ValidationContextType::CombinedValidationContext(both) => both.default_validation_context.as_ref(),
        _ => None,
    }
}

/// The names of which a certificate must have one, in words.
pub(super) fn wanted_names(validation: &CertificateValidationContext) -> Vec<String> {
    let typed = validation.match_typed_subject_alt_names.iter().filter_map(|own| own.matcher.as_ref());
    typed.chain(&validation.match_subject_alt_names).map(show).collect()
}

/// Whether a TLS context proves who the client is with the workload's certificate.
pub(super) fn proves_workload(context: &CommonTlsContext) -> bool {
    context.tls_certificate_sds_secret_configs.iter().any(|secret| secret.name == "default")
}

/// Whether connections to the cluster speak HTTP/2.
pub(super) fn is_http2(cluster: &Cluster, downstream_is_http2: bool) -> bool {
    let Some(options) =
        cluster.typed_extension_protocol_options.get(OPTIONS).and_then(unpack::<HttpProtocolOptions>)
    else {
        return cluster.http2_protocol_options.is_some();
    };
    match options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => matches!(
            explicit.protocol_config,
            Some(explicit_http_config::ProtocolConfig::Http2ProtocolOptions(_))
        ),
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => downstream_is_http2,
        _ => false,
    }
}

/// Limits of a cluster that are not so high that they mean nothing, in words.
pub(super) fn limits(cluster: &Cluster) -> Vec<String> {
    let mut limits = Vec::new();
    let thresholds = cluster.circuit_breakers.iter().flat_map(|breakers| &breakers.thresholds);
    if let Some(first) = thresholds.into_iter().next() {
        for (value, what) in [
            (first.max_connections, "connections"),
            (first.max_pending_requests, "pending requests"),
            (first.max_requests, "requests"),
            (first.max_retries, "retries"),
        ] {
            if let Some(value) = value.filter(|value| *value < 1 << 31) {
                limits.push(format!("at most {value} {what}"));
            }
        }
    }
    if let Some(outlier) = &cluster.outlier_detection {
        let errors = outlier.consecutive_5xx.or(outlier.consecutive_gateway_failure);
        limits.push(errors.map_or_else(
            || "ejects outliers".to_owned(),
            |errors| format!("ejects endpoints after {errors} errors"),
        ));
    }
    limits
}

#[cfg(test)]
mod tests;
