//! Who collects spans.

use names::ClusterName;
use proto::Any;
use proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use proto::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri, TypedExtensionConfig,
};
use proto::envoy::config::trace::v3::tracing::{Http, http};
use proto::envoy::config::trace::v3::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use proto::envoy::config::trace::v3::{DatadogConfig, OpenTelemetryConfig, ZipkinConfig};
use proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use proto::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    DynatraceResourceDetectorConfig, EnvironmentResourceDetectorConfig,
};
use proto::envoy::extensions::tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig;
use proto::istio::mesh::v1alpha1::mesh_config::ExtensionProvider;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::http_header::HeaderValue as Of;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::open_telemetry_tracing_provider::{
    DynatraceSampler, Sampling,
};
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::zipkin_tracing_provider::TraceContextOption as WantedContext;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::{
    HttpHeader, HttpService as WantedHttp, OpenTelemetryTracingProvider, Provider,
    ServiceAttributeEnrichment, ZipkinTracingProvider,
};
use proto::wkt::Duration;
use serde_json::json;

use crate::generate::message::seconds;
use crate::proxy::ProxyKind;
use crate::scope::Scope;
use crate::snapshot::telemetry::lookup;

/// Time that a collector has for an answer, when nothing is said; Envoy wants one.
const TIMEOUT: i64 = 5;

/// A collector and how it is told.
pub(super) struct Collector {
    /// Tracing, with the collector alone.
    pub(super) tracing: Tracing,
    /// Whether it chooses requests itself, so that all must come to it.
    pub(super) samples_itself: bool,
}

/// The collector of a provider; `None` when it cannot be reached or takes no
/// spans of stock Envoy.
pub(super) fn collector(scope: Scope<'_>, provider: &ExtensionProvider) -> Option<Collector> {
    let mut spawns = scope.proxy.kind == ProxyKind::Router;
    let mut samples_itself = false;
    let (name, config, max_length) = match provider.provider.as_ref()? {
        Provider::Zipkin(one) => {
            let server = Server::find(scope, &one.service, one.port)?;
            ("zipkin", Any::pack(&zipkin(scope, one, &server)), one.max_tag_length)
        }
        Provider::Datadog(one) => {
            let server = Server::find(scope, &one.service, one.port)?;
            let config = DatadogConfig {
                collector_cluster: server.cluster,
                collector_hostname: server.host,
                service_name: scope.proxy.cluster.clone(),
                ..DatadogConfig::default()
            };
            ("datadog", Any::pack(&config), one.max_tag_length)
        }
        Provider::Opentelemetry(one) => {
            let server = Server::find(scope, &one.service, one.port)?;
            samples_itself = one.sampling.is_some();
            ("opentelemetry", Any::pack(&open_telemetry(scope, one, &server)?), one.max_tag_length)
        }
        Provider::Skywalking(one) => {
            let server = Server::find(scope, &one.service, one.port)?;
            spawns = true;
            ("skywalking", skywalking(&server, &one.access_token)?, 0)
        }
        _ => return None,
    };
    let collector = Http {
        name: format!("envoy.tracers.{name}"),
        config_type: Some(http::ConfigType::TypedConfig(config)),
    };
    let tracing = Tracing {
        provider: Some(collector),
        spawn_upstream_span: spawns.then_some(true),
        max_path_tag_length: (max_length != 0).then_some(max_length),
        ..Tracing::default()
    };
    Some(Collector { tracing, samples_itself })
}

/// A service as Envoy calls it.
struct Server {
    host: String,
    cluster: String,
}

impl Server {
    fn find(scope: Scope<'_>, service: &str, port: u32) -> Option<Self> {
        let port = u16::try_from(port).ok()?;
        let host = lookup(scope.snapshot, service).ok()?;
        let cluster = ClusterName::outbound(port, "", &host).to_string();
        Some(Self { host: host.as_str().into(), cluster })
    }

    fn uri(&self, uri: String, timeout: Option<Duration>) -> HttpUri {
        HttpUri {
            uri,
            timeout: timeout.map(Into::into).or(seconds(TIMEOUT)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(self.cluster.clone())),
        }
    }

    /// `HOST/PATH`, without empty parts.
    fn join(&self, path: &str) -> String {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let joined = std::iter::once(self.host.as_str()).chain(parts).collect::<Vec<_>>().join("/");
        if path.ends_with('/') { format!("{joined}/") } else { joined }
    }

    fn http(&self, scope: Scope<'_>, path: &str, http: &WantedHttp) -> HttpService {
        HttpService {
            http_uri: Some(self.uri(self.join(path), http.timeout)),
            request_headers_to_add: headers(scope, &http.headers),
            ..HttpService::default()
        }
    }
}

fn value(scope: Scope<'_>, header: &HttpHeader) -> HeaderValue {
    let value = match &header.header_value {
        Some(Of::Value(value)) => value.clone(),
        Some(Of::EnvName(name)) => scope.snapshot.settings.variables.get(name).cloned().unwrap_or_default(),
        None => String::new(),
    };
    HeaderValue { key: header.name.clone(), value, ..HeaderValue::default() }
}

fn headers(scope: Scope<'_>, headers: &[HttpHeader]) -> Vec<HeaderValueOption> {
    let named = headers.iter().filter(|header| !header.name.is_empty());
    named
        .map(|header| HeaderValueOption {
            header: Some(value(scope, header)),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
            ..HeaderValueOption::default()
        })
        .collect()
}

