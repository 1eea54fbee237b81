//! Rules of a server's TLS.

use proto::istio::networking::v1alpha3::ServerTlsSettings;
use proto::istio::networking::v1alpha3::server_tls_settings::{TlSmode as TlsMode, TlsProtocol};

use crate::validate::Checker;
use crate::validate::tls::{CURVES, is_suite};

pub(in crate::kind) fn check(at: &str, tls: &ServerTlsSettings, checker: &mut Checker) {
    parameters(at, tls, checker);
    match tls.mode() {
        TlsMode::IstioMutual => return mesh(at, tls, checker),
        TlsMode::Passthrough | TlsMode::AutoPassthrough => {
            if has_certificates(tls) || !tls.ca_crl.is_empty() || !tls.ca_certificates.is_empty() {
                let mode = tls.mode().as_str_name();
                checker.warn(at, format!("mode {mode} ends no TLS, so certificates have no effect"));
            }
        }
        TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual => {}
    }
    let has_files = !tls.server_certificate.is_empty() && !tls.private_key.is_empty();
    let sources = [
        ("serverCertificate and privateKey", has_files),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ];
    let given: Vec<&str> = sources.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
    if given.len() > 1 {
        checker.error(at, format!("has certificates from {}: keep one of these", given.join(" and ")));
    }
    for (index, name) in tls.credential_names.iter().enumerate() {
        credential(&format!("{at}.credentialNames[{index}]"), name, checker);
    }
    for (field, name) in
        [("credentialName", &tls.credential_name), ("caCertCredentialName", &tls.ca_cert_credential_name)]
    {
        if !name.is_empty() {
            credential(&format!("{at}.{field}"), name, checker);
        }
    }
    if !matches!(tls.mode(), TlsMode::Simple | TlsMode::Mutual | TlsMode::OptionalMutual) {
        return;
    }
    let is_mutual = tls.mode() != TlsMode::Simple;
    let by_name = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    if !by_name {
        files(at, tls, is_mutual, checker);
        if !tls.ca_crl.is_empty() && !is_mutual {
            checker.error(
                format!("{at}.caCrl"),
                "has no effect in mode SIMPLE, which asks for no client certificate",
            );
        }
    } else if !tls.ca_crl.is_empty() {
        let message = "has no effect beside credentialName: put the list into the Secret, as ca.crl";
        checker.error(format!("{at}.caCrl"), message);
    }
    clients(at, tls, is_mutual, by_name, checker);
}

/// What is asked of client certificates.
fn clients(at: &str, tls: &ServerTlsSettings, is_mutual: bool, by_name: bool, checker: &mut Checker) {
    let skips = tls.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value);
    for (name, is_set) in [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("verifyCertificateSpki", !tls.verify_certificate_spki.is_empty()),
        ("verifyCertificateHash", !tls.verify_certificate_hash.is_empty()),
        ("insecureSkipVerify", skips),
    ] {
        if is_set && !is_mutual {
            let message = "has no effect in mode SIMPLE, which asks for no client certificate: use MUTUAL";
            checker.warn(format!("{at}.{name}"), message);
        }
    }
    for (index, hash) in tls.verify_certificate_hash.iter().enumerate() {
        let digits: String = hash.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let message = format!("{hash:?} is no SHA-256 of a certificate: expected 64 hexadecimal digits");
            checker.error(format!("{at}.verifyCertificateHash[{index}]"), message);
        }
    }
    for (index, hash) in tls.verify_certificate_spki.iter().enumerate() {
        // 32 bytes in base64.
        let is_base64 = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/');
        let fits = hash.len() == 44 && hash.ends_with('=') && hash.bytes().take(43).all(is_base64);
        if !fits {
            let message = format!("{hash:?} is no SHA-256 of a public key: expected 44 characters of base64");
            checker.error(format!("{at}.verifyCertificateSpki[{index}]"), message);
        }
    }
    let verifies = !tls.verify_certificate_spki.is_empty() || !tls.verify_certificate_hash.is_empty();
    if verifies && !by_name && is_mutual {
        let message = "hashes of certificates have an effect beside credentialName only";
        checker.warn(at, message);
    }
}

