//! The bootstraps of Envoy and gRPC: equal to recorded ones of Istio's agent,
//! and accepted by the real Envoy in every variant.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use istio_agent::config::args::{self, Args};
use istio_agent::config::{Config, Inputs, resolve};
use istio_agent::envoy::bootstrap::late;
use istio_agent::grpc_bootstrap;
use serde_json::{Value, json};

/// Names Envoy's program file.
const ENVOY: &str = "ISTIO_TEST_ENVOY";
/// Set to `1` where nothing may be left out.
const REQUIRE: &str = "ISTIO_TEST_REQUIRE";
/// What of the recorded files is different here, and why.
const DIFFERENCES: &str = include_str!("bootstrap/differences.json");

/// What the recorded agent was given.
fn recorded() -> BTreeMap<String, String> {
    let config = json!({"discoveryAddress": "127.0.0.1:15012", "binaryPath": "/usr/local/bin/envoy"});
    let pairs = [
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("POD_NAME", "bench-1"),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", "10.77.0.2"),
        ("HOST_IP", "10.77.0.2"),
        ("SERVICE_ACCOUNT", "bench"),
        ("ISTIO_CPU_LIMIT", "2"),
        ("ISTIOD_SAN", "istiod.istio-system.svc"),
        ("TRUST_DOMAIN", "cluster.local"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_MESH_ID", "cluster.local"),
        ("ISTIO_META_NODE_NAME", "n1"),
        ("ISTIO_META_WORKLOAD_NAME", "bench"),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_META_POD_PORTS", "[]"),
        ("ISTIO_META_APP_CONTAINERS", "app"),
        ("ISTIO_KUBE_APP_PROBERS", "{}"),
        ("CLOUD_PLATFORM", "none"),
    ];
    let mut env: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    env.insert("PROXY_CONFIG".into(), config.to_string());
    env
}

/// What is different from the recorded input.
#[derive(Default)]
struct Change<'a> {
    env: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
    annotations: &'a [(&'a str, &'a str)],
    addresses: &'a [&'a str],
}

fn configured(change: &Change<'_>) -> (Config, Vec<String>) {
    let roots = tempfile::NamedTempFile::new().unwrap();
    let mut env = recorded();
    for name in ["XDS_ROOT_CA", "CA_ROOT_CA"] {
        env.insert(name.into(), roots.path().to_string_lossy().into_owned());
    }
    env.extend(change.env.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    let mut annotations = BTreeMap::from([("x".to_owned(), "y".to_owned())]);
    annotations.extend(change.annotations.iter().map(|(name, value)| ((*name).into(), (*value).into())));
    let line = ["istio-agent", "proxy", "sidecar", "--domain", "default.svc.cluster.local"];
    let line = line.iter().chain(change.flags).map(OsString::from);
    let args::Command::Proxy(args) = Args::read(line).unwrap().command else { panic!("another command") };
    let mut addresses: Vec<IpAddr> = vec!["10.77.0.2".parse().unwrap()];
    addresses.extend(change.addresses.iter().map(|ip| ip.parse::<IpAddr>().unwrap()));
    resolve(&Inputs {
        args: &args,
        env: &env,
        labels: &BTreeMap::from([("app".to_owned(), "bench".to_owned())]),
        annotations: &annotations,
        mesh_config: None,
        addresses: &addresses,
        root: Path::new("."),
        module_dirs: &[],
        log_as_json: false,
    })
    .unwrap()
}

fn bootstrap(change: &Change<'_>) -> Value {
    configured(change).0.envoy.unwrap().bootstrap.unwrap()
}

/// Takes out what differs by a rule, which must be there to be taken out, and
/// what says nothing: TCP is the default.
fn without_differences(file: &str, mut recorded: Value, mut ours: Value) -> (Value, Value) {
    let all: Vec<Value> = serde_json::from_str(DIFFERENCES).unwrap();
    for difference in all.iter().filter(|difference| difference["file"] == file) {
        let at = difference["at"].as_str().unwrap();
        assert_ne!(recorded.pointer(at), ours.pointer(at), "{at} does not differ any more");
        let (parent, name) = at.rsplit_once('/').unwrap();
        for value in [&mut recorded, &mut ours] {
            if let Some(Value::Object(fields)) = value.pointer_mut(parent) {
                fields.remove(name);
            }
        }
    }
    drop_tcp(&mut recorded);
    (recorded, ours)
}

fn drop_tcp(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !(name == "protocol" && value == "TCP"));
            fields.values_mut().for_each(drop_tcp);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_tcp),
        _ => {}
    }
}

