//! From everything that was given to one [`Config`], or to all that is wrong.

mod envoy;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::proxy_config::{self, Layers};
use names::{NodeId, NodeType, SpiffeId, annotation, label, path, port};
use pki::key::Algorithm;
use proto::istio::mesh::v1alpha1::AuthenticationPolicy;
use proto::istio::mesh::v1alpha1::proxy_config::{ClusterName, InboundInterceptionMode};
use serde_json::{Map, Value, json};

use super::args::Proxy;
use super::env::{self, Reader};
use super::{Certificates, Config, Drain, Endpoint, Paths, ProxyConfig, Security, Status, node, unsupported};

/// Server name for addresses that no certificate holds.
const ISTIOD_NAME: &str = "istiod.istio-system.svc";
/// Roots of an older layout; they win when they are there.
const LEGACY_ROOTS: &str = "./etc/certs/root-cert.pem";
/// Where systems keep the roots they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;

/// Everything that is given to the agent.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Flags.
    pub args: &'a Proxy,
    /// Environment.
    pub env: &'a BTreeMap<String, String>,
    /// Labels of the pod.
    pub labels: &'a BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: &'a BTreeMap<String, String>,
    /// Text of the mesh configuration file, if it is there.
    pub mesh_config: Option<&'a str>,
    /// Addresses of the pod's interfaces.
    pub addresses: &'a [IpAddr],
    /// Directory that relative paths begin at.
    pub root: &'a Path,
    /// Logs are JSON.
    pub log_as_json: bool,
}

/// Resolves the configuration; returns warnings as well.
///
/// # Errors
/// Everything that is wrong, a line each.
pub fn resolve(inputs: &Inputs<'_>) -> Result<(Config, Vec<String>), Vec<String>> {
    let (mut proxy, mut warnings) = proxy_config(inputs)?;
    let metadata = proxy.proxy_metadata.clone();
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    let mut reader = Reader::new(inputs.env, &metadata);
    set_concurrency(&mut proxy, inputs.args, &mut reader);
    let paths = paths(inputs, &proxy, &reader);
    let identity = identity(&mut reader);
    let xds = xds(inputs, &proxy, &mut reader);
    let certificates = certificates(inputs, &proxy, &mut reader);
    let node = node(inputs, &proxy, &mut reader);
    let (drain, status) = lifecycle(&proxy, node.as_ref(), &mut reader);
    unsupported::refuse(inputs, &proxy, &mut reader);
    let envoy = node.as_ref().and_then(|node| envoy::envoy(inputs, &proxy, node, &paths, &mut reader));
    warnings.extend(reader.take_warnings());
    let errors = reader.into_errors();
    match (identity, node) {
        (Some(identity), Some(node)) if errors.is_empty() => {
            let config = Config { paths, proxy, identity, certificates, xds, node, envoy, drain, status };
            Ok((config, warnings))
        }
        _ => Err(errors),
    }
}

fn proxy_config(inputs: &Inputs<'_>) -> Result<(ProxyConfig, Vec<String>), Vec<String>> {
    let layers = Layers {
        mesh: inputs.mesh_config.map(|text| (inputs.args.mesh_config.as_str(), text)),
        env: inputs.env.get(env::PROXY_CONFIG.name).map(String::as_str),
        annotations: Some(inputs.annotations),
    };
    let (mut proxy, unknown) = proxy_config::resolve(&layers)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    if inputs.args.service_cluster != "istio-proxy" {
        proxy.cluster_name = Some(ClusterName::ServiceCluster(inputs.args.service_cluster.clone()));
    }
    let warnings = unknown.iter().map(|name| format!("unknown setting ignored: {name}")).collect();
    Ok((proxy, warnings))
}

fn set_concurrency(proxy: &mut ProxyConfig, args: &Proxy, reader: &mut Reader<'_>) {
    let limit: u32 = reader.parse(env::ISTIO_CPU_LIMIT, "a whole number of CPUs");
    let chosen = match (args.concurrency, &proxy.concurrency) {
        (0, Some(_)) => return,
        (0, None) => limit,
        (flag, _) => flag,
    };
    if chosen > 0 {
        let value = i32::try_from(chosen).unwrap_or(i32::MAX);
        proxy.concurrency = Some(pbjson_types::Int32Value { value });
    }
}

