//! Istio's labels: names, order and values as its proxies write them.
//! The rule is `istio_stats.cc` of Istio's proxy.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::peer::Workload;
use crate::settings::{Direction, Service};

/// What nobody knows.
pub const UNKNOWN: &str = "unknown";

/// Longest value, in bytes; the rest is cut off. Clients choose some of them.
const LONGEST: usize = 1024;

/// All standard tags.
pub const TAGS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "response_code",
    "grpc_response_status",
];

/// No service.
pub const NO_SERVICE: &Service = &Service { host: String::new(), name: String::new() };

/// Names and values, in order.
pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Who talked to whom, as far as one side knows.
#[derive(Clone, Copy, Debug)]
pub struct Parties<'a> {
    /// On which side this proxy stands.
    pub direction: Direction,
    /// This proxy's workload.
    pub own: &'a Workload,
    /// The other side's workload.
    pub peer: Option<&'a Workload>,
    /// Name in the other side's certificate; empty where there is none.
    pub peer_principal: &'a str,
    /// Name in this proxy's certificate; empty where there is none.
    pub own_principal: &'a str,
    /// The service that was asked for; empty where nobody knows.
    pub service: &'a Service,
}

impl<'a> Parties<'a> {
    /// The labels that tell source and destination.
    #[must_use]
    pub fn labels(&self) -> Labels<'a> {
        let none = Workload::NONE;
        let peer = self.peer.unwrap_or(none);
        let namespace = namespace(self.peer_principal).filter(|namespace| !namespace.is_empty());
        let namespace = known(namespace.unwrap_or(&peer.namespace));
        let revision = if peer.canonical_revision.is_empty() { "latest" } else { &peer.canonical_revision };
        let other = [
            known(&peer.name),
            known(&peer.canonical_name),
            revision,
            namespace,
            known(self.peer_principal),
            known(&peer.app),
            known(&peer.version),
            known(&peer.cluster),
        ];
        let own = [
            self.own.name.as_str(),
            &self.own.canonical_name,
            &self.own.canonical_revision,
            &self.own.namespace,
            known(self.own_principal),
            &self.own.app,
            &self.own.version,
            &self.own.cluster,
        ];
        let inbound = self.direction == Direction::Inbound;
        let (reporter, source, destination) =
            if inbound { ("destination", other, own) } else { ("source", own, other) };
        // The destination knows itself as the service; the source knows nothing.
        let fallback = if inbound { &self.own.canonical_name } else { UNKNOWN };
        let or = |text: &'a str| if text.is_empty() { fallback } else { text };
        let (host, name) = (or(&self.service.host), or(&self.service.name));
        let service_namespace = if inbound { &self.own.namespace } else { namespace };
        let [workload, service, revision, namespace, principal, app, version, cluster] = destination;
        let values = [
            ("reporter", reporter),
            ("source_workload", source[0]),
            ("source_canonical_service", source[1]),
            ("source_canonical_revision", source[2]),
            ("source_workload_namespace", source[3]),
            ("source_principal", source[4]),
            ("source_app", source[5]),
            ("source_version", source[6]),
            ("source_cluster", source[7]),
            ("destination_workload", workload),
            ("destination_workload_namespace", namespace),
            ("destination_principal", principal),
            ("destination_app", app),
            ("destination_version", version),
            ("destination_service", host),
            ("destination_canonical_service", service),
            ("destination_canonical_revision", revision),
            ("destination_service_name", name),
            ("destination_service_namespace", service_namespace),
            ("destination_cluster", cluster),
        ];
        values.map(|(name, value)| (name, Cow::Borrowed(value))).to_vec()
    }

    /// `connection_security_policy`. Only the destination can tell.
    #[must_use]
    pub const fn security(&self) -> &'static str {
        match self.direction {
            Direction::Inbound if self.peer_principal.is_empty() || self.own_principal.is_empty() => "none",
            Direction::Inbound => "mutual_tls",
            Direction::Outbound | Direction::Gateway => UNKNOWN,
        }
    }
}

const fn known(text: &str) -> &str {
    if text.is_empty() { UNKNOWN } else { text }
}