/// The first places where two values differ.
fn differences(at: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let field = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
                match (field(a), field(b)) {
                    (Some(a), Some(b)) => differences(&format!("{at}/{name}"), &a, &b, found),
                    (a, b) => found.push(format!("{at}/{name}: {a:?} and {b:?}")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}/{index}"), a, b, found);
            }
        }
        (a, b) if a != b => found.push(format!("{at}: {a} and {b}")),
        _ => {}
    }
}

fn assert_equal(file: &str, recorded: &str, ours: Value) {
    let recorded = serde_json::from_str(recorded).unwrap();
    let (recorded, ours) = without_differences(file, recorded, ours);
    let mut found = Vec::new();
    differences("", &recorded, &ours, &mut found);
    assert!(found.is_empty(), "recorded and ours:\n{}", found.join("\n"));
}

#[test]
fn envoys_is_the_recorded_one() {
    let ours = bootstrap(&Change::default());
    assert_equal("envoy-rev.json", include_str!("bootstrap/envoy-rev.json"), ours);
}

#[test]
fn grpcs_is_the_recorded_one() {
    let (config, _) = configured(&Change::default());
    let ours = grpc_bootstrap::build(&config.node, Path::new("/etc/istio/proxy/XDS"), None);
    assert_equal("grpc-bootstrap.json", include_str!("bootstrap/grpc-bootstrap.json"), ours);
}

#[test]
fn grpcs_names_the_files_that_are_written() {
    let (config, _) = configured(&Change { env: &[("OUTPUT_CERTS", "/certs")], ..Change::default() });
    let grpc = config.grpc.unwrap();
    let ours = grpc_bootstrap::build(&config.node, Path::new("/x"), grpc.certificates.as_deref());
    let config = &ours["certificate_providers"]["default"]["config"];
    assert_eq!(config["private_key_file"], "/certs/key.pem");
    assert_eq!(config["refresh_interval"], "900s");
    let off = configured(&Change { env: &[("GRPC_XDS_BOOTSTRAP", "")], ..Change::default() });
    assert!(off.0.grpc.is_none());
}

/// A proxy configuration for the variants.
const REMOTES: &str = r#"{
  "discoveryAddress": "127.0.0.1:15012",
  "tracing": {"zipkin": {"address": "zipkin.ns:9411"}, "tlsSettings": {"mode": "SIMPLE", "caCertificates": "/ca.pem", "sni": "z"}},
  "envoyAccessLogService": {"address": "als:1", "tlsSettings": {"mode": "ISTIO_MUTUAL"}, "tcpKeepalive": {"time": "10s", "probes": 3}},
  "envoyMetricsService": {"address": "ms:1", "tlsSettings": {"mode": "MUTUAL", "clientCertificate": "/c.pem", "privateKey": "/k.pem", "caCertificates": "/ca.pem", "subjectAltNames": ["a"]}},
  "statsdUdpAddress": "127.0.0.1:8125",
  "statsCompression": false,
  "extraStatTags": ["mine"],
  "connectionSettings": {"globalDownstreamConnectionLimit": 77},
  "runtimeValues": {"envoy.reloadable_features.fixed_heap_use_allocated": "", "a.b": "true", "c": "7"},
  "fileFlushInterval": "2s", "fileFlushMinSizeKb": 16
}"#;

