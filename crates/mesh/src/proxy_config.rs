//! `ProxyConfig`: settings of one proxy, in layers.
//!
//! Later layers win field by field: defaults, `defaultConfig` of the mesh
//! configuration, `PROXY_CONFIG`, the annotation `proxy.istio.io/config`, then
//! the annotations for single fields.

use std::collections::BTreeMap;

use proto::istio::mesh::v1alpha1::proxy_config::ClusterName;
use proto::istio::mesh::v1alpha1::{AuthenticationPolicy, ProxyConfig};

use crate::{MeshConfig, yaml};

/// How layers come together: variables and headers add up, all else is replaced.
pub(crate) const RULES: yaml::Rules<'static> = yaml::Rules {
    merged: &["proxyMetadata", "proxyHeaders"],
    exclusive: &[&["serviceCluster", "tracingServiceName"]],
};

/// A layer that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{layer}: {source}")]
pub struct Error {
    /// Which layer.
    pub layer: String,
    /// What is wrong in it.
    pub source: yaml::Error,
}

/// Istio's defaults.
#[must_use]
pub fn defaults() -> ProxyConfig {
    let seconds = |seconds| Some(proto::wkt::Duration { seconds, nanos: 0 });
    ProxyConfig {
        config_path: names::path::CONFIG_PATH.into(),
        binary_path: "/usr/local/bin/envoy".into(),
        cluster_name: Some(ClusterName::ServiceCluster("istio-proxy".into())),
        drain_duration: seconds(45),
        termination_drain_duration: seconds(5),
        proxy_admin_port: i32::from(names::port::ENVOY_ADMIN),
        control_plane_auth_policy: AuthenticationPolicy::MutualTls.into(),
        discovery_address: "istiod.istio-system.svc:15012".into(),
        stat_name_length: 189,
        status_port: i32::from(names::port::AGENT_STATUS),
        ..ProxyConfig::default()
    }
}

/// Lays one more layer, written as YAML, on a configuration; returns the names
/// of fields that do not exist as well.
///
/// # Errors
/// When the layer cannot be used.
pub fn apply(base: &ProxyConfig, layer: &str) -> Result<(ProxyConfig, Vec<String>), yaml::Error> {
    yaml::overlay(base, &yaml::parse(layer)?, RULES)
}

/// What the layers come from.
#[derive(Clone, Debug, Default)]
pub struct Layers<'a> {
    /// Text of the mesh configuration file, and where it lies.
    pub mesh: Option<(&'a str, &'a str)>,
    /// Text of the environment variable `PROXY_CONFIG`.
    pub env: Option<&'a str>,
    /// The pod's annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// Lays all layers on each other; returns the names of fields that do not
