//! Loggers of Envoy for the providers of the mesh configuration.

use std::collections::BTreeMap;

use mesh::MeshConfig;
use names::ClusterName;
use prost::Message as _;
use prost_types::Struct;
use proto::Any;
use proto::envoy::config::accesslog::v3::{AccessLog, access_log};
use proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use proto::envoy::config::core::v3::{ApiVersion, GrpcService, SubstitutionFormatString};
use proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use proto::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use proto::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use proto::istio::mesh::v1alpha1::mesh_config::AccessLogEncoding;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::envoy_file_access_log_provider::log_format::LogFormat;
use proto::istio::mesh::v1alpha1::mesh_config::extension_provider::{
    EnvoyFileAccessLogProvider, EnvoyHttpGrpcV3LogProvider, EnvoyOpenTelemetryLogProvider,
    EnvoyTcpGrpcV3LogProvider, Provider,
};
use proto::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};

use super::format;
use crate::snapshot::Snapshot;
use crate::snapshot::telemetry::lookup;

const FILE: &str = "envoy.access_loggers.file";
const HTTP_GRPC: &str = "envoy.access_loggers.http_grpc";
const TCP_GRPC: &str = "envoy.tcp_grpc_access_log";
const OPEN_TELEMETRY: &str = "envoy.access_loggers.open_telemetry";
/// Cluster of the bootstrap for the service of `enableEnvoyAccessLogService`.
const BOOTSTRAP_CLUSTER: &str = "envoy_accesslog_service";
/// What peers said of themselves, which Istio's own filters keep.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];
/// The same under the names of older filters as well.
const ALL_PEERS: [&str; 6] = [
    "upstream_peer",
    "downstream_peer",
    "wasm.upstream_peer",
    "wasm.upstream_peer_id",
    "wasm.downstream_peer",
    "wasm.downstream_peer_id",
];

/// What the log of the mesh's settings is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Requests,
    Connections,
    Listener,
}

/// The loggers of a snapshot, each written once.
#[derive(Debug)]
pub(crate) struct Loggers {
    /// By name in lower case, with the name as it is written.
    providers: BTreeMap<String, (String, AccessLog)>,
    file: Option<AccessLog>,
    /// Of requests, of connections, of listeners.
    service: Option<[AccessLog; 3]>,
}

impl Loggers {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mesh: &MeshConfig = &snapshot.mesh;
        let mut providers = BTreeMap::new();
        for provider in &mesh.extension_providers {
            if let Some(log) =
                provider.provider.as_ref().and_then(|kind| of_provider(snapshot, &provider.name, kind))
            {
                let key = provider.name.to_ascii_lowercase();
                providers.entry(key).or_insert_with(|| (provider.name.clone(), log));
            }
        }
        let has_file = !mesh.access_log_file.is_empty();
        let file = has_file.then(|| of_file(&mesh.access_log_file, of_mesh(mesh)));
        let service = mesh.enable_envoy_access_log_service.then(bootstrap_service);
        Self { providers, file, service }
    }

    /// The logger of a provider, if there is one and its server is known.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &AccessLog)> {
        let key = name.to_ascii_lowercase();
        self.providers.get(&key).map(|(name, log)| (name.as_str(), log))
    }

    /// Those that the mesh's settings name without Telemetry.
    pub(super) fn of_mesh(&self, service: Service) -> impl Iterator<Item = &AccessLog> {
        let services = self.service.as_ref().map(|services| match service {
            Service::Requests => &services[0],
            Service::Connections => &services[1],
            Service::Listener => &services[2],
        });
        self.file.iter().chain(services)
    }
}

fn of_provider(snapshot: &Snapshot, name: &str, provider: &Provider) -> Option<AccessLog> {
    match provider {
        // The one that is always there follows the mesh's settings unless it has its own.
        Provider::EnvoyFileAccessLog(file)
            if name == "envoy" && file.log_format.is_none() && !file.omit_empty_values =>
        {
            Some(of_file(&file.path, of_mesh(&snapshot.mesh)))
        }
        Provider::EnvoyFileAccessLog(file) => Some(file_provider(file)),
        Provider::EnvoyHttpAls(grpc) => Some(http_grpc(grpc, server(snapshot, &grpc.service, grpc.port)?)),
        Provider::EnvoyTcpAls(grpc) => Some(tcp_grpc(grpc, server(snapshot, &grpc.service, grpc.port)?)),
        Provider::EnvoyOtelAls(otel) => {
            Some(open_telemetry(otel, server(snapshot, &otel.service, otel.port)?))
        }
        _ => None,
    }
}

fn log<M: prost::Message + prost::Name>(name: &str, config: &M) -> AccessLog {
    AccessLog {
        name: name.into(),
        config_type: Some(access_log::ConfigType::TypedConfig(Any::pack(config))),
        ..AccessLog::default()
    }
}

/// The service as Envoy calls it.
fn server(snapshot: &Snapshot, service: &str, port: u32) -> Option<GrpcService> {
    let port = u16::try_from(port).ok()?;
    let host = lookup(snapshot, service).ok()?;
    let cluster = ClusterName::outbound(port, "", &host).to_string();
    Some(grpc_service(cluster, host.as_str()))
}

