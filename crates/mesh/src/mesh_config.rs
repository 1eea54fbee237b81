//! `MeshConfig`: settings of the whole mesh.

use std::ops::Deref;

use names::TrustDomain;
use proto::istio::mesh::v1alpha1 as api;
use proto::istio::mesh::v1alpha1::mesh_config::OutboundTrafficPolicy;
use proto::istio::mesh::v1alpha1::mesh_config::outbound_traffic_policy::Mode;

use crate::check;
use crate::extension_provider;
use crate::proxy_config;
use crate::yaml::{self, Error};

/// The mesh configuration with Istio's defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    api: api::MeshConfig,
    /// Fields that the user set and that do not exist.
    pub unknown_fields: Vec<String>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let seconds = |seconds| proto::wkt::Duration { seconds, nanos: 0 };
        let all = || vec!["*".to_owned()];
        let api = api::MeshConfig {
            proxy_listen_port: i32::from(names::port::OUTBOUND),
            connect_timeout: Some(seconds(10)),
            enable_tracing: true,
            default_config: Some(proxy_config::defaults()),
            outbound_traffic_policy: Some(OutboundTrafficPolicy {
                mode: Mode::AllowAny.into(),
                ..OutboundTrafficPolicy::default()
            }),
            trust_domain: TrustDomain::default().as_str().into(),
            default_service_export_to: all(),
            default_virtual_service_export_to: all(),
            default_destination_rule_export_to: all(),
            root_namespace: "istio-system".into(),
            protocol_detection_timeout: Some(seconds(0)),
            enable_auto_mtls: Some(true.into()),
            dns_refresh_rate: Some(seconds(60)),
            extension_providers: extension_provider::defaults(),
            ..api::MeshConfig::default()
        };
        Self { api, unknown_fields: Vec::new() }
    }
}

impl Deref for MeshConfig {
    type Target = api::MeshConfig;

    fn deref(&self) -> &api::MeshConfig {
        &self.api
    }
}

impl MeshConfig {
    /// Reads settings from YAML over the defaults.
    ///
    /// # Errors
    /// When the text is no YAML, or a field has a value that it cannot have.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        Self::default().overlaid(text)
    }

    /// Reads settings from YAML over these.
    ///
    /// # Errors
    /// As [`Self::from_yaml`].
    pub fn overlaid(&self, text: &str) -> Result<Self, Error> {
        let mut over = yaml::parse(text)?;
        // `defaultConfig` has layers of its own: it does not replace the defaults as a whole.
        let proxy = over.as_object_mut().and_then(|map| map.remove("defaultConfig"));
        let base = self.api.clone();
        let (mut api, mut unknown_fields) = yaml::overlay(&base, &over, yaml::Rules::default())?;
        // Providers add up, too.
        if over.get("extensionProviders").or_else(|| over.get("extension_providers")).is_some() {
            extension_provider::check(&api.extension_providers).map_err(Error::Field)?;
            let own = std::mem::take(&mut api.extension_providers);
            api.extension_providers = extension_provider::merge(base.extension_providers, own);
        }
        if let Some(proxy) = proxy {
            let below = base.default_config.unwrap_or_else(proxy_config::defaults);
            let (config, unknown) = yaml::overlay(&below, &proxy, proxy_config::RULES)?;
            api.default_config = Some(config);
            unknown_fields.extend(unknown.into_iter().map(|name| format!("defaultConfig.{name}")));
        }
        let config = Self { api, unknown_fields };
        for domain in std::iter::once(&config.api.trust_domain).chain(&config.api.trust_domain_aliases) {
            if let Err(error) = domain.parse::<TrustDomain>() {
                return Err(Error::Field(format!("trustDomain: {error}")));
            }
        }
        check::mesh(&config.api).map_err(Error::Field)?;
        Ok(config)
    }

    /// The trust domain of the mesh.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.api.trust_domain
    }

    /// Whether traffic to unknown destinations may leave the mesh.
    #[must_use]
    pub fn allows_any_outbound(&self) -> bool {
        self.api.outbound_traffic_policy.as_ref().is_none_or(|policy| policy.mode() != Mode::RegistryOnly)
    }

    /// Whether requests to unknown destinations go where DNS says that the host
    /// is that they name, whatever address the client has chosen.
    #[must_use]
    pub fn resolves_unknown(&self) -> bool {
        let policy = self.api.outbound_traffic_policy.as_ref();
        policy.is_some_and(|policy| policy.mode() == Mode::AllowAnyDynamicDns)
    }

    /// What the user set and does not have its whole effect, each with its field.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all = check::warnings(&self.api);
        let policy = self.api.outbound_traffic_policy.as_ref();
        if policy.is_some_and(|policy| policy.tls.is_some()) && !self.resolves_unknown() {
            let what = "outboundTrafficPolicy.tls: has an effect with mode ALLOW_ANY_DYNAMIC_DNS only";
            all.push(what.to_owned());
        }
        all
    }

    /// Whether clients use mutual TLS by themselves where the server can.
    #[must_use]
    pub fn has_auto_mtls(&self) -> bool {
        self.api.enable_auto_mtls.as_ref().is_none_or(|value| value.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_yaml_over_the_defaults() {
        let text = "
trustDomain: example.org
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
connectTimeout: 1m
defaultConfig:
  drainDuration: 7s
  proxyMetadata: {A: b}
noSuchField: 1
";
        let config = MeshConfig::from_yaml(text).unwrap();
        assert_eq!(config.trust_domain(), "example.org");
        assert!(!config.allows_any_outbound());
        let dynamic = MeshConfig::from_yaml("outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}").unwrap();
        assert!(dynamic.allows_any_outbound() && dynamic.resolves_unknown());
        let idle =
            MeshConfig::from_yaml("outboundTrafficPolicy: {mode: ALLOW_ANY, tls: {mode: SIMPLE}}").unwrap();
        assert_eq!((dynamic.warnings().len(), idle.warnings().len()), (0, 1));
        let curves = "{tlsDefaults: {ecdhCurves: [P-1, P-256, P-256]}, \
                      defaultInboundHttpRetryPolicy: {attempts: 1, perTryTimeout: 1s}}";
        assert_eq!(MeshConfig::from_yaml(curves).unwrap().warnings().len(), 3);
        assert!(config.has_auto_mtls());
        assert_eq!(config.connect_timeout.unwrap().seconds, 60);
        let proxy = config.default_config.as_ref().unwrap();
        assert_eq!(proxy.drain_duration.unwrap().seconds, 7);
        assert_eq!(proxy.status_port, 15020);
        assert_eq!(config.unknown_fields, ["noSuchField"]);
        assert_eq!(MeshConfig::from_yaml("").unwrap(), MeshConfig::default());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, want) in [
            ("trustDomain: 'a/b'", "trustDomain"),
            ("connectTimeout: soon", "duration"),
            ("- a", "found a list"),
            ("a: [", "line"),
        ] {
            let error = MeshConfig::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
