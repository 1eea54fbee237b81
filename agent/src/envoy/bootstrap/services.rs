//! Servers that Envoy reports to from the start: tracing, access log, metrics.

use std::net::IpAddr;

use mesh::ProxyConfig;
use proto::istio::mesh::v1alpha1::tracing::Tracer as Asked;
use proto::istio::mesh::v1alpha1::{RemoteService, Tracing};
use proto::istio::networking::v1alpha3::ClientTlsSettings;
use proto::istio::networking::v1alpha3::connection_pool_settings::tcp_settings::TcpKeepalive;

/// Stands for the address of the node.
const HOST_IP: &str = "$(HOST_IP)";

/// All of them, as far as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    /// Where spans go to.
    pub tracing: Option<Tracer>,
    /// Where the access log goes to.
    pub access_log: Option<Remote>,
    /// Where Envoy's metrics go to.
    pub metrics: Option<Remote>,
    /// Where statistics go to by the statsd protocol.
    pub statsd: Option<Address>,
}

/// A tracer that stock Envoy has.
#[derive(Clone, Debug, PartialEq)]
pub enum Tracer {
    /// Zipkin or what speaks like it.
    Zipkin(Remote),
    /// An agent of Datadog.
    Datadog(Remote),
}

/// A server and how it is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    /// Where it is.
    pub address: Address,
    /// TLS to it.
    pub tls: Option<ClientTlsSettings>,
    /// Probes on connections to it.
    pub keepalive: Option<TcpKeepalive>,
}

/// `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`, with `[]` around IPv6 addresses; `$(HOST_IP)` is the
    /// address of the node.
    #[must_use]
    pub fn parse(text: &str, host_ip: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(host) => host,
            None if host.contains(':') => return None,
            None => host,
        };
        let host = if host == HOST_IP && !host_ip.is_empty() { host_ip } else { host };
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }

    /// The IP address, unless it is a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// What the configuration asks for; notes what cannot be had.
pub fn read(
    proxy: &ProxyConfig,
    host_ip: &str,
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Services {
    let mut address = |field: &str, text: &str| {
        let found = Address::parse(text, host_ip);
        if found.is_none() {
            errors.push(format!("{field} of the ProxyConfig is {text:?}: expected HOST:PORT"));
        }
        found
    };
    let mut service = |field: &str, service: Option<&RemoteService>| -> Option<Remote> {
        let service = service.filter(|service| !service.address.is_empty())?;
        Some(Remote {
            address: address(&format!("{field}.address"), &service.address)?,
            tls: service.tls_settings.clone(),
            keepalive: service.tcp_keepalive,
        })
    };
    let access_log = service("envoyAccessLogService", proxy.envoy_access_log_service.as_ref());
    let metrics = service("envoyMetricsService", proxy.envoy_metrics_service.as_ref());
    let older =
        RemoteService { address: proxy.envoy_metrics_service_address.clone(), ..RemoteService::default() };
    let metrics = metrics.or_else(|| service("envoyMetricsServiceAddress", Some(&older)));
    let statsd = (!proxy.statsd_udp_address.is_empty())
        .then(|| address("statsdUdpAddress", &proxy.statsd_udp_address))
        .flatten();
    let mut reported = |field: &str, text: &str, tracing: &Tracing| -> Option<Remote> {
        let address = address(&format!("tracing.{field}.address"), text)?;
        Some(Remote { address, tls: tracing.tls_settings.clone(), keepalive: None })
    };
    let asked = proxy.tracing.as_ref().and_then(|tracing| Some((tracing, tracing.tracer.as_ref()?)));
    let tracing = match asked {
        Some((tracing, Asked::Zipkin(zipkin))) if !zipkin.address.is_empty() => {
            reported("zipkin", &zipkin.address, tracing).map(Tracer::Zipkin)
        }
        Some((tracing, Asked::Datadog(datadog))) if !datadog.address.is_empty() => {
            reported("datadog", &datadog.address, tracing).map(Tracer::Datadog)
        }
        Some((_, Asked::Lightstep(_))) => {
            errors.push(
                "tracing.lightstep of the ProxyConfig: not supported: stock Envoy lacks it; \
                 send spans with OpenTelemetry (an extensionProvider of the mesh) or zipkin"
                    .into(),
            );
            None
        }
        Some((_, Asked::Stackdriver(_) | Asked::OpenCensusAgent(_))) => {
            warnings.push(
                "tracing of the ProxyConfig has no effect: stock Envoy has no OpenCensus; \
                 send spans with OpenTelemetry (an extensionProvider of the mesh)"
                    .into(),
            );
            None
        }
        _ => None,
    };
    if !proxy.zipkin_address.is_empty() {
        warnings.push("zipkinAddress of the ProxyConfig has no effect: use tracing.zipkin.address".into());
    }
    Services { tracing, access_log, metrics, statsd }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_host_and_port() {
        let of = |text: &str| Address::parse(text, "10.0.0.1").map(|found| (found.host, found.port));
        assert_eq!(of("zipkin.ns:9411"), Some(("zipkin.ns".into(), 9411)));
        assert_eq!(of("[fd00::1]:1"), Some(("fd00::1".into(), 1)));
        assert_eq!(of("$(HOST_IP):8126"), Some(("10.0.0.1".into(), 8126)));
        for bad in ["zipkin", ":1", "a:", "a:0", "a:65536", "fd00::1:1", "[fd00::1]"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    fn read_yaml(text: &str) -> (Services, Vec<String>, Vec<String>) {
        let layers = mesh::proxy_config::Layers { env: Some(text), ..Default::default() };
        let (proxy, _) = mesh::proxy_config::resolve(&layers).unwrap();
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        (read(&proxy, "", &mut errors, &mut warnings), errors, warnings)
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let (services, errors, warnings) = read_yaml(
            "{tracing: {zipkin: {address: z}}, envoyAccessLogService: {address: 'a:x'}, zipkinAddress: 'z:1'}",
        );
        assert_eq!(services, Services::default());
        assert_eq!(
            errors[0],
            "envoyAccessLogService.address of the ProxyConfig is \"a:x\": expected HOST:PORT"
        );
        assert!(errors[1].starts_with("tracing.zipkin.address of the ProxyConfig is \"z\""));
        assert!(warnings[0].starts_with("zipkinAddress"));
        let (_, errors, _) = read_yaml("{tracing: {lightstep: {address: 'l:1'}}}");
        assert!(errors[0].contains("OpenTelemetry"), "{errors:?}");
        let (_, errors, warnings) = read_yaml("{tracing: {stackdriver: {}}}");
        assert!(errors.is_empty() && warnings.len() == 1);
    }

    #[test]
    fn the_older_name_of_the_metrics_service_is_known() {
        let (services, errors, _) =
            read_yaml("{envoyMetricsServiceAddress: 'm:1', statsdUdpAddress: '9.9.9.9:8125'}");
        assert!(errors.is_empty());
        assert_eq!(services.metrics.unwrap().address.host, "m");
        assert_eq!(services.statsd.unwrap().ip(), Some([9, 9, 9, 9].into()));
    }
}
