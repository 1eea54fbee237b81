//! What spans say besides what Envoy lets them say.

use std::collections::BTreeMap;

use mesh::ProxyConfig;
use proto::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use proto::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use proto::istio::mesh::v1alpha1::tracing::custom_tag::Type as OfConfig;
use proto::istio::telemetry::v1alpha1::tracing::CustomTag as Wanted;
use proto::istio::telemetry::v1alpha1::tracing::custom_tag::Type as OfTelemetry;

use crate::scope::Scope;

/// Those of the workload, if wanted, with others, by name.
pub(super) fn all(scope: Scope<'_>, has_own: bool, others: Vec<CustomTag>) -> Vec<CustomTag> {
    let mut tags = if has_own { own(scope) } else { Vec::new() };
    tags.extend(others);
    tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    tags
}

/// Who the workload is, and what policies on trial would have decided.
fn own(scope: Scope<'_>) -> Vec<CustomTag> {
    let (proxy, labels) = (scope.proxy, scope.labels());
    let label = |key: &str, default: &'static str| {
        labels.get(key).filter(|value| !value.is_empty()).map_or(default, String::as_str)
    };
    let or =
        |text: &'static str, value: &str| if value.is_empty() { text.to_owned() } else { value.to_owned() };
    vec![
        dry_run("allow", "name", "effective_policy_id"),
        dry_run("allow", "result", "engine_result"),
        dry_run("deny", "name", "effective_policy_id"),
        dry_run("deny", "result", "engine_result"),
        literal("istio.canonical_revision", label(names::label::CANONICAL_REVISION, "latest")),
        literal("istio.canonical_service", label(names::label::CANONICAL_NAME, "unknown")),
        literal("istio.cluster_id", &or("unknown", &proxy.cluster_id)),
        literal("istio.mesh_id", &or("unknown", &proxy.mesh_id)),
        literal("istio.namespace", &or("default", &proxy.namespace)),
    ]
}

fn dry_run(action: &str, what: &str, key: &str) -> CustomTag {
    let segment = PathSegment {
        segment: Some(path_segment::Segment::Key(format!("istio_dry_run_{action}_shadow_{key}"))),
    };
    CustomTag {
        tag: format!("istio.authorization.dry_run.{action}_policy.{what}"),
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(Default::default())) }),
            metadata_key: Some(MetadataKey { key: "envoy.filters.http.rbac".into(), path: vec![segment] }),
            default_value: String::new(),
        })),
    }
}

fn tag(name: &str, of: custom_tag::Type) -> CustomTag {
    CustomTag { tag: name.into(), r#type: Some(of) }
}

fn literal(name: &str, value: &str) -> CustomTag {
    tag(name, custom_tag::Type::Literal(custom_tag::Literal { value: value.into() }))
}

fn environment(name: &str, variable: &str, default: &str) -> CustomTag {
    let variable = custom_tag::Environment { name: variable.into(), default_value: default.into() };
    tag(name, custom_tag::Type::Environment(variable))
}

fn header(name: &str, header: &str, default: &str) -> CustomTag {
    let header = custom_tag::Header { name: header.into(), default_value: default.into() };
    tag(name, custom_tag::Type::RequestHeader(header))
}

/// Those of Telemetry. Tags that Envoy would refuse, for which it refuses the
/// listener, are left out.
pub(super) fn custom(tags: &BTreeMap<String, Wanted>, has_formatters: bool) -> Vec<CustomTag> {
    let made = tags.iter().filter(|(name, _)| !name.is_empty()).filter_map(|(name, wanted)| {
        match wanted.r#type.as_ref()? {
            OfTelemetry::Literal(one) => (!one.value.is_empty()).then(|| literal(name, &one.value)),
            OfTelemetry::Environment(one) => {
                (!one.name.is_empty()).then(|| environment(name, &one.name, &one.default_value))
            }
            OfTelemetry::Header(one) => {
                (!one.name.is_empty()).then(|| header(name, &one.name, &one.default_value))
            }
            OfTelemetry::Formatter(one) => {
                let formatted = || tag(name, custom_tag::Type::Value(one.value.clone()));
                (has_formatters && !one.value.is_empty()).then(formatted)
            }
        }
    });
    made.collect()
}

/// Those of the proxy's settings.
pub(super) fn of_config(config: Option<&ProxyConfig>) -> Vec<CustomTag> {
    let tags = config.and_then(|config| config.tracing.as_ref()).map(|tracing| &tracing.custom_tags);
    let tags = tags.into_iter().flatten().filter(|(name, _)| !name.is_empty());
    tags.filter_map(|(name, wanted)| match wanted.r#type.as_ref()? {
        OfConfig::Literal(one) => (!one.value.is_empty()).then(|| literal(name, &one.value)),
        OfConfig::Environment(one) => {
            (!one.name.is_empty()).then(|| environment(name, &one.name, &one.default_value))
        }
        OfConfig::Header(one) => (!one.name.is_empty()).then(|| header(name, &one.name, &one.default_value)),
    })
    .collect()
}
