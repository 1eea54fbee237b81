//! Certificates: the workload's, and those of connections to the control plane.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use names::{path, port};
use pki::key::{Algorithm, Format};
use proto::istio::mesh::v1alpha1::AuthenticationPolicy;

use super::super::ProxyConfig;
use super::super::certificates::{Certificates, ClientPair, Endpoint, Files, Output, Security, Source};
use super::super::env::{self, Reader};
use super::{Inputs, below};
use crate::identity::roots;

/// Server name for addresses that no certificate holds.
pub(super) const ISTIOD_NAME: &str = "istiod.istio-system.svc";
/// Fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2048;
/// Most bits of an RSA key: the library signs with no longer ones.
const MAX_RSA_BITS: usize = 4096;
/// Key and certificates of an older layout, where `FILE_MOUNTED_CERTS` and its
/// like look for them.
const LEGACY: [&str; 3] = ["./etc/certs/cert-chain.pem", "./etc/certs/key.pem", "./etc/certs/root-cert.pem"];
/// Directory of [`LEGACY`].
const LEGACY_DIR: &str = "./etc/certs";
/// Key and certificates that another program of the pod's node brings.
const WORKLOAD: [&str; 3] = [
    "./var/run/secrets/workload-spiffe-credentials/cert-chain.pem",
    "./var/run/secrets/workload-spiffe-credentials/key.pem",
    "./var/run/secrets/workload-spiffe-credentials/root-cert.pem",
];
/// The same as GKE names them.
const GKE: [&str; 3] = [
    "./var/run/secrets/workload-spiffe-credentials/certificates.pem",
    "./var/run/secrets/workload-spiffe-credentials/private_key.pem",
    "./var/run/secrets/workload-spiffe-credentials/ca_certificates.pem",
];
/// Value of `CA_PROVIDER` for [`GKE`].
const GKE_PROVIDER: &str = "GkeWorkloadCertificate";
/// Value of `CA_ROOT_CA` and `XDS_ROOT_CA` for the roots that the system trusts.
const SYSTEM: &str = "SYSTEM";
/// Mode of written files: for this user.
const OWN_MODE: u32 = 0o600;
/// The same in Kubernetes, where other containers of the pod read them too.
const SHARED_MODE: u32 = 0o644;

/// The connection for xDS.
pub(super) fn xds(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) -> Endpoint {
    let security = if proxy.control_plane_auth_policy == i32::from(AuthenticationPolicy::None) {
        Security::Plaintext
    } else {
        let roots = xds_roots(inputs, reader);
        Security::Tls { roots, client: xds_client(inputs, reader) }
    };
    let address = proxy.discovery_address.clone();
    let server_name = reader.set(env::ISTIOD_SAN).map_or_else(|| server_name(&address), str::to_owned);
    let headers = headers(env::XDS_HEADER, reader);
    check_address("discoveryAddress of the ProxyConfig", &address, reader);
    Endpoint { address, server_name, security, headers }
}

/// The workload's certificate.
pub(super) fn certificates(
    inputs: &Inputs<'_>,
    proxy: &ProxyConfig,
    reader: &mut Reader<'_>,
) -> Certificates {
    let output = output(inputs, reader);
    let source = source(inputs, output.as_ref(), reader);
    let ca = ca(inputs, proxy, &source, reader);
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
    tokens(reader);
    let legacy = below(inputs.root, LEGACY[2]);
    let is_own = source == Source::Csr && is_filled(&legacy) && !writes_to_legacy(inputs, output.as_ref());
    Certificates {
        own_roots: is_own.then_some(legacy),
        more_roots: proxy.ca_certificates_pem.clone(),
        roots_over_xds: reader.flag(env::PROXY_CONFIG_XDS_AGENT),
        source,
        ca,
        ttl,
        grace_ratio,
        grace_jitter,
        algorithm: algorithm(reader),
        format: if reader.flag(env::PKCS8_KEY) { Format::Pkcs8 } else { Format::Traditional },
        signer: reader.with_prefix(env::META).remove("CERT_SIGNER").unwrap_or_default(),
        output,
    }
}

fn output(inputs: &Inputs<'_>, reader: &Reader<'_>) -> Option<Output> {
    let dir = below(inputs.root, reader.set(env::OUTPUT_CERTS)?);
    let is_shared = reader.set(env::KUBERNETES_SERVICE_HOST).is_some();
    Some(Output { dir, mode: if is_shared { SHARED_MODE } else { OWN_MODE } })
}