fn paths(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &Reader<'_>) -> Paths {
    let at = |path: &str| below(inputs.root, path);
    let config = at(&proxy.config_path);
    Paths {
        sds_socket: at(path::SDS_SOCKET_DIR).join(reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE)),
        ads_socket: config.join(path::ADS_SOCKET_NAME),
        bootstrap: config.join(path::BOOTSTRAP_NAME),
        token: at(path::TOKEN),
    }
}

/// Relative paths stay as they are in the working directory itself, because
/// Envoy gets to see them.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    if root == Path::new(".") { PathBuf::from(path) } else { root.join(path) }
}

fn identity(reader: &mut Reader<'_>) -> Option<SpiffeId> {
    let mut part = |variable: env::Variable| {
        let text = reader.text(variable);
        let parsed = format!("spiffe://{text}/ns/{text}/sa/{text}").parse::<SpiffeId>();
        if parsed.is_err() {
            reader.invalid(variable, text, "a name without '/', ',' and white space");
        }
        parsed.ok()
    };
    let domain = part(env::TRUST_DOMAIN);
    let namespace = part(env::POD_NAMESPACE);
    let account = part(env::SERVICE_ACCOUNT);
    Some(SpiffeId {
        trust_domain: domain?.trust_domain,
        namespace: namespace?.namespace,
        service_account: account?.service_account,
    })
}