fn zipkin(scope: Scope<'_>, zipkin: &ZipkinTracingProvider, server: &Server) -> ZipkinConfig {
    let endpoint = if zipkin.path.is_empty() { "/api/v2/spans" } else { &zipkin.path };
    let mut config = ZipkinConfig {
        collector_endpoint_version: CollectorEndpointVersion::HttpJson.into(),
        trace_id_128bit: !zipkin.enable_64bit_trace_id,
        shared_span_context: Some(false),
        ..ZipkinConfig::default()
    };
    if scope.proxy.is_since(29) {
        config.collector_service = Some(HttpService {
            http_uri: Some(server.uri(format!("http://{}{endpoint}", server.host), zipkin.timeout)),
            request_headers_to_add: headers(scope, &zipkin.headers),
            ..HttpService::default()
        });
    } else {
        config.collector_cluster.clone_from(&server.cluster);
        config.collector_hostname.clone_from(&server.host);
        config.collector_endpoint = endpoint.to_owned();
    }
    if scope.proxy.is_since(28) && zipkin.trace_context_option() == WantedContext::UseB3WithW3cPropagation {
        config.trace_context_option = TraceContextOption::UseB3WithW3cPropagation.into();
    }
    config
}

fn open_telemetry(
    scope: Scope<'_>,
    otel: &OpenTelemetryTracingProvider,
    server: &Server,
) -> Option<OpenTelemetryConfig> {
    let follows_conventions =
        otel.service_attribute_enrichment() == ServiceAttributeEnrichment::OtelSemanticConventions;
    let mut config = OpenTelemetryConfig {
        service_name: if follows_conventions { service_name(scope) } else { scope.proxy.cluster.clone() },
        ..OpenTelemetryConfig::default()
    };
    if let Some(http) = &otel.http {
        config.http_service = Some(server.http(scope, &http.path, http));
    } else {
        let grpc = otel.grpc.as_ref();
        let metadata = grpc.map_or(&[][..], |grpc| &grpc.initial_metadata);
        let target = EnvoyGrpc {
            cluster_name: server.cluster.clone(),
            authority: server.host.clone(),
            ..EnvoyGrpc::default()
        };
        config.grpc_service = Some(GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)),
            timeout: grpc.and_then(|grpc| grpc.timeout).map(Into::into),
            initial_metadata: metadata.iter().map(|header| value(scope, header)).collect(),
            ..GrpcService::default()
        });
    }
    let detectors = otel.resource_detectors.as_ref();
    if follows_conventions || detectors.is_some_and(|detectors| detectors.environment.is_some()) {
        let detector = Any::pack(&EnvironmentResourceDetectorConfig::default());
        config.resource_detectors.push(extension("resource_detectors.environment", detector));
    }
    if detectors.is_some_and(|detectors| detectors.dynatrace.is_some()) {
        let detector = Any::pack(&DynatraceResourceDetectorConfig::default());
        config.resource_detectors.push(extension("resource_detectors.dynatrace", detector));
    }
    if let Some(Sampling::DynatraceSampler(sampler)) = &otel.sampling {
        let sampler = dynatrace(scope, otel, sampler, server)?;
        config.sampler = Some(extension("samplers.dynatrace", Any::pack(&sampler)));
    }
    Some(config)
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: format!("envoy.tracers.opentelemetry.{name}"), typed_config: Some(config) }
}

fn dynatrace(
    scope: Scope<'_>,
    otel: &OpenTelemetryTracingProvider,
    sampler: &DynatraceSampler,
    server: &Server,
) -> Option<DynatraceSamplerConfig> {
    let service = match &sampler.http_service {
        // The same server as for spans, at another path.
        None => server.http(scope, "api/v2/samplingConfiguration", otel.http.as_ref()?),
        Some(own) => {
            let server = Server::find(scope, &own.service, own.port)?;
            let http = own.http.clone().unwrap_or_default();
            server.http(scope, &http.path, &http)
        }
    };
    Some(DynatraceSamplerConfig {
        tenant: sampler.tenant.clone(),
        cluster_id: sampler.cluster_id,
        root_spans_per_minute: sampler.root_spans_per_minute,
        http_service: Some(service),
    })
}

/// The name of the workload by OpenTelemetry's conventions for Kubernetes.
fn service_name(scope: Scope<'_>) -> String {
    let labels = scope.labels();
    let label = |key: &str| labels.get(key).map(String::as_str);
    [
        scope.proxy.annotation(names::annotation::OTEL_SERVICE_NAME),
        label("app.kubernetes.io/instance"),
        label("app.kubernetes.io/name"),
        Some(scope.proxy.says("WORKLOAD_NAME")),
    ]
    .into_iter()
    .flatten()
    .find(|name| !name.is_empty())
    .unwrap_or("unknown_service")
    .to_owned()
}

/// Its messages have no Rust types.
fn skywalking(server: &Server, token: &str) -> Option<Any> {
    const NAME: &str = "envoy.config.trace.v3.SkyWalkingConfig";
    let mut config = json!({
        "grpcService": {"envoyGrpc": {"clusterName": server.cluster, "authority": server.host}},
    });
    if !token.is_empty() {
        config["clientConfig"] = json!({"backendToken": token});
    }
    let value = proto::reflect::from_json(NAME, config).ok()?;
    Some(Any { type_url: format!("type.googleapis.com/{NAME}"), value: value.into() })
}
