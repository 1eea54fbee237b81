//! `extensionProviders`: servers outside of proxies that they tell of requests
//! or ask about them.

use proto::istio::mesh::v1alpha1::mesh_config::ExtensionProvider;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::http_header::HeaderValue;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::{
    EnvoyFileAccessLogProvider, PrometheusMetricsProvider, Provider, StackdriverProvider,
};

/// Those that exist without being set.
pub(crate) fn defaults() -> Vec<ExtensionProvider> {
    let stdout = EnvoyFileAccessLogProvider { path: "/dev/stdout".into(), ..Default::default() };
    [
        ("prometheus", Provider::Prometheus(PrometheusMetricsProvider {})),
        ("stackdriver", Provider::Stackdriver(StackdriverProvider::default())),
        ("envoy", Provider::EnvoyFileAccessLog(stdout)),
    ]
    .map(|(name, provider)| ExtensionProvider { name: name.into(), provider: Some(provider) })
    .into()
}

/// Adds providers to others; one of a known name replaces it.
pub(crate) fn merge(base: Vec<ExtensionProvider>, over: Vec<ExtensionProvider>) -> Vec<ExtensionProvider> {
    let mut all = base;
    for provider in over {
        match all.iter_mut().find(|known| known.name == provider.name) {
            Some(known) => *known = provider,
            None => all.push(provider),
        }
    }
    all
}

/// What is wrong with the providers that a user wrote: `(field, message)`.
pub(crate) fn check(providers: &[ExtensionProvider]) -> Result<(), String> {
    for (index, provider) in providers.iter().enumerate() {
        let at = format!("extensionProviders[{index}]");
        if provider.name.is_empty() {
            return Err(format!("{at}.name: is missing: Telemetry and AuthorizationPolicy refer to it"));
        }
        if providers[..index].iter().any(|other| other.name == provider.name) {
            return Err(format!("{at}.name: {:?} stands twice", provider.name));
        }
        let Some(kind) = &provider.provider else {
            return Err(format!("{at}: {:?} says nothing of the provider", provider.name));
        };
        if let Provider::Opentelemetry(otel) = kind
            && otel.http.is_some()
            && otel.grpc.is_some()
        {
            return Err(format!("{at}.opentelemetry: has both http and grpc: leave one of them"));
        }
        let Some((service, port)) = service(kind) else { continue };
        if service.is_empty() {
            return Err(format!("{at}: {:?} names no service", provider.name));
        }
        let (namespace, host) = service.split_once('/').unwrap_or(("default", service));
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.:".contains(&c))
        };
        if !is_word(namespace) || !is_word(host) {
            return Err(format!(
                "{at}: {service:?} is not a service: expected a host name, or NAMESPACE/HOST"
            ));
        }
        if port == 0 || port > 65535 {
            return Err(format!("{at}: {port} is not a port of {service}: expected 1 to 65535"));
        }
    }
    Ok(())
}

/// The service and port that a provider is reached by.
#[must_use]
pub fn service(provider: &Provider) -> Option<(&str, u32)> {
    let (service, port) = match provider {
        Provider::EnvoyExtAuthzHttp(one) => (&one.service, one.port),
        Provider::EnvoyExtAuthzGrpc(one) => (&one.service, one.port),
        Provider::Zipkin(one) => (&one.service, one.port),
        Provider::Lightstep(one) => (&one.service, one.port),
        Provider::Datadog(one) => (&one.service, one.port),
        Provider::Opencensus(one) => (&one.service, one.port),
        Provider::Skywalking(one) => (&one.service, one.port),
        Provider::EnvoyHttpAls(one) => (&one.service, one.port),
        Provider::EnvoyTcpAls(one) => (&one.service, one.port),
        Provider::EnvoyOtelAls(one) => (&one.service, one.port),
        Provider::Opentelemetry(one) => (&one.service, one.port),
        Provider::Sds(one) => (&one.service, one.port),
        Provider::Stackdriver(_) | Provider::Prometheus(_) | Provider::EnvoyFileAccessLog(_) => return None,
    };
    Some((service, port))
}

/// Environment variables of istiod whose values providers are told in headers.
pub fn variables(providers: &[ExtensionProvider]) -> impl Iterator<Item = &str> {
    let headers = providers.iter().flat_map(|provider| match &provider.provider {
        Some(Provider::Zipkin(one)) => one.headers.iter().collect::<Vec<_>>(),
        Some(Provider::Opentelemetry(one)) => {
            let http = one.http.iter().flat_map(|http| &http.headers);
            http.chain(one.grpc.iter().flat_map(|grpc| &grpc.initial_metadata)).collect()
        }
        _ => Vec::new(),
    });
    headers.filter_map(|header| match &header.header_value {
        Some(HeaderValue::EnvName(name)) => Some(name.as_str()),
        _ => None,
    })
}

/// The provider of a name, in whatever case.
#[must_use]
pub fn find<'a>(providers: &'a [ExtensionProvider], name: &str) -> Option<&'a ExtensionProvider> {
    providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use crate::MeshConfig;

    #[test]
    fn providers_add_to_the_known_ones() {
        let text = "
extensionProviders:
- {name: envoy, envoyFileAccessLog: {path: /tmp/log}}
- {name: z, zipkin: {service: zipkin.tracing.svc.cluster.local, port: 9411}}
defaultProviders: {tracing: [z]}
";
        let config = MeshConfig::from_yaml(text).unwrap();
        let names: Vec<&str> =
            config.extension_providers.iter().map(|provider| provider.name.as_str()).collect();
        assert_eq!(names, ["prometheus", "stackdriver", "envoy", "z"]);
        assert_eq!(config.default_providers.as_ref().unwrap().tracing, ["z"]);
        assert!(super::find(&config.extension_providers, "Z").is_some());
        assert_eq!(MeshConfig::default().extension_providers.len(), 3);
    }

    #[test]
    fn providers_that_lead_nowhere_are_refused() {
        for (text, want) in [
            ("{zipkin: {service: a, port: 1}}", "name: is missing"),
            ("{name: a}", "says nothing"),
            ("{name: a, zipkin: {port: 1}}", "names no service"),
            ("{name: a, zipkin: {service: 'a b', port: 1}}", "is not a service"),
            ("{name: a, zipkin: {service: a}}", "0 is not a port"),
            (
                "{name: a, opentelemetry: {service: a, port: 1, http: {path: /}, grpc: {}}}",
                "both http and grpc",
            ),
            ("{name: a, prometheus: {}}, {name: a, prometheus: {}}", "stands twice"),
        ] {
            let error = MeshConfig::from_yaml(&format!("extensionProviders: [{text}]")).unwrap_err();
            assert!(error.to_string().contains(want), "{text}: {error}");
        }
    }
}