fn xds(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Endpoint {
    let security = if proxy.control_plane_auth_policy == i32::from(AuthenticationPolicy::None) {
        Security::Plaintext
    } else {
        let legacy = below(inputs.root, LEGACY_ROOTS);
        let usual = if legacy.exists() { legacy } else { below(inputs.root, path::ISTIOD_ROOT_CERT) };
        Security::Tls { roots: roots(env::XDS_ROOT_CA, usual, reader) }
    };
    let address = proxy.discovery_address.clone();
    let server_name = reader.set(env::ISTIOD_SAN).map_or_else(|| server_name(&address), str::to_owned);
    let headers = headers(env::XDS_HEADER, reader);
    check_address("discoveryAddress of the ProxyConfig", &address, reader);
    Endpoint { address, server_name, security, headers }
}

fn certificates(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Certificates {
    let given = reader.set(env::CA_ADDR);
    let address = given.unwrap_or(&proxy.discovery_address).to_owned();
    if given.is_some() {
        check_address(env::CA_ADDR.name, &address, reader);
    }
    // The name override is for the discovery address only.
    let server_name = match reader.set(env::ISTIOD_SAN) {
        Some(name) if given.is_none() => name.to_owned(),
        _ => server_name(&address),
    };
    let security = if address.ends_with(&format!(":{}", port::ISTIOD_PLAINTEXT)) {
        Security::Plaintext
    } else {
        Security::Tls { roots: roots(env::CA_ROOT_CA, below(inputs.root, path::ISTIOD_ROOT_CERT), reader) }
    };
    let mut ratio = |variable| {
        reader.parse_with(variable, "a number from 0 to 1", |text| {
            text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
        })
    };
    let (grace_ratio, grace_jitter) =
        (ratio(env::SECRET_GRACE_PERIOD_RATIO), ratio(env::SECRET_GRACE_PERIOD_RATIO_JITTER));
    let ttl = reader.duration(env::SECRET_TTL);
    if ttl < Duration::from_secs(1) {
        let text = reader.text(env::SECRET_TTL);
        reader.invalid(env::SECRET_TTL, text, "at least 1s");
    }
    Certificates {
        ca: Endpoint { address, server_name, security, headers: headers(env::CA_HEADER, reader) },
        ttl,
        grace_ratio,
        grace_jitter,
        algorithm: algorithm(reader),
        signer: reader.with_prefix(env::META).remove("CERT_SIGNER").unwrap_or_default(),
    }
}

fn algorithm(reader: &mut Reader<'_>) -> Algorithm {
    let bits = reader.set(env::WORKLOAD_RSA_KEY_SIZE).and_then(|text| {
        let bits = text.parse().ok().filter(|bits| (MIN_RSA_BITS..=4096).contains(bits));
        if bits.is_none() {
            reader.invalid(env::WORKLOAD_RSA_KEY_SIZE, text, "a size from 2048 to 4096");
        }
        bits
    });
    let wants_ecdsa = match reader.set(env::ECC_SIGNATURE_ALGORITHM) {
        None => false,
        Some("ECDSA") => true,
        Some(text) => {
            reader.invalid(env::ECC_SIGNATURE_ALGORITHM, text, "ECDSA or nothing");
            false
        }
    };
    let curve = match reader.text(env::ECC_CURVE) {
        "P256" => Algorithm::EcdsaP256,
        "P384" => Algorithm::EcdsaP384,
        text => {
            reader.invalid(env::ECC_CURVE, text, "P256 or P384");
            Algorithm::EcdsaP256
        }
    };
    match bits {
        Some(bits) if !wants_ecdsa => Algorithm::Rsa(bits),
        _ => curve,
    }
}

fn roots(variable: env::Variable, usual: PathBuf, reader: &mut Reader<'_>) -> PathBuf {
    let given = reader.set(variable);
    let chosen = match given {
        None => usual,
        Some("SYSTEM") => {
            let found = SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists());
            PathBuf::from(found.unwrap_or(&SYSTEM_ROOTS[0]))
        }
        Some(path) => PathBuf::from(path),
    };
    if !chosen.exists() {
        reader.error(format!(
            "root certificates {}: no such file; mount the mesh's root there or name another file in {}",
            chosen.display(),
            variable.name
        ));
    }
    chosen
}

fn headers(prefix: &str, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in reader.with_prefix(prefix) {
        let header = name.to_ascii_lowercase();
        let valid = http::HeaderName::from_bytes(header.as_bytes()).is_ok()
            && http::HeaderValue::from_str(&value).is_ok();
        if valid {
            headers.insert(header, value);
        } else {
            reader.error(format!("{prefix}{name}: expected a name and a value that a header can have"));
        }
    }
    if let Some(cluster) = reader.with_prefix(env::META).remove("CLUSTER_ID")
        && http::HeaderValue::from_str(&cluster).is_ok()
    {
        headers.insert(names::header::CLUSTER_ID.into(), cluster);
    }
    headers
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn server_name(address: &str) -> String {
    let host = host(address);
    if host.contains("localhost") { ISTIOD_NAME.to_owned() } else { host.to_owned() }
}

fn check_address(what: &str, address: &str, reader: &mut Reader<'_>) {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if host(address).is_empty() || port.is_none() {
        reader.error(format!("{what} is {address:?}: expected HOST:PORT"));
    }
}

fn node(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Option<node::Node> {
    let node_type = match inputs.args.role.parse::<NodeType>() {
        Ok(node_type) => Some(node_type),
        Err(_) => {
            reader.error(format!("proxy role {:?}: expected sidecar or router", inputs.args.role));
            None
        }
    };
    let ips = ips(inputs, reader);
    let namespace = reader.text(env::POD_NAMESPACE).to_owned();
    let name = reader.text(env::POD_NAME).to_owned();
    if name.is_empty() {
        let name = env::POD_NAME.name;
        reader.warning(format!(
            "{name} is not set: istiod cannot tell which pod this is; set it to the pod's name"
        ));
    }
    let domain = if inputs.args.domain.is_empty() {
        format!("{namespace}.svc.cluster.local")
    } else {
        inputs.args.domain.clone()
    };
    let meta = reader.with_prefix(env::META);
    let owner =
        inputs.labels.get("app").or_else(|| meta.get("WORKLOAD_NAME")).map_or("istio-proxy", String::as_str);
    let cluster = match &proxy.cluster_name {
        Some(ClusterName::ServiceCluster(name)) if name != "istio-proxy" => name.clone(),
        _ => format!("{owner}.{namespace}"),
    };
    let mut metadata = node::metadata(inputs.labels, inputs.annotations, meta, meta_json(reader));
    let mut put = |name: &str, value: Value| drop(metadata.insert(name.into(), value));
    let joined: Vec<String> = ips.iter().map(ToString::to_string).collect();
    put("INSTANCE_IPS", json!(joined.join(",")));
    put("ISTIO_VERSION", json!(super::ISTIO_VERSION));
    put("METADATA_DISCOVERY", json!("false"));
    put("NAME", json!(name));
    put("NAMESPACE", json!(namespace));
    put("PILOT_SAN", json!([host(&proxy.discovery_address)]));
    put("PROXY_CONFIG", serde_json::to_value(proxy).unwrap_or_default());
    put("SERVICE_ACCOUNT", json!(reader.text(env::SERVICE_ACCOUNT)));
    put("WORKLOAD_IDENTITY_SOCKET_FILE", json!(reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE)));
    put("ENVOY_SKIP_DEPRECATED_LOGS", json!(reader.flag(env::ENVOY_SKIP_DEPRECATED_LOGS).to_string()));
    put("ENVOY_STATUS_PORT", json!(reader.parse::<u16>(env::ENVOY_STATUS_PORT, PORT)));
    put("ENVOY_PROMETHEUS_PORT", json!(reader.parse::<u16>(env::ENVOY_PROMETHEUS_PORT, PORT)));
    if reader.flag(env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS) {
        put("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", json!("true"));
    }
    let ip = *ips.first()?;
    Some(node::Node {
        id: NodeId { node_type: node_type?, ip, name, namespace, domain },
        cluster,
        locality: node::locality(inputs.labels.get(label::LOCALITY)),
        metadata,
        ips,
    })
}

const PORT: &str = "a port from 0 to 65535";

fn ips(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    if let Some(text) = reader.set(env::INSTANCE_IP) {
        match text.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => reader.invalid(env::INSTANCE_IP, text, "an IP address"),
        }
    }
    for ip in inputs.addresses {
        if !ips.contains(ip) {
            ips.push(*ip);
        }
    }
    if ips.is_empty() {
        reader.error("no address: set INSTANCE_IP, or give the pod an interface with an address".into());
    }
    ips
}

