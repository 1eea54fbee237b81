use std::path::{Path, PathBuf};

use pki::key::Format;

use super::*;
use crate::config::Config;
use crate::config::resolve::tests::{LINE, root, with};

fn write(root: &Path, path: &str) {
    let file = root.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, "text").unwrap();
}

fn resolved(root: &Path, env: &[(&str, &str)]) -> Config {
    with(root, LINE, env, &[]).unwrap().0
}

/// The roots for the CA and for xDS, below `root`.
fn roots(root: &Path, env: &[(&str, &str)]) -> (PathBuf, PathBuf) {
    let of = |security: Security| match security {
        Security::Tls { roots, .. } => roots.strip_prefix(root).map(PathBuf::from).unwrap_or(roots),
        Security::Plaintext => panic!(),
    };
    let config = resolved(root, env);
    (of(config.certificates.ca.security), of(config.xds.security))
}

fn error(root: &Path, env: &[(&str, &str)]) -> String {
    with(root, LINE, env, &[]).unwrap_err().join("\n")
}

const ISTIO: &str = "var/run/secrets/istio/root-cert.pem";
const LEGACY_ROOT: &str = "etc/certs/root-cert.pem";

#[test]
fn roots_are_chosen_in_order() {
    let dir = root();
    let at = dir.path();
    let pair = |a: &str, b: &str| (PathBuf::from(a), PathBuf::from(b));
    assert_eq!(roots(at, &[]), pair(ISTIO, ISTIO));
    let prov = ("PROV_CERT", "/prov");
    assert_eq!(roots(at, &[prov]), pair("/prov/root-cert.pem", "/prov/root-cert.pem"), "not checked");
    write(at, LEGACY_ROOT);
    assert_eq!(roots(at, &[]), pair(ISTIO, LEGACY_ROOT));
    assert_eq!(roots(at, &[prov]), pair("/prov/root-cert.pem", LEGACY_ROOT));
    let custom = ("PILOT_CERT_PROVIDER", "custom");
    assert_eq!(roots(at, &[prov, custom]), pair(LEGACY_ROOT, LEGACY_ROOT));
    write(at, "ca.pem");
    write(at, "xds.pem");
    let given = [prov, custom, ("CA_ROOT_CA", "ca.pem"), ("XDS_ROOT_CA", "xds.pem")];
    assert_eq!(roots(at, &given), pair("ca.pem", "xds.pem"));
    if let Some(system) = roots::system() {
        let env = [("CA_ROOT_CA", "SYSTEM"), ("XDS_ROOT_CA", "SYSTEM")];
        assert_eq!(roots(at, &env), (system.into(), system.into()));
    }
}

#[test]
fn roots_that_are_not_there_are_told_unless_nobody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let text = error(dir.path(), &[]);
    assert!(text.contains("name another file in CA_ROOT_CA"), "{text}");
    assert!(text.contains("name another file in XDS_ROOT_CA"), "{text}");
    let text = error(dir.path(), &[("CA_ROOT_CA", "/none/ca.pem")]);
    assert!(text.contains("/none/ca.pem: no such file"), "{text}");
    let text = error(dir.path(), &[("PILOT_CERT_PROVIDER", "none")]);
    assert!(text.contains("name a file with its roots in CA_ROOT_CA"), "{text}");
    write(dir.path(), "xds.pem");
    let mounted = [("FILE_MOUNTED_CERTS", "true"), ("XDS_ROOT_CA", "xds.pem")];
    assert!(with(dir.path(), LINE, &mounted, &[]).is_ok(), "there is no CA");
}

#[test]
fn certificates_of_ones_own_are_for_the_ca_and_xds() {
    let dir = root();
    let client = |security: &Security| match security {
        Security::Tls { client, .. } => client.clone().map(|pair| (pair.chain, pair.key)),
        Security::Plaintext => panic!(),
    };
    let clients = |env: &[(&str, &str)]| {
        let config = resolved(dir.path(), env);
        (client(&config.certificates.ca.security), client(&config.xds.security))
    };
    assert_eq!(clients(&[]), (None, None));
    let pair = Some((PathBuf::from("/prov/cert-chain.pem"), PathBuf::from("/prov/key.pem")));
    assert_eq!(clients(&[("PROV_CERT", "/prov")]), (pair.clone(), pair));
    let tls = [
        ("ISTIO_META_TLS_CLIENT_KEY", "/c/key"),
        ("ISTIO_META_TLS_CLIENT_CERT_CHAIN", "/c/chain"),
        ("ISTIO_META_TLS_CLIENT_ROOT_CERT", ISTIO),
    ];
    assert_eq!(clients(&tls), (None, None), "only with FILE_MOUNTED_CERTS");
    let mounted = [&tls[..], &[("FILE_MOUNTED_CERTS", "true")]].concat();
    assert_eq!(clients(&mounted), (None, Some((PathBuf::from("/c/chain"), PathBuf::from("/c/key")))));
    let text = error(dir.path(), &mounted[1..]);
    assert!(text.contains("ISTIO_META_TLS_CLIENT_CERT_CHAIN: set both or none"), "{text}");
}

