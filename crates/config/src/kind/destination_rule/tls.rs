//! Rules of `tls`.

use proto::istio::networking::v1alpha3::ClientTlsSettings;
use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode as TlsMode;

use crate::validate::Checker;

/// The longest name that TLS can ask for.
const NAME_LIMIT: usize = 255;

/// `selects`: the rule is for some workloads only.
pub(super) fn check(at: &str, tls: &ClientTlsSettings, selects: bool, checker: &mut Checker) {
    let mode = tls.mode();
    if tls.sni.len() > NAME_LIMIT {
        checker.error(format!("{at}.sni"), format!("is longer than {NAME_LIMIT} characters"));
    }
    let trusts_all = tls.insecure_skip_verify.as_ref().is_some_and(|skip| skip.value);
    if trusts_all && matches!(mode, TlsMode::Simple | TlsMode::Mutual) {
        let has_credential = mode == TlsMode::Simple && !tls.credential_name.is_empty();
        if !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty() || has_credential {
            let message =
                "trusts any certificate: take out caCertificates, subjectAltNames and credentialName";
            checker.error(format!("{at}.insecureSkipVerify"), message);
        }
    }
    let (chain, key) = (&tls.client_certificate, &tls.private_key);
    if !tls.credential_name.is_empty() && matches!(mode, TlsMode::Simple | TlsMode::Mutual) {
        let has_files = [chain, key, &tls.ca_certificates, &tls.ca_crl].iter().any(|path| !path.is_empty());
        if has_files {
            let message = "stands beside files of certificates: keep one";
            checker.error(format!("{at}.credentialName"), message);
        }
        let map = tls.credential_name.strip_prefix("configmap://");
        let is_public = map.is_some();
        if map.is_some_and(|map| !crate::validate::is_config_map(map)) {
            let message =
                format!("{:?} names no ConfigMap: expected configmap://NAMESPACE/NAME", tls.credential_name);
            checker.error(format!("{at}.credentialName"), message);
        } else if is_public && mode == TlsMode::Mutual {
            let message = "a ConfigMap holds no key, which mode MUTUAL needs: name a Secret";
            checker.warn(format!("{at}.credentialName"), message);
        }
        if !selects && !is_public {
            let message = "is for gateways only: sidecars send requests without TLS unless the rule has a workloadSelector";
            checker.warn(format!("{at}.credentialName"), message);
        }
        return;
    }
    if mode == TlsMode::Mutual {
        let why = "mode MUTUAL needs a client's certificate with its key";
        for (name, path) in [("clientCertificate", chain), ("privateKey", key)] {
            if path.is_empty() {
                checker.error(format!("{at}.{name}"), format!("is missing: {why}"));
            }
        }
    }
    // Agents know files by a name in which this character is between two paths.
    for (name, path) in
        [("clientCertificate", chain), ("privateKey", key), ("caCertificates", &tls.ca_certificates)]
    {
        if path.contains('~') {
            checker.error(format!("{at}.{name}"), format!("{path:?} must not hold ~: rename the file"));
        }
    }
    if !tls.ca_crl.is_empty() {
        let message = "must be there in every proxy: Envoy does not take the cluster without the file";
        checker.warn(format!("{at}.caCrl"), message);
    }
    if matches!(mode, TlsMode::Disable | TlsMode::IstioMutual) {
        for (name, path) in
            [("clientCertificate", chain), ("privateKey", key), ("caCertificates", &tls.ca_certificates)]
        {
            if !path.is_empty() {
                let message = format!("has no effect with mode {}", mode.as_str_name());
                checker.warn(format!("{at}.{name}"), message);
            }
        }
    }
}
