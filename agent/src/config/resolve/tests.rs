use std::time::Duration;

use clap::Parser;
use pki::key::Algorithm;
use serde_json::json;

use super::certificates::ISTIOD_NAME;
use super::*;
use crate::config::Security;
use crate::config::args::{Args, Command};

/// A pod's directory with a root certificate.
pub(in crate::config) fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(path::ISTIOD_ROOT_CERT);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "root").unwrap();
    dir
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

pub(in crate::config) fn with(
    root: &Path,
    line: &[&str],
    env: &[(&str, &str)],
    annotations: &[(&str, &str)],
) -> Result<(Config, Vec<String>), Vec<String>> {
    of(root, line, env, annotations, &[])
}

/// Of a sidecar whose module for Envoy is looked for in some directories.
pub(in crate::config) fn with_modules(
    root: &Path,
    env: &[(&str, &str)],
    module_dirs: &[PathBuf],
) -> Result<(Config, Vec<String>), Vec<String>> {
    of(root, LINE, env, &[], module_dirs)
}

fn of(
    root: &Path,
    line: &[&str],
    env: &[(&str, &str)],
    annotations: &[(&str, &str)],
    module_dirs: &[PathBuf],
) -> Result<(Config, Vec<String>), Vec<String>> {
    let Command::Proxy(args) = Args::try_parse_from(line).unwrap().command else { panic!() };
    let mut all = map(&[("INSTANCE_IP", "10.1.0.10"), ("POD_NAME", "web-1")]);
    all.extend(map(env));
    let labels = map(&[("app", "web"), ("pod-template-hash", "1")]);
    resolve(&Inputs {
        args: &args,
        env: &all,
        labels: &labels,
        annotations: &map(annotations),
        mesh_config: None,
        addresses: &["10.1.0.11".parse().unwrap()],
        module_dirs,
        root,
        log_as_json: false,
    })
}

pub(in crate::config) const LINE: &[&str] = &["istio-agent", "proxy"];

#[test]
fn defaults_are_those_of_a_sidecar() {
    let dir = root();
    let (config, warnings) = with(dir.path(), LINE, &[], &[]).unwrap();
    assert!(warnings.is_empty());
    assert_eq!(config.identity.to_string(), "spiffe://cluster.local/ns/default/sa/default");
    assert_eq!(config.xds.address, "istiod.istio-system.svc:15012");
    assert_eq!(config.xds.server_name, ISTIOD_NAME);
    assert_eq!(config.certificates.algorithm, Algorithm::EcdsaP256);
    assert_eq!(config.certificates.ttl, Duration::from_secs(86400));
    assert_eq!(config.node.id.to_string(), "sidecar~10.1.0.10~web-1.default~default.svc.cluster.local");
    assert_eq!(config.node.cluster, "web.default");
    assert_eq!(config.node.metadata["INSTANCE_IPS"], "10.1.0.10,10.1.0.11");
    assert_eq!(config.node.metadata["LABELS"], json!({"app": "web"}));
    assert_eq!(config.drain.limit, Some(Duration::from_secs(5)));
    let envoy = config.envoy.unwrap();
    assert_eq!(envoy.binary, Path::new("/usr/local/bin/envoy"));
    let args = envoy.args[2..].join(" ");
    assert_eq!(
        args,
        "--drain-time-s 45 --drain-strategy immediate --local-address-ip-version v4 \
         --file-flush-interval-msec 1000 --disable-hot-restart --allow-unknown-static-fields -l warning \
         --skip-deprecated-logs"
    );
}

#[test]
fn the_key_is_rsa_only_when_a_size_is_set() {
    let dir = root();
    let algorithm = |env: &[(&str, &str)]| with(dir.path(), LINE, env, &[]).unwrap().0.certificates.algorithm;
    assert_eq!(algorithm(&[("WORKLOAD_RSA_KEY_SIZE", "3072")]), Algorithm::Rsa(3072));
    assert_eq!(
        algorithm(&[("ECC_SIGNATURE_ALGORITHM", "ECDSA"), ("ECC_CURVE", "P384")]),
        Algorithm::EcdsaP384
    );
    let both = [("WORKLOAD_RSA_KEY_SIZE", "2048"), ("ECC_SIGNATURE_ALGORITHM", "ECDSA")];
    assert_eq!(algorithm(&both), Algorithm::EcdsaP256);
}