#[test]
fn the_certificate_comes_from_files_when_they_are_there_or_asked_for() {
    let dir = root();
    let at = dir.path();
    let source = |env: &[(&str, &str)]| match resolved(at, env).certificates.source {
        Source::Csr => "CA".to_owned(),
        Source::Files(files) => format!("./{}", files.chain.strip_prefix(at).unwrap().display()),
        Source::External => panic!("decided later"),
    };
    assert_eq!(source(&[]), "CA");
    assert_eq!(source(&[("FILE_MOUNTED_CERTS", "true")]), LEGACY[0]);
    write(at, LEGACY[0]);
    assert_eq!(source(&[]), "CA", "a certificate without a key");
    write(at, LEGACY[1]);
    assert_eq!(source(&[]), LEGACY[0]);
    for out in ["etc/certs", "./etc/certs/", "etc/../etc/certs"] {
        assert_eq!(source(&[("OUTPUT_CERTS", out)]), "CA", "{out} is not read back");
    }
    assert_eq!(source(&[("OUTPUT_CERTS", "etc/other")]), LEGACY[0]);
    let text = error(at, &[("CA_PROVIDER", GKE_PROVIDER)]);
    assert!(text.contains("certificates.pem; mount GKE's"), "{text}");
    GKE.iter().for_each(|path| write(at, path));
    assert_eq!(source(&[("CA_PROVIDER", GKE_PROVIDER)]), GKE[0]);
    WORKLOAD.iter().for_each(|path| write(at, path));
    assert_eq!(source(&[]), WORKLOAD[0]);
}

#[test]
fn what_excludes_each_other_is_told() {
    let dir = root();
    let text = error(dir.path(), &[("PROV_CERT", "/prov"), ("FILE_MOUNTED_CERTS", "true")]);
    assert!(text.contains("PROV_CERT and FILE_MOUNTED_CERTS: only one of them"), "{text}");
    let text = error(dir.path(), &[("OUTPUT_CERTS", "etc/certs"), ("FILE_MOUNTED_CERTS", "true")]);
    assert!(text.contains("name another directory in OUTPUT_CERTS"), "{text}");
    let text = error(dir.path(), &[("CA_ADDR", "privateca.googleapis.com:443")]);
    assert!(text.contains("Google's CA service is not supported"), "{text}");
    let text = error(dir.path(), &[("FILE_MOUNTED_CERTS", "perhaps")]);
    assert_eq!(text.matches("FILE_MOUNTED_CERTS=\"perhaps\"").count(), 1, "{text}");
}

#[test]
fn roots_of_the_older_layout_are_those_of_the_workload() {
    let dir = root();
    let own = |env: &[(&str, &str)]| resolved(dir.path(), env).certificates.own_roots;
    assert_eq!(own(&[]), None);
    write(dir.path(), LEGACY_ROOT);
    assert_eq!(own(&[]), Some(dir.path().join(LEGACY_ROOT)));
    assert_eq!(own(&[("OUTPUT_CERTS", "etc/certs")]), None, "the agent wrote them itself");
}

#[test]
fn key_encoding_and_modes_of_files_follow_the_environment() {
    let dir = root();
    let certificates = |env: &[(&str, &str)]| resolved(dir.path(), env).certificates;
    assert_eq!(certificates(&[]).format, Format::Traditional);
    assert_eq!(certificates(&[("PKCS8_KEY", "true")]).format, Format::Pkcs8);
    assert_eq!(certificates(&[]).output, None);
    let output = Output { dir: "/out".into(), mode: 0o600 };
    assert_eq!(certificates(&[("OUTPUT_CERTS", "/out")]).output, Some(output.clone()));
    let env = [("OUTPUT_CERTS", "/out"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    assert_eq!(certificates(&env).output, Some(Output { mode: 0o644, ..output }));
}

#[test]
fn other_token_policies_are_warned_of() {
    let dir = root();
    let (_, warnings) = with(dir.path(), LINE, &[("JWT_POLICY", "first-party-jwt")], &[]).unwrap();
    assert!(warnings.iter().any(|text| text.starts_with("JWT_POLICY=\"first-party-jwt\" has no effect")));
}