/// Certificates in files of the proxy.
fn files(at: &str, tls: &ServerTlsSettings, is_mutual: bool, checker: &mut Checker) {
    let mode = tls.mode().as_str_name();
    if is_mutual && tls.ca_certificates.is_empty() {
        let message = format!("is missing: mode {mode} needs the certificates that sign those of clients");
        checker.error(format!("{at}.caCertificates"), message);
    }
    if tls.tls_certificates.len() > 2 {
        checker
            .warn(format!("{at}.tlsCertificates"), "only one RSA and one ECDSA certificate have an effect");
    }
    let mut need = |field: String, value: &str, what: &str| {
        if value.is_empty() {
            checker.error(field, format!("is missing: mode {mode} needs {what}, or credentialName"));
        } else if value.contains('~') {
            checker.error(
                field,
                format!("{value:?} has a \"~\", which separates the files in names: rename the file"),
            );
        }
    };
    if tls.tls_certificates.is_empty() {
        need(format!("{at}.serverCertificate"), &tls.server_certificate, "a certificate");
        need(format!("{at}.privateKey"), &tls.private_key, "its key");
    }
    for (index, one) in tls.tls_certificates.iter().enumerate() {
        let at = format!("{at}.tlsCertificates[{index}]");
        need(format!("{at}.serverCertificate"), &one.server_certificate, "a certificate");
        need(format!("{at}.privateKey"), &one.private_key, "its key");
    }
}

/// The mesh's own certificates.
fn mesh(at: &str, tls: &ServerTlsSettings, checker: &mut Checker) {
    for (name, is_set) in [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ] {
        if is_set {
            let message = "has no place in mode ISTIO_MUTUAL, which uses the mesh's certificates: remove it";
            checker.error(format!("{at}.{name}"), message);
        }
    }
}

fn has_certificates(tls: &ServerTlsSettings) -> bool {
    !tls.server_certificate.is_empty()
        || !tls.private_key.is_empty()
        || !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty()
}

/// A Secret's name, perhaps with where it lies.
fn credential(field: &str, name: &str, checker: &mut Checker) {
    if name.is_empty() {
        checker.error(field, "is empty: name a Secret of the gateway's namespace");
    } else if let Some(map) = name.strip_prefix("configmap://") {
        if !crate::validate::is_config_map(map) {
            checker.error(field, format!("{name:?} names no ConfigMap: expected configmap://NAMESPACE/NAME"));
        } else if !field.ends_with("caCertCredentialName") {
            let message =
                "a ConfigMap holds no key: name a Secret here, and the ConfigMap in caCertCredentialName";
            checker.warn(field, message);
        }
    }
}

/// Versions, suites and curves.
fn parameters(at: &str, tls: &ServerTlsSettings, checker: &mut Checker) {
    let old = matches!(tls.min_protocol_version(), TlsProtocol::Tlsv10 | TlsProtocol::Tlsv11);
    if old && tls.cipher_suites.is_empty() {
        let message = "versions before TLSV1_2 need cipherSuites of theirs, which are off by default";
        checker.warn(format!("{at}.minProtocolVersion"), message);
    }
    let (min, max) = (tls.min_protocol_version(), tls.max_protocol_version());
    if max != TlsProtocol::TlsAuto && min as i32 > max as i32 {
        let message = format!("{} is below minProtocolVersion {}", max.as_str_name(), min.as_str_name());
        checker.error(format!("{at}.maxProtocolVersion"), message);
    }
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        let field = format!("{at}.cipherSuites[{index}]");
        if !is_suite(suite) {
            checker
                .warn(field, format!("{suite:?} is no cipher suite that Envoy knows, so it has no effect"));
        } else if tls.cipher_suites[..index].contains(suite) {
            checker.warn(field, format!("{suite:?} is named twice"));
        }
    }
    for (index, curve) in tls.ecdh_curves.iter().enumerate() {
        if !CURVES.contains(&curve.as_str()) {
            let message = format!(
                "{curve:?} is no curve that Envoy knows, so it has no effect: expected {}",
                CURVES.join(", ")
            );
            checker.warn(format!("{at}.ecdhCurves[{index}]"), message);
        }
    }
}