#[test]
fn the_server_name_follows_the_address() {
    let dir = root();
    let names = |env: &[(&str, &str)]| {
        let config = with(dir.path(), LINE, env, &[]).unwrap().0;
        (config.xds.server_name, config.certificates.ca.server_name)
    };
    let discovery = ("PROXY_CONFIG", "{discoveryAddress: 'a.b:15012'}");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(names(&[discovery]), pair("a.b", "a.b"));
    assert_eq!(names(&[discovery, ("ISTIOD_SAN", "x")]), pair("x", "x"));
    assert_eq!(names(&[discovery, ("ISTIOD_SAN", "x"), ("CA_ADDR", "c.d:15012")]), pair("x", "c.d"));
    assert_eq!(names(&[("CA_ADDR", "localhost:15012")]), pair(ISTIOD_NAME, ISTIOD_NAME));
}

#[test]
fn plaintext_is_chosen_by_port_and_policy() {
    let dir = root();
    let env = [("PROXY_CONFIG", "controlPlaneAuthPolicy: NONE"), ("CA_ADDR", "istiod:15010")];
    let (config, _) = with(dir.path(), LINE, &env, &[]).unwrap();
    assert_eq!(config.xds.security, Security::Plaintext);
    assert_eq!(config.certificates.ca.security, Security::Plaintext);
}

#[test]
fn threads_come_from_flag_configuration_and_limit_in_this_order() {
    let dir = root();
    let threads = |line: &[&str], env: &[(&str, &str)]| {
        with(dir.path(), line, env, &[]).unwrap().0.proxy.concurrency.map(|value| value.value)
    };
    let limit = ("ISTIO_CPU_LIMIT", "2");
    let config = ("PROXY_CONFIG", "concurrency: 3");
    assert_eq!(threads(LINE, &[]), None);
    assert_eq!(threads(LINE, &[limit]), Some(2));
    assert_eq!(threads(LINE, &[limit, config]), Some(3));
    assert_eq!(threads(&["istio-agent", "proxy", "--concurrency", "4"], &[limit, config]), Some(4));
}

#[test]
fn all_errors_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("SECRET_TTL", "soon"),
        ("WORKLOAD_RSA_KEY_SIZE", "1024"),
        ("SERVICE_ACCOUNT", "a/b"),
        ("ISTIO_BOOTSTRAP", "/template"),
        ("CA_ADDR", "nowhere"),
        ("INSTANCE_IP", "ten"),
        ("ISTIO_METAJSON_X", "[]"),
        ("SECRET_GRACE_PERIOD_RATIO", "2"),
    ];
    let errors = with(dir.path(), &["istio-agent", "proxy", "waypoint"], &env, &[]).unwrap_err();
    let all = errors.join("\n");
    for part in [
        "SECRET_TTL=\"soon\": expected a duration",
        "WORKLOAD_RSA_KEY_SIZE=\"1024\": expected a size from 2048 to 4096",
        "SERVICE_ACCOUNT=\"a/b\": expected a name without '/'",
        "ISTIO_BOOTSTRAP=\"/template\": bootstrap templates are not supported",
        "CA_ADDR is \"nowhere\": expected HOST:PORT",
        "INSTANCE_IP=\"ten\": expected an IP address",
        "ISTIO_METAJSON_X=\"[]\": expected a JSON object",
        "SECRET_GRACE_PERIOD_RATIO=\"2\": expected a number from 0 to 1",
        "proxy role \"waypoint\": not supported: a waypoint needs",
        "root-cert.pem: no such file",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
}

#[test]
fn a_proxy_config_that_is_no_yaml_names_its_layer() {
    let dir = root();
    let errors = with(dir.path(), LINE, &[("PROXY_CONFIG", "a: [")], &[]).unwrap_err();
    assert!(errors[0].starts_with("environment variable PROXY_CONFIG: "), "{}", errors[0]);
    let (_, warnings) = with(dir.path(), LINE, &[("PROXY_CONFIG", "noSuchField: 1")], &[]).unwrap();
    assert!(warnings[0].contains("noSuchField"));
}

#[test]
fn headers_carry_the_cluster() {
    let dir = root();
    let env = [("ISTIO_META_CLUSTER_ID", "k1"), ("XDS_HEADER_X-TEAM", "a"), ("CA_HEADER_X-CA", "b")];
    let (config, _) = with(dir.path(), LINE, &env, &[]).unwrap();
    assert_eq!(config.xds.headers, map(&[("clusterid", "k1"), ("x-team", "a")]));
    assert_eq!(config.certificates.ca.headers, map(&[("clusterid", "k1"), ("x-ca", "b")]));
}