/// Every option at least once.
fn variants() -> Vec<(&'static str, Change<'static>)> {
    vec![
        ("plain", Change::default()),
        ("remotes", Change { env: &[("PROXY_CONFIG", REMOTES)], ..Change::default() }),
        (
            "datadog",
            Change {
                env: &[
                    ("PROXY_CONFIG", "tracing: {datadog: {address: '$(HOST_IP):8126'}}"),
                    ("ISTIO_DELTA_XDS", "false"),
                    ("METRICS_LOCALHOST_ACCESS_ONLY", "true"),
                    ("HTTP_STRIP_FRAGMENT_FROM_PATH_UNSAFE_IF_DISABLED", "false"),
                ],
                ..Change::default()
            },
        ),
        (
            "ports",
            Change {
                env: &[
                    ("ENVOY_SECURE_METRICS_PORT", "15091"),
                    ("ENVOY_SECURE_MERGED_METRICS_PORT", "15092"),
                    ("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL", "true"),
                    ("ISTIO_DUAL_STACK", "true"),
                    ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"),
                ],
                addresses: &["fd00::2"],
                ..Change::default()
            },
        ),
        (
            "managed",
            Change {
                env: &[
                    ("ISTIO_META_ENABLE_SELF_DISCOVERY", "true"),
                    (
                        "ISTIO_META_LOAD_STATS_CONFIG_JSON",
                        r#"{"api_type":"GRPC","transport_api_version":"V3","grpc_services":[{"envoy_grpc":{"cluster_name":"xds-grpc"}}]}"#,
                    ),
                    ("ISTIO_META_ENABLE_HBONE", "true"),
                    ("PEER_METADATA_DISCOVERY", "true"),
                ],
                flags: &["--outlierLogPath", "/dev/stdout"],
                annotations: &[
                    (
                        "sidecar.istio.io/statsHistogramBuckets",
                        r#"{"istiocustom":[1,5,10],"cluster.xds":[1]}"#,
                    ),
                    ("sidecar.istio.io/statsFlushInterval", "10s"),
                    ("sidecar.istio.io/statsEvictionInterval", "1m"),
                    ("sidecar.istio.io/statsInclusionPrefixes", "http.{pod_ip}_,x"),
                    ("sidecar.istio.io/statsInclusionSuffixes", "a"),
                    ("sidecar.istio.io/statsInclusionRegexps", "b.*"),
                    ("sidecar.istio.io/extraStatTags", "one,two"),
                ],
                ..Change::default()
            },
        ),
    ]
}

#[expect(clippy::disallowed_methods, reason = "the test's environment")]
fn envoy() -> Option<PathBuf> {
    let path = std::env::var(ENVOY).ok().map(PathBuf::from).filter(|path| path.is_file());
    let is_required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
    assert!(path.is_some() || !is_required, "{ENVOY} does not say where Envoy is; use scripts/test");
    path
}