fn grpc_service(cluster_name: String, authority: &str) -> GrpcService {
    let target = EnvoyGrpc { cluster_name, authority: authority.into(), ..EnvoyGrpc::default() };
    GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..GrpcService::default() }
}

fn of_file(path: &str, format: SubstitutionFormatString) -> AccessLog {
    let path = if path.is_empty() { "/dev/stdout" } else { path };
    let config = FileAccessLog {
        path: path.into(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    log(FILE, &config)
}

fn of_mesh(mesh: &MeshConfig) -> SubstitutionFormatString {
    match mesh.access_log_encoding() {
        AccessLogEncoding::Text => format::text(&mesh.access_log_format),
        AccessLogEncoding::Json => format::json(format::parse(&mesh.access_log_format).unwrap_or_default()),
    }
}

fn file_provider(file: &EnvoyFileAccessLogProvider) -> AccessLog {
    let wanted = file.log_format.as_ref().and_then(|format| format.log_format.as_ref());
    let format = match wanted {
        None => format::text(""),
        Some(LogFormat::Text(text)) => format::text(text),
        Some(LogFormat::Labels(labels)) => format::json(convert(labels)),
    };
    of_file(&file.path, SubstitutionFormatString { omit_empty_values: file.omit_empty_values, ..format })
}

/// The same fields in Envoy's type of them.
fn convert(fields: &impl prost::Message) -> Struct {
    Struct::decode(fields.encode_to_vec().as_slice()).unwrap_or_default()
}

fn common(
    name: &str,
    default: &str,
    server: GrpcService,
    objects: &[String],
    peers: &[&str],
) -> CommonGrpcAccessLogConfig {
    let objects = if objects.is_empty() {
        peers.iter().map(|&peer| peer.to_owned()).collect()
    } else {
        objects.to_vec()
    };
    CommonGrpcAccessLogConfig {
        log_name: if name.is_empty() { default } else { name }.into(),
        grpc_service: Some(server),
        transport_api_version: ApiVersion::V3.into(),
        filter_state_objects_to_log: objects,
        ..CommonGrpcAccessLogConfig::default()
    }
}

fn http_grpc(grpc: &EnvoyHttpGrpcV3LogProvider, server: GrpcService) -> AccessLog {
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(common(
            &grpc.log_name,
            "http_envoy_accesslog",
            server,
            &grpc.filter_state_objects_to_log,
            &PEERS,
        )),
        additional_request_headers_to_log: grpc.additional_request_headers_to_log.clone(),
        additional_response_headers_to_log: grpc.additional_response_headers_to_log.clone(),
        additional_response_trailers_to_log: grpc.additional_response_trailers_to_log.clone(),
    };
    log(HTTP_GRPC, &config)
}

fn tcp_grpc(grpc: &EnvoyTcpGrpcV3LogProvider, server: GrpcService) -> AccessLog {
    let objects = &grpc.filter_state_objects_to_log;
    let common = common(&grpc.log_name, "tcp_envoy_accesslog", server, objects, &PEERS);
    log(TCP_GRPC, &TcpGrpcAccessLogConfig { common_config: Some(common) })
}

fn open_telemetry(otel: &EnvoyOpenTelemetryLogProvider, server: GrpcService) -> AccessLog {
    let text = otel.log_format.as_ref().map_or("", |format| format.text.as_str());
    let text = if text.is_empty() { format::TEXT } else { text };
    let labels = otel.log_format.as_ref().and_then(|format| format.labels.as_ref()).map(convert);
    let labels = labels.filter(|labels| !labels.fields.is_empty());
    let of = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) });
    let attributes = labels.as_ref().map(|labels| KeyValueList {
        values: labels
            .fields
            .iter()
            .map(|(key, value)| {
                let text = match &value.kind {
                    Some(prost_types::value::Kind::StringValue(text)) => text,
                    _ => "",
                };
                KeyValue { key: key.clone(), value: of(text), ..KeyValue::default() }
            })
            .collect(),
    });
    let formats = std::iter::once(text).chain(labels.iter().flat_map(format::texts));
    let config = OpenTelemetryAccessLogConfig {
        common_config: Some(common(&otel.log_name, "otel_envoy_accesslog", server, &[], &ALL_PEERS)),
        disable_builtin_labels: true,
        body: of(text),
        attributes,
        formatters: format::formatters(formats),
        ..OpenTelemetryAccessLogConfig::default()
    };
    log(OPEN_TELEMETRY, &config)
}

/// The service of the bootstrap.
fn bootstrap_service() -> [AccessLog; 3] {
    let server = || grpc_service(BOOTSTRAP_CLUSTER.into(), "");
    let tcp = |name: &str| {
        let common = common(name, name, server(), &[], &ALL_PEERS);
        log(TCP_GRPC, &TcpGrpcAccessLogConfig { common_config: Some(common) })
    };
    let http = HttpGrpcAccessLogConfig {
        common_config: Some(common("", "http_envoy_accesslog", server(), &[], &ALL_PEERS)),
        ..HttpGrpcAccessLogConfig::default()
    };
    [log(HTTP_GRPC, &http), tcp("tcp_envoy_accesslog"), tcp("listener_envoy_accesslog")]
}
