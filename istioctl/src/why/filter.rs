//! Filters of connections and of requests: which of them matter, and what the
//! policies among them decide.

use std::collections::BTreeMap;

use proto::Any;
use proto::envoy::config::core::v3::GrpcService;
use proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use proto::envoy::config::rbac::v3::{Rbac, rbac};
use proto::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz as HttpExtAuthz;
use proto::envoy::extensions::filters::http::ext_authz::v3::ext_authz::Services;
use proto::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use serde_json::{Value, json};

use super::explanation::{Refusal, Trail};
use super::matching;
use super::message::unpack;
use super::rbac::{Facts, decide, parts, short};
use super::tri::Tri;

/// What a filter may do to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It lets everything pass.
    Harmless,
    /// The name that the client asks for (SNI) becomes the cluster.
    Names,
    /// It asks a server, which may say no.
    Asks,
    /// It handles the connection itself.
    Ends,
    /// It may do anything.
    Unknown,
}

/// A network filter by its type.
pub(super) fn network(kind: &str, name: &str) -> Known {
    let is = |part: &str| kind.contains(part);
    if is(".sni_cluster.") {
        Known::Names
    } else if is(".network.ext_authz.") {
        Known::Asks
    } else if is(".redis_proxy.") || is(".thrift_proxy.") || is(".sni_dynamic_forward_proxy.") {
        Known::Ends
    } else if [
        ".mongo_proxy.",
        ".mysql_proxy.",
        ".postgres_proxy.",
        ".zookeeper_proxy.",
        ".set_filter_state.",
        "metadata_exchange",
        "MetadataExchange",
        "stats.PluginConfig",
        "peer_metadata",
        ".connection_limit.",
    ]
    .iter()
    .any(|part| is(part))
        || name == "istio.stats"
    {
        Known::Harmless
    } else {
        Known::Unknown
    }
}

/// A filter of requests, other than those that are looked into, by its type.
pub(super) fn http(kind: &str, name: &str) -> Known {
    let is = |part: &str| kind.contains(part);
    if is(".ext_authz.") {
        Known::Asks
    } else if [
        ".grpc_stats.",
        ".grpc_web.",
        ".stateful_session.",
        ".dynamic_forward_proxy.",
        ".compressor.",
        ".decompressor.",
        "stats.PluginConfig",
        "peer_metadata",
        ".http.alpn.",
        ".buffer.",
        ".on_demand.",
        ".grpc_http1_bridge.",
    ]
    .iter()
    .any(|part| is(part))
        || matches!(name, "istio.stats" | "istio.alpn" | "istio.metadata_exchange")
    {
        Known::Harmless
    } else {
        Known::Unknown
    }
}

/// Policies of one filter.
pub(super) struct Rules<'a> {
    pub(super) rules: Option<&'a Rbac>,
    pub(super) shadow: Option<&'a Rbac>,
    /// First part of the keys under which shadow rules leave what they found.
    pub(super) prefix: &'a str,
}

/// What shadow rules found, as metadata of the filter.
pub(super) type Marks = serde_json::Map<String, Value>;

/// Lets policies decide.
pub(super) fn policies(
    rules: &Rules<'_>,
    facts: Facts<'_>,
    proxy: &str,
    trail: &mut Trail,
) -> Result<Marks, Box<Refusal>> {
    let mut marks = Marks::new();
    if let Some(shadow) = rules.shadow {
        let decision = decide(shadow, facts);
        let prefix = rules.prefix;
        let result = if decision.passes == Tri::No { "denied" } else { "allowed" };
        marks.insert(format!("{prefix}shadow_engine_result"), result.into());
        if let Some(policy) = decision.policy {
            marks.insert(format!("{prefix}shadow_effective_policy_id"), policy.into());
        }
        // Marks for a server that is asked are told with that server.
        if prefix.starts_with("istio_dry_run") {
            let text = format!("dry run of {}: would be {result}", action(shadow));
            trail.pass(proxy, "policy", text).details = decision.details;
        }
    }
    let Some(own) = rules.rules else { return Ok(marks) };
    let decision = decide(own, facts);
    let action = action(own);
    match decision.passes {
        Tri::Yes => {
            let by = match (own.action(), &decision.policy) {
                (rbac::Action::Allow, Some(policy)) => format!("{action}: allowed by {}", short(policy)),
                (rbac::Action::Log, Some(policy)) => format!("{action}: noted by {}", short(policy)),
                _ => format!("{action}: no policy matches"),
            };
            let step = trail.pass(proxy, "policy", by);
            step.object = object(decision.policy.as_deref());
            step.details = decision.details;
            Ok(marks)
        }
        Tri::Unknown => {
            let step = trail.unsure(proxy, "policy", format!("{action}: depends on what is not known here"));
            step.object = object(decision.policy.as_deref());
            step.details = decision.details;
            Ok(marks)
        }
        Tri::No => {
            let object = object(decision.policy.as_deref()).or_else(|| only_policy(own));
            let (text, change) = if own.action() == rbac::Action::Allow {
                let names = names(own);
                (
                    format!("{action}: no policy allows it"),
                    format!(
                        "add a rule that fits the request to {names}, or another AuthorizationPolicy with action ALLOW"
                    ),
                )
            } else {
                let policy = decision.policy.as_deref().map(short).unwrap_or_default();
                (
                    format!("{action}: denied by {policy}"),
                    format!("change {policy} so that it does not match the request"),
                )
            };
            Err(Box::new(Refusal { text, object, change, details: decision.details, ..Refusal::default() }))
        }
    }
}