/// exist as well.
///
/// # Errors
/// All layers that cannot be used.
pub fn resolve(layers: &Layers<'_>) -> Result<(ProxyConfig, Vec<String>), Vec<Error>> {
    let mut config = defaults();
    let mut unknown = Vec::new();
    let mut errors = Vec::new();
    if let Some((path, text)) = layers.mesh {
        match MeshConfig::from_yaml(text) {
            Ok(mesh) => {
                unknown.extend(mesh.unknown_fields.iter().map(|name| format!("{path}: {name}")));
                config = mesh.default_config.clone().unwrap_or(config);
            }
            Err(source) => errors.push(Error { layer: format!("mesh configuration {path}"), source }),
        }
    }
    let annotation = |name: &str| layers.annotations.and_then(|all| all.get(name)).map(String::as_str);
    let texts = [
        ("environment variable PROXY_CONFIG", layers.env),
        ("annotation proxy.istio.io/config", annotation(names::annotation::PROXY_CONFIG)),
    ];
    for (layer, text) in texts {
        let Some(text) = text else { continue };
        let result = yaml::parse(text).and_then(|over| yaml::overlay(&config, &over, RULES));
        match result {
            Ok((next, names)) => {
                config = next;
                unknown.extend(names.into_iter().map(|name| format!("{layer}: {name}")));
            }
            Err(source) => errors.push(Error { layer: layer.into(), source }),
        }
    }
    if let Some(address) = annotation(names::annotation::DISCOVERY_ADDRESS) {
        config.discovery_address = address.into();
    }
    if let Some(port) = annotation(names::annotation::STATUS_PORT) {
        match port.parse::<u16>() {
            Ok(port) => config.status_port = port.into(),
            Err(_) => errors.push(Error {
                layer: format!("annotation {}", names::annotation::STATUS_PORT),
                source: yaml::Error::Field(format!(
                    "{port:?} is not a port: expected a number from 0 to 65535"
                )),
            }),
        }
    }
    if errors.is_empty() { Ok((config, unknown)) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use proto::istio::mesh::v1alpha1::tracing::Tracer;

    use super::*;

    #[test]
    fn later_layers_win_field_by_field() {
        let annotations = BTreeMap::from([
            (
                names::annotation::PROXY_CONFIG.to_owned(),
                "drainDuration: 9s\nproxyMetadata: {B: 2}".to_owned(),
            ),
            (names::annotation::STATUS_PORT.to_owned(), "15099".to_owned()),
        ]);
        let layers = Layers {
            mesh: Some((
                "mesh",
                "defaultConfig: {drainDuration: 7s, proxyAdminPort: 15999, proxyMetadata: {A: '1'}}",
            )),
            env: Some("{\"drainDuration\":\"8s\",\"concurrency\":3}"),
            annotations: Some(&annotations),
        };
        let error = resolve(&layers).unwrap_err();
        assert!(error[0].to_string().contains("proxy.istio.io/config"), "{}", error[0]);
        let annotations = BTreeMap::from([
            (
                names::annotation::PROXY_CONFIG.to_owned(),
                "drainDuration: 9s\nproxyMetadata: {B: '2'}".to_owned(),
            ),
            (names::annotation::STATUS_PORT.to_owned(), "15099".to_owned()),
        ]);
        let (config, unknown) = resolve(&Layers { annotations: Some(&annotations), ..layers }).unwrap();
        assert_eq!(config.drain_duration.unwrap().seconds, 9);
        assert_eq!((config.proxy_admin_port, config.status_port), (15999, 15099));
        assert_eq!(config.concurrency.unwrap().value, 3);
        assert_eq!(config.proxy_metadata.len(), 2);
        assert_eq!(config.config_path, "./etc/istio/proxy");
        assert!(unknown.is_empty());
    }

    #[test]
    fn a_field_replaces_what_it_excludes_and_maps_but_variables() {
        let layers = Layers {
            mesh: Some((
                "mesh",
                "defaultConfig:
  runtimeValues: {a: '1'}
  tracing: {sampling: 5, zipkin: {address: 'z:1'}}
  proxyHeaders: {server: {value: s}}
  drainDuration: 7s",
            )),
            env: Some(
                "{runtimeValues: {b: '2'}, tracing: {datadog: {address: 'd:1'}}, drain_duration: 9s,
  tracingServiceName: CANONICAL_NAME_ONLY, proxyHeaders: {requestId: {disabled: true}}, binaryPath: null}",
            ),
            annotations: None,
        };
        let (config, unknown) = resolve(&layers).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(config.runtime_values.keys().collect::<Vec<_>>(), ["b"]);
        let tracing = config.tracing.unwrap();
        assert!(matches!(tracing.tracer, Some(Tracer::Datadog(_))));
        assert!(tracing.sampling.abs() < f64::EPSILON);
        assert!(matches!(config.cluster_name, Some(ClusterName::TracingServiceName(1))));
        assert_eq!(config.drain_duration.unwrap().seconds, 9);
        assert_eq!(config.binary_path, "/usr/local/bin/envoy");
        let headers = config.proxy_headers.unwrap();
        assert!(headers.server.is_some() && headers.request_id.is_some());
    }

    #[test]
    fn every_field_of_the_api_is_known() {
        let text = "
tracing: {openCensusAgent: {address: 'a:1', context: [B3]}, customTags: {t: {literal: {value: v}}},
  maxPathTagLength: 9, tlsSettings: {mode: SIMPLE}, enableIstioTags: false}
statsdUdpAddress: 'a:1'
envoyAccessLogService: {address: 'a:1', tlsSettings: {mode: ISTIO_MUTUAL}, tcpKeepalive: {time: 10s, probes: 3}}
envoyMetricsService: {address: 'a:1'}
readinessProbe: {initialDelaySeconds: 1, httpGet: {path: /, port: 80, httpHeaders: [{name: a, value: b}]}}
caCertificatesPem: [x]
privateKeyProvider: {cryptomb: {pollDelay: 2ms, fallback: true}}
fileFlushInterval: 2s
fileFlushMinSizeKb: 64
statsCompression: false
connectionSettings: {globalDownstreamConnectionLimit: 5, profile: EDGE}
gatewayTopology: {numTrustedProxies: 1}
image: {imageType: distroless}
sds: {enabled: true}
availabilityZone: z
discoveryRefreshDelay: 1s";
        let (config, unknown) = resolve(&Layers { env: Some(text), ..Layers::default() }).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(config.file_flush_min_size_kb, 64);
        assert_eq!(config.stats_compression.unwrap(), false.into());
    }

    proptest::proptest! {
        #[test]
        fn no_text_of_a_layer_ends_the_program(text in "(?s).*", yaml in "[a-zA-Z_:{}\\[\\], '0-9smh\n-]*") {
            for text in [text, yaml] {
                drop(resolve(&Layers { env: Some(&text), ..Layers::default() }));
            }
        }

        #[test]
        fn durations_and_numbers_are_read_or_refused(value in "[0-9]{0,20}[a-z.-]{0,3}") {
            let text = format!("{{drainDuration: '{value}', statusPort: {value:?}, concurrency: '{value}'}}");
            drop(resolve(&Layers { env: Some(&text), ..Layers::default() }));
        }
    }

    #[test]
    fn names_the_layer_that_is_wrong() {
        let layers = Layers { env: Some("drainDuration: never"), ..Layers::default() };
        let error = resolve(&layers).unwrap_err()[0].to_string();
        assert!(error.starts_with("environment variable PROXY_CONFIG: "), "{error}");
        assert!(error.contains("never"), "{error}");
    }
}