fn source(inputs: &Inputs<'_>, output: Option<&Output>, reader: &mut Reader<'_>) -> Source {
    let files = |[chain, key, roots]: [&str; 3]| Files {
        chain: below(inputs.root, chain),
        key: below(inputs.root, key),
        roots: below(inputs.root, roots),
    };
    let is_gke = reader.text(env::CA_PROVIDER) == GKE_PROVIDER;
    let is_mounted = reader.flag(env::FILE_MOUNTED_CERTS);
    if is_mounted && reader.set(env::PROV_CERT).is_some() {
        reader.error(
            "PROV_CERT and FILE_MOUNTED_CERTS: only one of them can be; unset PROV_CERT when the \
             workload's certificate comes from files, FILE_MOUNTED_CERTS when it comes from the CA"
                .into(),
        );
    }
    if WORKLOAD.iter().all(|path| below(inputs.root, path).exists()) {
        return Source::Files(files(WORKLOAD));
    }
    if is_gke {
        if let Some(missing) = GKE.iter().find(|path| !below(inputs.root, path).exists()) {
            reader.error(format!(
                "CA_PROVIDER={GKE_PROVIDER:?}: no file {missing}; mount GKE's workload certificates, or unset it"
            ));
        }
        return Source::Files(files(GKE));
    }
    let writes = writes_to_legacy(inputs, output);
    if is_mounted && writes {
        reader.error(format!(
            "OUTPUT_CERTS and FILE_MOUNTED_CERTS: {LEGACY_DIR} would be read and written; name another directory in OUTPUT_CERTS"
        ));
    }
    let is_there = !writes && LEGACY[..2].iter().all(|path| is_filled(&below(inputs.root, path)));
    if is_mounted || is_there { Source::Files(files(LEGACY)) } else { Source::Csr }
}

/// What the agent writes itself is not read back: it would never be renewed.
fn writes_to_legacy(inputs: &Inputs<'_>, output: Option<&Output>) -> bool {
    let real = |path: PathBuf| path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path);
    output.is_some_and(|output| real(output.dir.clone()) == real(below(inputs.root, LEGACY_DIR)))
}

fn is_filled(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() > 0)
}

fn ca(inputs: &Inputs<'_>, proxy: &ProxyConfig, source: &Source, reader: &mut Reader<'_>) -> Endpoint {
    let given = reader.set(env::CA_ADDR);
    let address = given.unwrap_or(&proxy.discovery_address).to_owned();
    if given.is_some() {
        check_address(env::CA_ADDR.name, &address, reader);
    }
    if address.contains("googleapis.com") {
        reader.error(format!(
            "CA address {address:?}: Google's CA service is not supported; name in CA_ADDR a CA that speaks istio.v1.auth.IstioCertificateService"
        ));
    }
    // The name override is for the discovery address only.
    let server_name = match reader.set(env::ISTIOD_SAN) {
        Some(name) if given.is_none() => name.to_owned(),
        _ => server_name(&address),
    };
    let security = if address.ends_with(&format!(":{}", port::ISTIOD_PLAINTEXT)) {
        Security::Plaintext
    } else {
        Security::Tls { roots: ca_roots(inputs, source, reader), client: provisioned(inputs, reader) }
    };
    Endpoint { address, server_name, security, headers: headers(env::CA_HEADER, reader) }
}

/// What `PROV_CERT` names.
fn provisioned(inputs: &Inputs<'_>, reader: &Reader<'_>) -> Option<ClientPair> {
    let dir = below(inputs.root, reader.set(env::PROV_CERT)?);
    Some(ClientPair { chain: dir.join("cert-chain.pem"), key: dir.join("key.pem") })
}