#[test]
fn the_real_envoy_accepts_every_variant() {
    let Some(envoy) = envoy() else {
        eprintln!("{ENVOY} does not say where Envoy is: left out; use scripts/test");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for (name, change) in variants() {
        let (config, _) = configured(&change);
        let envoy_config = config.envoy.unwrap();
        let mut bootstrap = envoy_config.bootstrap.unwrap();
        late::files_only(&mut bootstrap, Path::new("./var/run/secrets/credential-uds/files-socket"));
        late::credentials(&mut bootstrap);
        late::platform(
            &mut bootstrap["node"],
            &["r".into()],
            &BTreeMap::from([("aws_region".into(), "r".into())]),
        );
        late::add_statsd(&mut bootstrap, "127.0.0.1".parse().unwrap(), 8125);
        let file = dir.path().join(format!("{name}.json"));
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let output = Command::new(&envoy)
            .args(["--mode", "validate", "-c"])
            .arg(&file)
            .args(&envoy_config.args[2..])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        let strange: Vec<&str> = said.lines().filter(|line| is_complaint(line)).collect();
        assert!(strange.is_empty(), "{name}:\n{}", strange.join("\n"));
    }
}

/// Envoy warns of what it does not know.
fn is_complaint(line: &str) -> bool {
    line.contains("nknown field") || line.contains("eprecated")
}

fn listener_names(bootstrap: &Value) -> Vec<&str> {
    let listeners = bootstrap["static_resources"]["listeners"].as_array().unwrap();
    listeners.iter().map(|listener| listener["name"].as_str().unwrap()).collect()
}

#[test]
fn the_variants_have_what_they_ask_for() {
    let all: BTreeMap<&str, Value> =
        variants().into_iter().map(|(name, change)| (name, bootstrap(&change))).collect();
    let remotes = &all["remotes"];
    let clusters = remotes["static_resources"]["clusters"].as_array().unwrap();
    let names: Vec<&str> = clusters.iter().map(|cluster| cluster["name"].as_str().unwrap()).collect();
    assert_eq!(names[4..], ["zipkin", "envoy_metrics_service", "envoy_accesslog_service"]);
    assert_eq!(clusters[6]["transport_socket"]["typed_config"]["sni"], "envoy_accesslog_service");
    assert_eq!(
        clusters[5]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificate_sds_secret_configs"]
            [0]["name"],
        "file-cert:/c.pem~/k.pem"
    );
    assert_eq!(remotes["stats_sinks"].as_array().unwrap().len(), 2);
    let (config, _) = configured(&Change { env: &[("PROXY_CONFIG", REMOTES)], ..Change::default() });
    let args = config.envoy.unwrap().args.join(" ");
    assert!(args.contains("--file-flush-interval-msec 2000 "), "{args}");
    assert!(args.contains("--file-flush-min-size-kb 16 "), "{args}");
    let limit = "/overload_manager/resource_monitors/0/typed_config/max_active_downstream_connections";
    assert_eq!(remotes.pointer(limit), Some(&json!(77)));
    assert!(!remotes["static_resources"]["listeners"].to_string().contains("compressor"));

    let datadog = &all["datadog"];
    let address = "/static_resources/clusters/4/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    assert_eq!(datadog.pointer(address), Some(&json!({"address": "10.77.0.2", "port_value": 8126})));
    assert_eq!(datadog["tracing"]["http"]["typed_config"]["service_name"], "bench.default");
    assert_eq!(listener_names(datadog)[0], "127.0.0.1_15090");

    let ports = &all["ports"];
    assert_eq!(listener_names(ports), ["0.0.0.0_15090", "0.0.0.0_15091", "0.0.0.0_15092", "0.0.0.0_15021"]);
    let second = "/static_resources/listeners/3/additional_addresses/0/address/socket_address/address";
    assert_eq!(ports.pointer(second), Some(&json!("::")));

    let managed = &all["managed"];
    assert_eq!(managed["cluster_manager"]["local_cluster_name"], "local_cluster");
    assert_eq!(managed["cluster_manager"]["outlier_detection"]["event_log_path"], "/dev/stdout");
    assert_eq!(
        (&managed["stats_flush_interval"], &managed["stats_eviction_interval"]),
        (&json!("10s"), &json!("60s"))
    );
    assert!(!managed.to_string().contains("metadata_discovery"), "stock Envoy lacks it");
}

#[test]
fn limits_have_an_order() {
    let limit = |env: &[(&str, &str)]| {
        let bootstrap = bootstrap(&Change { env, ..Change::default() });
        bootstrap["overload_manager"]["resource_monitors"][0]["typed_config"]["max_active_downstream_connections"].clone()
    };
    let metadata = "{proxyMetadata: {ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS: '5'}, runtimeValues: {overload.global_downstream_max_connections: '9'}}";
    let runtime = "{runtimeValues: {overload.global_downstream_max_connections: '9'}}";
    assert_eq!(limit(&[("PROXY_CONFIG", metadata)]), json!(5));
    assert_eq!(limit(&[("PROXY_CONFIG", runtime)]), json!(9));
    assert_eq!(limit(&[]), json!(2_147_483_647));
}
