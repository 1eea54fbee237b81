//! `/debug/config_dump?proxyID=POD.NAMESPACE`: what a proxy should have, in the
//! form in which Envoy's own page shows what it has.

use std::sync::Arc;

use names::TypeUrl;
use pilot::cache::Client;
use prost::Message as _;
use proto::Any;
use proto::envoy::config::core::v3::{DataSource, data_source};
use proto::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use proto::reflect;
use serde_json::{Value, json};
use xds::Resource;

use crate::push::status::Row;
use crate::world::World;

const REDACTED: &[u8] = b"[redacted]";

/// The page; with endpoints only when asked for, as Envoy's has them.
#[must_use]
pub fn page(world: &World, row: &Row, has_endpoints: bool) -> Value {
    let version = world.version.as_str();
    let all = |type_url: TypeUrl| -> Vec<(Arc<str>, Value)> {
        resources(world, row, &type_url)
            .into_iter()
            .map(|resource| (resource.name.clone(), shown(&type_url, resource)))
            .collect()
    };
    let list = |type_url: TypeUrl, field: &str| -> Value {
        let entries = all(type_url).into_iter();
        entries.map(|(_, value)| json!({ "versionInfo": version, field: value })).collect()
    };
    let clusters: Value =
        all(TypeUrl::Cluster).into_iter().map(|(_, value)| json!({ "cluster": value })).collect();
    let listeners: Value = all(TypeUrl::Listener)
        .into_iter()
        .map(|(name, value)| {
            json!({ "name": &*name, "activeState": { "versionInfo": version, "listener": value } })
        })
        .collect();
    let mut configs = vec![
        json!({ "@type": admin("BootstrapConfigDump") }),
        json!({
            "@type": admin("ClustersConfigDump"), "versionInfo": version,
            "dynamicActiveClusters": clusters,
        }),
    ];
    if has_endpoints {
        configs.push(json!({
            "@type": admin("EndpointsConfigDump"),
            "dynamicEndpointConfigs": list(TypeUrl::Endpoint, "endpointConfig"),
        }));
    }
    configs.extend([
        json!({ "@type": admin("ListenersConfigDump"), "versionInfo": version, "dynamicListeners": listeners }),
        json!({ "@type": admin("ScopedRoutesConfigDump") }),
        json!({
            "@type": admin("RoutesConfigDump"),
            "dynamicRouteConfigs": list(TypeUrl::Route, "routeConfig"),
        }),
        json!({
            "@type": admin("SecretsConfigDump"),
            "dynamicActiveSecrets": list(TypeUrl::Secret, "secret"),
        }),
        json!({ "@type": admin("EcdsConfigDump"), "ecdsFilters": list(TypeUrl::Extension, "ecdsFilter") }),
    ]);
    json!({ "configs": configs })
}

/// Some types alone: `/debug/edsz`, `/debug/ndsz` and `/debug/ecdsz`, and
/// `/debug/config_dump` with `types`.
#[must_use]
pub fn of_types(world: &World, row: &Row, types: &[TypeUrl]) -> Value {
    let mut configs = Vec::new();
    for type_url in types {
        let resources = resources(world, row, type_url).into_iter();
        configs.extend(resources.map(|resource| shown(type_url, resource)));
    }
    if configs.is_empty() { json!({}) } else { json!({ "configs": configs }) }
}

/// The type of a short name in any case, such as `cds`; else of a URL.
#[must_use]
pub fn type_of(name: &str) -> TypeUrl {
    let known = [
        TypeUrl::Cluster,
        TypeUrl::Endpoint,
        TypeUrl::Listener,
        TypeUrl::Route,
        TypeUrl::Secret,
        TypeUrl::Extension,
        TypeUrl::NameTable,
        TypeUrl::ProxyConfig,
    ];
    let short = known.into_iter().find(|type_url| type_url.short().eq_ignore_ascii_case(name));
    short.unwrap_or_else(|| name.into())
}

fn admin(message: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{message}")
}

fn resources(world: &World, row: &Row, type_url: &TypeUrl) -> Vec<Resource> {
    let Some(wanted) = row.session.lock().wanted(type_url) else { return Vec::new() };
    Client::new(row.proxy.clone()).resources(world.now(), type_url, wanted.asked())
}

/// A resource as JSON, without what nobody may see.
fn shown(type_url: &TypeUrl, resource: Resource) -> Value {
    let body = if *type_url == TypeUrl::Secret { without_key(&resource.body) } else { resource.body };
    let any = Any { type_url: type_url.as_str().into(), value: body };
    reflect::any_to_json(&any)
        .unwrap_or_else(|error| json!({ "name": &*resource.name, "error": error.to_string() }))
}

/// A secret with its private key hidden; one that cannot be read is hidden whole.
fn without_key(body: &[u8]) -> bytes::Bytes {
    let hidden = || {
        Some(DataSource {
            specifier: Some(data_source::Specifier::InlineBytes(REDACTED.into())),
            ..DataSource::default()
        })
    };
    let Ok(mut secret) = Secret::decode(body) else { return bytes::Bytes::new() };
    match &mut secret.r#type {
        Some(secret::Type::TlsCertificate(certificate)) => {
            certificate.private_key = certificate.private_key.as_ref().and_then(|_| hidden());
            certificate.password = certificate.password.as_ref().and_then(|_| hidden());
            certificate.pkcs12 = certificate.pkcs12.as_ref().and_then(|_| hidden());
        }
        Some(secret::Type::ValidationContext(_)) | None => {}
        // Keys of session tickets and whatever else is kept secret.
        Some(_) => secret.r#type = None,
    }
    secret.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use proto::envoy::extensions::transport_sockets::tls::v3::TlsCertificate;

    use super::*;

    #[test]
    fn no_private_key_is_shown() {
        let inline = |text: &'static str| {
            let specifier = Some(data_source::Specifier::InlineString(text.into()));
            Some(DataSource { specifier, ..DataSource::default() })
        };
        let secret = Secret {
            name: "kubernetes://a".into(),
            r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline("public"),
                private_key: inline("very private"),
                ..TlsCertificate::default()
            })),
        };
        let resource = Resource::encode("kubernetes://a", &secret);
        let page = shown(&TypeUrl::Secret, resource).to_string();
        assert!(page.contains("public") && !page.contains("very private"), "{page}");
        assert!(
            !shown(&TypeUrl::Secret, Resource::from_bytes("a", vec![255, 1].into()))
                .to_string()
                .contains("\\u")
        );
    }
}
