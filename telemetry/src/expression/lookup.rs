//! Where the value at a path comes from.

use std::collections::HashMap;

use cel::Value;
use cel::objects::Key;

use super::paths::Path;
use crate::attributes::{Attribute, Attributes, Headers, Metadata};
use crate::node::Node;
use crate::peer::Workload;

/// What expressions may speak of.
pub struct Sources<'a, A> {
    /// The request or connection.
    pub attributes: &'a A,
    /// The other side.
    pub peer: Option<&'a Workload>,
    /// Whether the other side is the client.
    pub is_peer_downstream: bool,
    /// This proxy.
    pub node: &'a Node,
}

/// Attributes that are text, by their paths.
const TEXTS: &[(&str, &str, Attribute)] = {
    use Attribute::*;
    &[
        ("request", "path", RequestPath),
        ("request", "url_path", RequestUrlPath),
        ("request", "host", RequestHost),
        ("request", "scheme", RequestScheme),
        ("request", "method", RequestMethod),
        ("request", "referer", RequestReferer),
        ("request", "useragent", RequestUserAgent),
        ("request", "id", RequestId),
        ("request", "protocol", RequestProtocol),
        ("request", "query", RequestQuery),
        ("response", "code_details", ResponseCodeDetails),
        ("source", "address", SourceAddress),
        ("destination", "address", DestinationAddress),
        ("connection", "requested_server_name", ConnectionRequestedServerName),
        ("connection", "tls_version", ConnectionTlsVersion),
        ("connection", "subject_local_certificate", ConnectionSubjectLocalCertificate),
        ("connection", "subject_peer_certificate", ConnectionSubjectPeerCertificate),
        ("connection", "dns_san_local_certificate", ConnectionDnsSanLocalCertificate),
        ("connection", "dns_san_peer_certificate", ConnectionDnsSanPeerCertificate),
        ("connection", "uri_san_local_certificate", ConnectionUriSanLocalCertificate),
        ("connection", "uri_san_peer_certificate", ConnectionUriSanPeerCertificate),
        ("connection", "sha256_peer_certificate_digest", ConnectionSha256PeerCertificateDigest),
        ("connection", "transport_failure_reason", ConnectionTransportFailureReason),
        ("connection", "termination_details", ConnectionTerminationDetails),
        ("upstream", "address", UpstreamAddress),
        ("upstream", "tls_version", UpstreamTlsVersion),
        ("upstream", "subject_local_certificate", UpstreamSubjectLocalCertificate),
        ("upstream", "subject_peer_certificate", UpstreamSubjectPeerCertificate),
        ("upstream", "dns_san_local_certificate", UpstreamDnsSanLocalCertificate),
        ("upstream", "dns_san_peer_certificate", UpstreamDnsSanPeerCertificate),
        ("upstream", "uri_san_local_certificate", UpstreamUriSanLocalCertificate),
        ("upstream", "uri_san_peer_certificate", UpstreamUriSanPeerCertificate),
        ("upstream", "sha256_peer_certificate_digest", UpstreamSha256PeerCertificateDigest),
        ("upstream", "local_address", UpstreamLocalAddress),
        ("upstream", "transport_failure_reason", UpstreamTransportFailureReason),
        ("xds", "cluster_name", XdsClusterName),
        ("xds", "route_name", XdsRouteName),
        ("xds", "virtual_host_name", XdsVirtualHostName),
        ("xds", "filter_chain_name", XdsFilterChainName),
    ]
};

/// Attributes that are numbers.
const NUMBERS: &[(&str, &str, Attribute)] = {
    use Attribute::*;
    &[
        ("request", "size", RequestSize),
        ("request", "total_size", RequestTotalSize),
        ("response", "code", ResponseCode),
        ("response", "flags", ResponseFlags),
        ("response", "grpc_status", ResponseGrpcStatus),
        ("response", "size", ResponseSize),
        ("response", "total_size", ResponseTotalSize),
        ("source", "port", SourcePort),
        ("destination", "port", DestinationPort),
        ("connection", "id", ConnectionId),
        ("upstream", "port", UpstreamPort),
        ("upstream", "request_attempt_count", UpstreamRequestAttemptCount),
        ("xds", "listener_direction", XdsListenerDirection),
    ]
};

fn listed(table: &[(&str, &str, Attribute)], root: &str, field: &str) -> Option<Attribute> {
    table.iter().find(|(known, name, _)| *known == root && *name == field).map(|(.., id)| *id)
}

