//! TLS of the listeners and clusters that Envoy has from the start. Keys and
//! roots always come over SDS from the agent.

use proto::istio::networking::v1alpha3::ClientTlsSettings;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode;
use serde_json::{Map, Value, json};

use super::SDS_CLUSTER;

/// SDS name of the workload's certificate.
const OWN: &str = "default";
/// SDS name of the mesh's roots.
const ROOTS: &str = "ROOTCA";

/// The transport socket to a server; `None` without TLS.
///
/// `sni` is the name that mutual TLS of the mesh asks for when no other is
/// told; `metadata` may name files that win over those of the settings.
pub(super) fn upstream(
    tls: &ClientTlsSettings,
    sni: &str,
    http2: bool,
    metadata: &Map<String, Value>,
) -> Option<Value> {
    let file = |name: &str, configured: &str| {
        metadata
            .get(name)
            .and_then(Value::as_str)
            .filter(|path| !path.is_empty())
            .unwrap_or(configured)
            .to_owned()
    };
    let roots = file("TLS_CLIENT_ROOT_CERT", &tls.ca_certificates);
    let roots = (!roots.is_empty()).then(|| format!("file-root:{roots}"));
    let (certificate, roots, alpn, sni) = match tls.mode() {
        TlSmode::Disable => return None,
        TlSmode::Simple => (None, roots, &["h2"][..], tls.sni.as_str()),
        TlSmode::Mutual => {
            let chain = file("TLS_CLIENT_CERT_CHAIN", &tls.client_certificate);
            let key = file("TLS_CLIENT_KEY", &tls.private_key);
            let both = !chain.is_empty() && !key.is_empty();
            (both.then(|| format!("file-cert:{chain}~{key}")), roots, &["h2"][..], tls.sni.as_str())
        }
        TlSmode::IstioMutual => {
            let sni = if tls.sni.is_empty() { sni } else { &tls.sni };
            (Some(OWN.into()), Some(ROOTS.into()), &["istio", "h2"][..], sni)
        }
    };
    let mut common = common(certificate.as_deref(), roots.as_deref(), &tls.subject_alt_names);
    if http2 {
        common["alpn_protocols"] = json!(alpn);
    }
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    });
    if !sni.is_empty() {
        context["sni"] = json!(sni);
    }
    Some(json!({"name": "envoy.transport_sockets.tls", "typed_config": context}))
}

/// The transport socket of a listener that asks for a certificate of the mesh.
pub(super) fn downstream() -> Value {
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": common(Some(OWN), Some(ROOTS), &[]),
        },
    })
}

fn common(certificate: Option<&str>, roots: Option<&str>, names: &[String]) -> Value {
    let mut validation = json!({"default_validation_context": {}});
    if !names.is_empty() {
        let names: Vec<Value> = names.iter().map(|name| json!({"exact": name})).collect();
        validation["default_validation_context"] = json!({"match_subject_alt_names": names});
    }
    if let Some(name) = roots {
        validation["validation_context_sds_secret_config"] = secret(name);
    }
    let mut common = json!({"combined_validation_context": validation});
    if let Some(name) = certificate {
        common["tls_certificate_sds_secret_configs"] = json!([secret(name)]);
    }
    common
}

fn secret(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
            },
            "resource_api_version": "V3",
        },
    })
}