fn action(rules: &Rbac) -> &'static str {
    match rules.action() {
        rbac::Action::Allow => "ALLOW",
        rbac::Action::Deny => "DENY",
        rbac::Action::Log => "AUDIT",
    }
}

fn object(policy: Option<&str>) -> Option<String> {
    let (namespace, name, _) = parts(policy?)?;
    Some(format!("AuthorizationPolicy {name}.{namespace}"))
}

/// The policies of a filter.
fn all(rules: &Rbac) -> Vec<String> {
    let mut all: Vec<String> = rules.policies.keys().filter_map(|policy| object(Some(policy))).collect();
    all.dedup();
    all
}

fn only_policy(rules: &Rbac) -> Option<String> {
    let mut all = all(rules);
    if all.len() == 1 { all.pop() } else { None }
}

fn names(rules: &Rbac) -> String {
    let all = all(rules);
    if all.is_empty() { "an AuthorizationPolicy".into() } else { all.join(" or ") }
}

/// Whether a server is asked about a connection.
pub(super) fn is_asked_network(any: &Any, metadata: &BTreeMap<String, Value>) -> Tri {
    let config = unpack::<NetworkExtAuthz>(any).unwrap_or_default();
    is_marked(config.filter_enabled_metadata.as_ref(), metadata)
}

/// Whether a server is asked about a request.
pub(super) fn is_asked_http(any: &Any, metadata: &BTreeMap<String, Value>) -> Tri {
    let config = unpack::<HttpExtAuthz>(any).unwrap_or_default();
    is_marked(config.filter_enabled_metadata.as_ref(), metadata)
}

fn is_marked(
    matcher: Option<&proto::envoy::r#type::matcher::v3::MetadataMatcher>,
    metadata: &BTreeMap<String, Value>,
) -> Tri {
    matcher.map_or(Tri::Yes, |matcher| matching::metadata(matcher, metadata.get(&matcher.filter)))
}

/// Which server is asked about a connection.
pub(super) fn asks_network(any: &Any) -> String {
    let config = unpack::<NetworkExtAuthz>(any).unwrap_or_default();
    config.grpc_service.as_ref().map_or_else(|| "a server".into(), grpc)
}

/// Which server is asked about a request.
pub(super) fn asks_http(any: &Any) -> String {
    match unpack::<HttpExtAuthz>(any).and_then(|config| config.services) {
        Some(Services::GrpcService(service)) => grpc(&service),
        Some(Services::HttpService(service)) => {
            match service.server_uri.and_then(|uri| uri.http_upstream_type) {
                Some(HttpUpstreamType::Cluster(name)) => name,
                None => "a server".into(),
            }
        }
        None => "a server".into(),
    }
}

fn grpc(service: &GrpcService) -> String {
    match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(own)) => own.cluster_name.clone(),
        Some(TargetSpecifier::GoogleGrpc(own)) => own.target_uri.clone(),
        None => "a server".into(),
    }
}

/// Adds what a filter found to what is known of a request.
pub(super) fn mark(metadata: &mut BTreeMap<String, Value>, filter: &str, marks: Marks) {
    let own = metadata.entry(filter.to_owned()).or_insert_with(|| json!({}));
    if let Some(own) = own.as_object_mut() {
        own.extend(marks);
    }
}