fn meta_json(reader: &mut Reader<'_>) -> Vec<Map<String, Value>> {
    let mut objects = Vec::new();
    for (name, text) in reader.with_prefix(env::META_JSON) {
        match serde_json::from_str(&text) {
            Ok(Value::Object(object)) => objects.push(object),
            _ => reader.error(format!("{}{name}={text:?}: expected a JSON object", env::META_JSON)),
        }
    }
    objects
}

fn lifecycle(proxy: &ProxyConfig, node: Option<&node::Node>, reader: &mut Reader<'_>) -> (Drain, Status) {
    let mut port = |what: &str, value: i32| {
        u16::try_from(value).unwrap_or_else(|_| {
            reader.error(format!("{what} of the ProxyConfig is {value}: expected {PORT}"));
            0
        })
    };
    let admin_port = port("proxyAdminPort", proxy.proxy_admin_port);
    let status_port = port("statusPort", proxy.status_port);
    let until_idle = reader.flag(env::EXIT_ON_ZERO_ACTIVE_CONNECTIONS);
    let minimum = reader.duration(env::MINIMUM_DRAIN_DURATION);
    let is_sidecar = node.is_none_or(|node| node.node_type() == NodeType::Sidecar);
    let tproxy = proxy.interception_mode == i32::from(InboundInterceptionMode::Tproxy)
        || node.is_some_and(|node| node.metadata.get("INTERCEPTION_MODE") == Some(&json!("TPROXY")));
    let drain = Drain {
        limit: proxy.termination_drain_duration.and_then(|span| span.to_std()).unwrap_or_default(),
        until_idle: until_idle.then_some(minimum),
        inbound_only: is_sidecar,
        counts_connections: is_sidecar && !tproxy,
        admin_port,
    };
    let status = Status {
        port: status_port,
        admin_port,
        metrics_localhost_only: reader.flag(env::METRICS_LOCALHOST_ACCESS_ONLY),
        ip: node.map_or(IpAddr::from([127, 0, 0, 1]), |node| node.id.ip),
    };
    (drain, status)
}

/// Interfaces whose addresses are not the pod's.
#[must_use]
pub fn excluded_interfaces(annotations: &BTreeMap<String, String>) -> Vec<String> {
    let list = annotations.get(annotation::EXCLUDE_INTERFACES).map_or("", String::as_str);
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
pub(super) mod tests;