/// The namespace in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
#[must_use]
pub fn namespace(principal: &str) -> Option<&str> {
    let (_, rest) = principal.split_once("/ns/")?;
    rest.split('/').next()
}

/// The service that a request was for: from the route and cluster that Envoy chose,
/// else from what the client named.
#[must_use]
pub fn service(route: &str, cluster: &str, configured: Option<&Service>, client: &str) -> Service {
    if let Some(name) = special(route, cluster) {
        return Service { host: client.to_owned(), name: name.to_owned() };
    }
    let found = configured.cloned().or_else(|| of_cluster(cluster));
    let mut service = found.unwrap_or_else(|| Service { host: client.to_owned(), name: client.to_owned() });
    if service.name.is_empty() {
        service.name = short(&service.host).to_owned();
    }
    service
}

/// Whether [`service`] needs what the client named. Each request asks, so the cluster's
/// name is not taken apart for it.
#[must_use]
pub fn is_of_client(route: &str, cluster: &str, configured: Option<&Service>) -> bool {
    let has_host = cluster.starts_with("outbound") && !cluster.ends_with(['|', '_', '.']);
    configured.is_none() && !has_host || special(route, cluster).is_some()
}

/// The name that stands for no service, by the route and cluster that Envoy chose.
fn special(route: &str, cluster: &str) -> Option<&'static str> {
    const SPECIAL: [&str; 5] = [
        "BlackHoleCluster",
        "PassthroughCluster",
        "InboundPassthroughCluster",
        "InboundPassthroughClusterIpv4",
        "InboundPassthroughClusterIpv6",
    ];
    match route {
        "block_all" => Some("BlackHoleCluster"),
        "allow_any" => Some("PassthroughCluster"),
        _ => SPECIAL.into_iter().find(|special| *special == cluster),
    }
}

/// The service in `outbound|PORT|SUBSET|HOST` or `outbound_.PORT_._SUBSET_._HOST`.
fn of_cluster(cluster: &str) -> Option<Service> {
    host_of_cluster(cluster).map(|host| Service { host: host.to_owned(), name: short(host).to_owned() })
}

fn host_of_cluster(cluster: &str) -> Option<&str> {
    let host = match cluster.strip_prefix("outbound|") {
        Some(rest) => rest.splitn(3, '|').nth(2)?,
        None => cluster.strip_prefix("outbound_.")?.splitn(3, "_.").nth(2)?.trim_start_matches('_'),
    };
    Some(host).filter(|host| !host.is_empty())
}

/// A service of Kubernetes has a name of its own; of another the host is the name.
fn short(host: &str) -> &str {
    match host.split_once('.') {
        Some((name, rest)) if rest.split('.').nth(1) == Some("svc") => name,
        _ => host,
    }
}

/// As in Prometheus' text format, without the braces. Names are made valid, and where
/// one is there twice, the last counts: Prometheus refuses everything otherwise.
#[must_use]
pub fn text(labels: &Labels<'_>) -> String {
    let mut text = String::with_capacity(labels.len() * 48);
    for (at, (name, value)) in labels.iter().enumerate() {
        if labels.iter().skip(at + 1).any(|(later, _)| later == name) {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        push_name(&mut text, name);
        text.push_str("=\"");
        for character in value.get(..value.floor_char_boundary(LONGEST)).unwrap_or_default().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

/// The labels of what is too much: only the reporter keeps its value.
#[must_use]
pub fn overflow(labels: &Labels<'_>) -> String {
    let kept = |name: &str| name == "reporter";
    let unknown = labels.iter().map(|(name, value)| {
        (*name, if kept(name) { Cow::Borrowed(value.as_ref()) } else { Cow::Borrowed(UNKNOWN) })
    });
    text(&unknown.collect())
}

/// Letters, digits and underscores; whatever else becomes an underscore.
fn push_name(text: &mut String, name: &str) {
    if name.starts_with(|first: char| first.is_ascii_digit()) || name.is_empty() {
        text.push('_');
    }
    let valid = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let _ = write!(text, "{}", name.chars().map(valid).collect::<String>());
}

#[cfg(test)]
mod tests;