impl<A: Attributes> Sources<'_, A> {
    /// The value at a path.
    pub(super) fn find(&self, path: &Path) -> Option<Value> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["request", "headers", name] => self.header(Headers::Request, name),
            ["response", "headers", name] => self.header(Headers::Response, name),
            ["response", "trailers", name] => self.header(Headers::ResponseTrailers, name),
            ["connection", "mtls"] => {
                Some(Value::Bool(self.attributes.truth(Attribute::ConnectionMtls).unwrap_or_default()))
            }
            ["metadata", "filter_metadata", rest @ ..] => self.metadata(Metadata::Dynamic, rest),
            ["xds", "route_metadata", "filter_metadata", rest @ ..] => self.metadata(Metadata::Route, rest),
            ["xds", "cluster_metadata", "filter_metadata", rest @ ..] => {
                self.metadata(Metadata::Cluster, rest)
            }
            ["xds", "upstream_host_metadata", "filter_metadata", rest @ ..] => {
                self.metadata(Metadata::Host, rest)
            }
            ["node", rest @ ..] => self.node(rest),
            ["downstream_peer", rest @ ..] | ["filter_state", "downstream_peer", rest @ ..] => {
                self.peer.filter(|_| self.is_peer_downstream).and_then(|peer| workload(peer, rest))
            }
            ["upstream_peer", rest @ ..] | ["filter_state", "upstream_peer", rest @ ..] => {
                self.peer.filter(|_| !self.is_peer_downstream).and_then(|peer| workload(peer, rest))
            }
            ["filter_state", name] => {
                let state = self.attributes.filter_state(name)?;
                Some(String::from_utf8_lossy(state).as_ref().into())
            }
            [root, field] => match (listed(TEXTS, root, field), listed(NUMBERS, root, field)) {
                (Some(id), _) => self.attributes.text(id).map(Value::from),
                (_, Some(id)) => Some(Value::Int(i64::try_from(self.attributes.number(id)?).ok()?)),
                _ => None,
            },
            _ => None,
        }
    }

    fn header(&self, map: Headers, name: &str) -> Option<Value> {
        let value = self.attributes.header(map, &name.to_ascii_lowercase())?;
        Some(String::from_utf8_lossy(value).as_ref().into())
    }

    fn metadata(&self, source: Metadata, path: &[&str]) -> Option<Value> {
        let [namespace, key] = path else { return None };
        let text = self.attributes.metadata(source, namespace, key).map(Value::from);
        let number = || self.attributes.metadata_number(source, namespace, key).map(Value::Float);
        let truth = || self.attributes.metadata_truth(source, namespace, key).map(Value::Bool);
        text.or_else(number).or_else(truth)
    }

    fn node(&self, path: &[&str]) -> Option<Value> {
        let node = self.node;
        let text = match path {
            ["id"] => &node.id,
            ["metadata", "NAME"] => &node.name,
            ["metadata", "NAMESPACE"] => &node.namespace,
            ["metadata", "OWNER"] => &node.owner,
            ["metadata", "WORKLOAD_NAME"] => &node.workload_name,
            ["metadata", "CLUSTER_ID"] => &node.cluster_id,
            ["metadata", "MESH_ID"] => &node.mesh_id,
            ["metadata", "ISTIO_VERSION"] => &node.istio_version,
            ["metadata", "INSTANCE_IPS"] => &node.instance_ips,
            ["metadata", "SERVICE_ACCOUNT"] => &node.service_account,
            ["metadata", "LABELS", name] => node.labels.get(*name)?,
            ["metadata", "LABELS"] => return Some(map(&node.labels)),
            _ => return None,
        };
        (!text.is_empty()).then(|| text.as_str().into())
    }
}

fn map<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    let pairs =
        pairs.into_iter().map(|(name, value)| (Key::from(name.as_str()), Value::from(value.as_str())));
    Value::from(pairs.collect::<HashMap<_, _>>())
}

/// A field of the other side, under its name of today or of earlier versions.
fn workload(peer: &Workload, path: &[&str]) -> Option<Value> {
    let path = match path {
        [rest @ .., "value"] => rest,
        all => all,
    };
    let text = match path {
        ["workload" | "workload_name"] => &peer.name,
        ["namespace"] => &peer.namespace,
        ["cluster" | "cluster_id"] => &peer.cluster,
        ["name"] => &peer.instance,
        ["type"] => &peer.kind,
        ["service"] | ["labels", "service.istio.io/canonical-name"] => &peer.canonical_name,
        ["revision"] | ["labels", "service.istio.io/canonical-revision"] => &peer.canonical_revision,
        ["app"] | ["labels", "app"] => &peer.app,
        ["version"] | ["labels", "version"] => &peer.version,
        _ => return None,
    };
    (!text.is_empty()).then(|| text.as_str().into())
}