fn xds_client(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> Option<ClientPair> {
    if let Some(pair) = provisioned(inputs, reader) {
        return Some(pair);
    }
    if !has_mounted(inputs, reader) {
        return None;
    }
    let (key, chain) = (env::ISTIO_META_TLS_CLIENT_KEY, env::ISTIO_META_TLS_CLIENT_CERT_CHAIN);
    match (reader.set(key), reader.set(chain)) {
        (Some(key), Some(chain)) => {
            Some(ClientPair { chain: below(inputs.root, chain), key: below(inputs.root, key) })
        }
        (None, None) => None,
        _ => {
            reader.error(format!("{} and {}: set both or none", key.name, chain.name));
            None
        }
    }
}

/// The workload's certificate is in files because somebody said so.
fn has_mounted(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> bool {
    reader.flag(env::FILE_MOUNTED_CERTS)
        || reader.text(env::CA_PROVIDER) == GKE_PROVIDER
        || WORKLOAD.iter().all(|path| below(inputs.root, path).exists())
}

fn ca_roots(inputs: &Inputs<'_>, source: &Source, reader: &mut Reader<'_>) -> PathBuf {
    let given = given_roots(env::CA_ROOT_CA, inputs, reader);
    let provider = reader.text(env::PILOT_CERT_PROVIDER);
    let is_checked = *source == Source::Csr && !may_be_external(inputs, reader);
    let roots = match (given, provider, reader.set(env::PROV_CERT)) {
        (Some(given), ..) => given,
        (None, "custom", _) => below(inputs.root, LEGACY[2]),
        // It may be put there after the start.
        (None, _, Some(dir)) => return below(inputs.root, dir).join("root-cert.pem"),
        (None, "none", None) => {
            if is_checked {
                reader.error("PILOT_CERT_PROVIDER=\"none\": nothing authenticates the CA; name a file with its roots in CA_ROOT_CA".into());
            }
            return below(inputs.root, path::ISTIOD_ROOT_CERT);
        }
        (None, _, None) => below(inputs.root, path::ISTIOD_ROOT_CERT),
    };
    if is_checked {
        check_roots(&roots, env::CA_ROOT_CA, reader);
    }
    roots
}

fn xds_roots(inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> PathBuf {
    let legacy = below(inputs.root, LEGACY[2]);
    let roots = if let Some(given) = given_roots(env::XDS_ROOT_CA, inputs, reader) {
        given
    } else if legacy.is_file() {
        legacy
    } else if let Some(dir) = reader.set(env::PROV_CERT) {
        // It may be put there after the start.
        return below(inputs.root, dir).join("root-cert.pem");
    } else if let (true, Some(path)) =
        (has_mounted(inputs, reader), reader.set(env::ISTIO_META_TLS_CLIENT_ROOT_CERT))
    {
        below(inputs.root, path)
    } else if reader.text(env::PILOT_CERT_PROVIDER) == "none" {
        reader.error("PILOT_CERT_PROVIDER=\"none\": nothing authenticates istiod; name a file with its roots in XDS_ROOT_CA".into());
        return below(inputs.root, path::ISTIOD_ROOT_CERT);
    } else {
        below(inputs.root, path::ISTIOD_ROOT_CERT)
    };
    check_roots(&roots, env::XDS_ROOT_CA, reader);
    roots
}

/// Whether another SDS server may turn out to bring the certificate, so that
/// there is no CA to be authenticated.
fn may_be_external(inputs: &Inputs<'_>, reader: &Reader<'_>) -> bool {
    let name = reader.text(env::WORKLOAD_IDENTITY_SOCKET_FILE);
    name != env::WORKLOAD_IDENTITY_SOCKET_FILE.default
        || below(inputs.root, path::SDS_SOCKET_DIR).join(name).exists()
}

fn given_roots(variable: env::Variable, inputs: &Inputs<'_>, reader: &mut Reader<'_>) -> Option<PathBuf> {
    match reader.set(variable)? {
        SYSTEM => Some(roots::system().map_or_else(
            || {
                let all = roots::SYSTEM.join(", ");
                reader.invalid(variable, SYSTEM, format!("one of the files {all} on this system"));
                PathBuf::from(roots::SYSTEM[0])
            },
            PathBuf::from,
        )),
        path => Some(below(inputs.root, path)),
    }
}

fn check_roots(path: &Path, variable: env::Variable, reader: &mut Reader<'_>) {
    if !path.is_file() {
        reader.error(format!(
            "root certificates {}: no such file; mount the mesh's root there or name another file in {}",
            path.display(),
            variable.name
        ));
    }
}

/// Kinds of tokens that Istio knows and that are one here.
fn tokens(reader: &mut Reader<'_>) {
    let policy = reader.text(env::JWT_POLICY);
    if policy != env::JWT_POLICY.default {
        reader.warning(format!(
            "JWT_POLICY={policy:?} has no effect: the token of {} is sent, whose audience is istio-ca",
            path::TOKEN
        ));
    }
}

fn algorithm(reader: &mut Reader<'_>) -> Algorithm {
    let bits = reader.set(env::WORKLOAD_RSA_KEY_SIZE).and_then(|text| {
        let bits = text.parse().ok().filter(|bits| (MIN_RSA_BITS..=MAX_RSA_BITS).contains(bits));
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

pub(super) fn host(address: &str) -> &str {
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

#[cfg(test)]
mod tests;
