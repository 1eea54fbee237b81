//! Spans: what they say of the proxy and who collects them (Telemetry and MeshConfig).

use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use proto::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use proto::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use proto::envoy::r#type::v3::Percent;

use super::Place;
use crate::scope::Scope;

/// Tracing of requests; `None` when it is off.
pub(in crate::generate) fn of(scope: Scope<'_>, _: Place<'_>) -> Option<Tracing> {
    scope.snapshot.mesh.enable_tracing.then(|| tracing(scope))
}

/// What spans say of the proxy, whether or not there is a collector yet.
fn tracing(scope: Scope<'_>) -> Tracing {
    let percent = |value| Some(Percent { value });
    let dry_run = |action: &str, what: &str, key: &str| {
        let segment = PathSegment {
            segment: Some(path_segment::Segment::Key(format!("istio_dry_run_{action}_shadow_{key}"))),
        };
        CustomTag {
            tag: format!("istio.authorization.dry_run.{action}_policy.{what}"),
            r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
                kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(Default::default())) }),
                metadata_key: Some(MetadataKey {
                    key: "envoy.filters.http.rbac".into(),
                    path: vec![segment],
                }),
                default_value: String::new(),
            })),
        }
    };
    let literal = |tag: &str, value: &str| CustomTag {
        tag: tag.into(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.into() })),
    };
    let proxy = scope.proxy;
    let own =
        |key: &str, default: &'static str| proxy.labels.get(key).map_or(default, String::as_str).to_owned();
    Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(1.0),
        overall_sampling: percent(100.0),
        custom_tags: vec![
            dry_run("allow", "name", "effective_policy_id"),
            dry_run("allow", "result", "engine_result"),
            dry_run("deny", "name", "effective_policy_id"),
            dry_run("deny", "result", "engine_result"),
            literal("istio.canonical_revision", &own(names::label::CANONICAL_REVISION, "latest")),
            literal("istio.canonical_service", &own(names::label::CANONICAL_NAME, "unknown")),
            literal(
                "istio.cluster_id",
                if proxy.cluster_id.is_empty() { "unknown" } else { &proxy.cluster_id },
            ),
            literal("istio.mesh_id", if proxy.mesh_id.is_empty() { "unknown" } else { &proxy.mesh_id }),
            literal("istio.namespace", &proxy.namespace),
        ],
        ..Tracing::default()
    }
}
