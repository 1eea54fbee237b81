//! Names of HTTP/1 headers as the other side wrote them.

use proto::Any;
use proto::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use proto::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use proto::envoy::config::core::v3::{Http1ProtocolOptions, TypedExtensionConfig};
use proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;

use crate::scope::Scope;

/// Whether header names keep their case: the proxy's own ProxyConfig says so,
/// else the mesh's.
fn is_kept(scope: Scope<'_>) -> bool {
    let config = scope.proxy.config.as_deref().or(scope.snapshot.mesh.default_config.as_ref());
    let headers = config.and_then(|config| config.proxy_headers.as_ref());
    headers.and_then(|headers| headers.preserve_http1_header_case.as_ref()).is_some_and(|keep| keep.value)
}

/// The options of HTTP/1 connections to servers.
pub(super) fn options(scope: Scope<'_>) -> Http1ProtocolOptions {
    if !is_kept(scope) {
        return Http1ProtocolOptions::default();
    }
    let formatter = TypedExtensionConfig {
        name: "preserve_case".into(),
        typed_config: Some(Any::pack(&PreserveCaseFormatterConfig::default())),
    };
    Http1ProtocolOptions {
        header_key_format: Some(HeaderKeyFormat {
            header_format: Some(HeaderFormat::StatefulFormatter(formatter)),
        }),
        ..Http1ProtocolOptions::default()
    }
}
