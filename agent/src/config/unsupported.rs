//! Settings of Istio's agent that this one does not follow yet. Who sets one
//! relies on it: it is refused with what to do instead, and where nothing
//! depends on it there is a warning.

use super::args::Proxy;
use super::env::{self, Reader, Variable};
use super::resolve::Inputs;
use super::{ProxyConfig, resolve};

/// Values of a setting that ask for nothing.
#[derive(Clone, Copy)]
enum Fine {
    /// Off, as a boolean.
    Off,
    /// These, as they stand.
    Only(&'static [&'static str]),
}

/// Values that mean no, as Go reads booleans.
const FALSE: &[&str] = &["0", "f", "F", "false", "FALSE", "False"];

const NO_DNS: &str = "the agent answers no DNS requests: unset it, and run istio-init without --redirect-dns";
const CA_ONLY: &str = "certificates come from the CA: unset it, and mount a token with the audience istio-ca at ./var/run/secrets/tokens/istio-token";
const NO_SDS: &str =
    "the agent serves the certificates itself: unset it, and stop the other SDS server of this pod";
const STOCK_ENVOY: &str = "stock Envoy has nothing of the kind: unset it";
const NO_METRICS_TLS: &str = "set it to 0, and scrape port 15020";

/// Refused.
const ERRORS: &[(Variable, Fine, &str)] = &[
    (env::ISTIO_META_DNS_CAPTURE, Fine::Off, NO_DNS),
    (env::ISTIO_META_ENABLE_DNS_SERVER, Fine::Off, NO_DNS),
    (env::FILE_MOUNTED_CERTS, Fine::Off, CA_ONLY),
    (env::PROV_CERT, Fine::Only(&[]), CA_ONLY),
    (env::CREDENTIAL_FETCHER_TYPE, Fine::Only(&["JWT"]), CA_ONLY),
    (env::JWT_POLICY, Fine::Only(&["third-party-jwt"]), CA_ONLY),
    (env::XDS_AUTH_PROVIDER, Fine::Only(&[]), CA_ONLY),
    (
        env::OUTPUT_CERTS,
        Fine::Only(&[]),
        "keys are never written to files: unset it, and let Envoy speak mutual TLS for the application",
    ),
    (
        env::CA_PROVIDER,
        Fine::Only(&["Citadel"]),
        "unset it, and name in CA_ADDR a CA that speaks istio.v1.auth.IstioCertificateService",
    ),
    (
        env::PILOT_CERT_PROVIDER,
        Fine::Only(&["istiod", "kubernetes", "none"]),
        "set it to istiod, and name the file with the roots in CA_ROOT_CA and XDS_ROOT_CA",
    ),
    (env::WORKLOAD_IDENTITY_SOCKET_FILE, Fine::Only(&["socket"]), NO_SDS),
    (
        env::PROXY_CONFIG_XDS_AGENT,
        Fine::Off,
        "roots come with the certificate only: unset it, and add roots of other trust domains to those of the CA",
    ),
    (env::ENVOY_SECURE_METRICS_PORT, Fine::Only(&["0"]), NO_METRICS_TLS),
    (env::ENVOY_SECURE_MERGED_METRICS_PORT, Fine::Only(&["0"]), NO_METRICS_TLS),
    (
        env::ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL,
        Fine::Off,
        "unset it, and let health checks of port 15021 come without the PROXY protocol",
    ),
    (
        env::GRPC_XDS_BOOTSTRAP,
        Fine::Only(&[]),
        "there is no proxyless gRPC: unset it, and let Envoy carry the traffic",
    ),
    (
        env::ISTIO_KUBE_APP_PROBERS,
        Fine::Only(&["{}"]),
        "annotate the pod sidecar.istio.io/rewriteAppHTTPProbers: \"false\", and exclude the ports of its probes from redirection",
    ),
    (
        env::ISTIO_PROMETHEUS_ANNOTATIONS,
        Fine::Only(&["{}"]),
        "annotate the pod prometheus.istio.io/merge-metrics: \"false\", and scrape the application itself",
    ),
    (env::ISTIO_META_ENABLE_HBONE, Fine::Off, "there are no tunnels: unset it"),
    (env::ISTIO_META_ENABLE_SELF_DISCOVERY, Fine::Off, "there is no locality-aware balancing: unset it"),
    (env::PEER_METADATA_DISCOVERY, Fine::Off, STOCK_ENVOY),
    (env::COMPLIANCE_POLICY, Fine::Only(&[]), "neither the agent nor stock Envoy is validated: unset it"),
];

/// Without effect, and nothing breaks by it.
const WARNINGS: &[(Variable, Fine, &str)] = &[
    (env::DNS_PROXY_ADDR, Fine::Only(&[]), "the agent answers no DNS requests"),
    (
        env::CLOUD_PLATFORM,
        Fine::Only(&["none"]),
        "no metadata server is asked; the label istio-locality tells where the pod is",
    ),
    (
        env::ISTIO_DUAL_STACK,
        Fine::Off,
        "Envoy's ports 15021 and 15090 are of the family of the pod's first address",
    ),
    (env::WASM_INSECURE_REGISTRIES, Fine::Only(&[]), "the agent fetches no Wasm modules"),
];

/// Files that Istio's agent takes certificates from when all of a row exist.
const FILES: &[(&[&str], &str)] = &[
    (
        &[
            "./var/run/secrets/workload-spiffe-credentials/cert-chain.pem",
            "./var/run/secrets/workload-spiffe-credentials/key.pem",
            "./var/run/secrets/workload-spiffe-credentials/root-cert.pem",
        ],
        "certificates from files",
    ),
    (&["./etc/certs/cert-chain.pem", "./etc/certs/key.pem"], "certificates from files"),
];
/// The list of revoked certificates.
const REVOKED: &str = "./var/run/secrets/istio/crl/ca-crl.pem";

/// Notes everything that asks for what there is not.
pub(super) fn refuse(inputs: &Inputs<'_>, proxy: &ProxyConfig, reader: &mut Reader<'_>) {
    for &(variable, fine, instead) in ERRORS {
        if let Some(value) = asked(variable, fine, reader) {
            reader.error(format!("{}={value:?}: not supported yet; {instead}", variable.name));
        }
    }
    for &(variable, fine, why) in WARNINGS {
        if let Some(value) = asked(variable, fine, reader) {
            reader.warning(format!("{}={value:?} has no effect: {why}", variable.name));
        }
    }
    refuse_files(inputs, reader);
    refuse_flags(inputs.args, reader);
    refuse_fields(proxy, reader);
    refuse_templates(proxy, reader);
}

/// The value of a variable when it asks for something.
fn asked<'a>(variable: Variable, fine: Fine, reader: &Reader<'a>) -> Option<&'a str> {
    let value = reader.set(variable)?;
    let fine = match fine {
        Fine::Off => FALSE,
        Fine::Only(values) => values,
    };
    (!fine.contains(&value)).then_some(value)
}

fn refuse_files(inputs: &Inputs<'_>, reader: &mut Reader<'_>) {
    let exists = |path: &str| resolve::below(inputs.root, path).exists();
    for (paths, what) in FILES {
        if paths.iter().all(|path| exists(path)) {
            reader.error(format!("{}: {what} are not supported yet; {CA_ONLY}", paths.join(", ")));
        }
    }
    if exists(REVOKED) && reader.flag(env::PILOT_ENABLE_CA_CRL) {
        reader.error(format!(
            "{REVOKED}: lists of revoked certificates are not supported yet, and they would be accepted; set {}=false to accept that",
            env::PILOT_ENABLE_CA_CRL.name
        ));
    }
}

fn refuse_flags(args: &Proxy, reader: &mut Reader<'_>) {
    let flags = [
        ("--stsPort", args.sts_port.as_str(), "0", "there is no token exchange: leave it out"),
        ("--tokenManagerPlugin", &args.token_manager_plugin, "", "there is no token exchange: leave it out"),
        ("--templateFile", &args.template_file, "", OVERRIDE),
        (
            "--outlierLogPath",
            &args.outlier_log_path,
            "",
            "Envoy's counters outlier_detection tell of outliers",
        ),
    ];
    for (name, value, fine, instead) in flags {
        if !value.is_empty() && value != fine {
            reader.error(format!("{name}={value:?}: not supported yet; {instead}"));
        }
    }
}

fn refuse_fields(proxy: &ProxyConfig, reader: &mut Reader<'_>) {
    let fields = [
        ("zipkinAddress", !proxy.zipkin_address.is_empty(), "there is no tracing: leave it out"),
        ("statsdUdpAddress", !proxy.statsd_udp_address.is_empty(), "leave it out, and scrape port 15020"),
        (
            "caCertificatesPem",
            !proxy.ca_certificates_pem.is_empty(),
            "leave it out, and add the roots to those of the CA",
        ),
    ];
    for (name, is_set, instead) in fields {
        if is_set {
            reader.error(format!("{name} of the ProxyConfig: not supported yet; {instead}"));
        }
    }
}

const OVERRIDE: &str = "put what differs into a file and name it in ISTIO_BOOTSTRAP_OVERRIDE";

/// Templates are programs of another language; what users want from them is
/// mostly a difference, which Envoy merges by itself.
fn refuse_templates(proxy: &ProxyConfig, reader: &mut Reader<'_>) {
    let templates = [
        (env::ISTIO_BOOTSTRAP.name, reader.text(env::ISTIO_BOOTSTRAP)),
        ("proxyBootstrapTemplatePath", &proxy.proxy_bootstrap_template_path),
    ];
    for (name, value) in templates {
        if !value.is_empty() {
            reader.error(format!("{name}={value:?}: bootstrap templates are not supported; {OVERRIDE}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::resolve::tests::{LINE, root, with};

    #[test]
    fn what_is_not_supported_is_refused_with_what_to_do() {
        let dir = root();
        let env = [
            ("ISTIO_META_DNS_CAPTURE", "true"),
            ("FILE_MOUNTED_CERTS", "true"),
            ("OUTPUT_CERTS", "/etc/istio-output-certs"),
            ("PROV_CERT", "/etc/prov"),
            ("CA_PROVIDER", "GoogleCA"),
            ("PILOT_CERT_PROVIDER", "custom"),
            ("WORKLOAD_IDENTITY_SOCKET_FILE", "spire.sock"),
            ("ISTIO_KUBE_APP_PROBERS", "{\"/app-health/web/livez\":{}}"),
            ("COMPLIANCE_POLICY", "fips-140-3"),
            ("ENVOY_SECURE_METRICS_PORT", "15091"),
            ("PROXY_CONFIG", "{statsdUdpAddress: 'a:1', proxyMetadata: {ISTIO_META_ENABLE_HBONE: 'true'}}"),
        ];
        let line = [LINE, &["--stsPort=15463", "--templateFile", "/t.json"]].concat();
        for path in ["etc/certs/cert-chain.pem", "etc/certs/key.pem", "var/run/secrets/istio/crl/ca-crl.pem"]
        {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let errors = with(dir.path(), &line, &env, &[]).unwrap_err();
        for part in [
            "ISTIO_META_DNS_CAPTURE=\"true\": not supported yet; the agent answers no DNS requests",
            "FILE_MOUNTED_CERTS=\"true\": not supported yet; certificates come from the CA",
            "OUTPUT_CERTS=\"/etc/istio-output-certs\": not supported yet; keys are never written",
            "PROV_CERT=\"/etc/prov\": not supported yet",
            "CA_PROVIDER=\"GoogleCA\": not supported yet",
            "PILOT_CERT_PROVIDER=\"custom\": not supported yet",
            "WORKLOAD_IDENTITY_SOCKET_FILE=\"spire.sock\": not supported yet",
            "ISTIO_KUBE_APP_PROBERS=\"{\\\"/app-health/web/livez\\\":{}}\": not supported yet",
            "COMPLIANCE_POLICY=\"fips-140-3\": not supported yet",
            "ENVOY_SECURE_METRICS_PORT=\"15091\": not supported yet",
            "ISTIO_META_ENABLE_HBONE=\"true\": not supported yet",
            "statsdUdpAddress of the ProxyConfig: not supported yet",
            "--stsPort=\"15463\": not supported yet",
            "--templateFile=\"/t.json\": not supported yet",
            "./etc/certs/cert-chain.pem, ./etc/certs/key.pem: certificates from files are not supported yet",
            "ca-crl.pem: lists of revoked certificates are not supported yet",
        ] {
            assert_eq!(
                errors.iter().filter(|error| error.contains(part)).count(),
                1,
                "{part} in\n{errors:#?}"
            );
        }
        assert_eq!(errors.len(), 16, "{errors:#?}");
    }

    #[test]
    fn values_that_ask_for_nothing_are_fine() {
        let dir = root();
        let env = [
            ("ISTIO_META_DNS_CAPTURE", "false"),
            ("FILE_MOUNTED_CERTS", "0"),
            ("CA_PROVIDER", "Citadel"),
            ("PILOT_CERT_PROVIDER", "istiod"),
            ("JWT_POLICY", "third-party-jwt"),
            ("OUTPUT_CERTS", ""),
            ("ISTIO_KUBE_APP_PROBERS", "{}"),
            ("CLOUD_PLATFORM", "none"),
        ];
        let (_, warnings) = with(dir.path(), &[LINE, &["--stsPort", "0"]].concat(), &env, &[]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn what_nothing_depends_on_is_warned_of() {
        let dir = root();
        let env = [("DNS_PROXY_ADDR", "localhost:53"), ("POD_NAME", "")];
        let (_, warnings) = with(dir.path(), LINE, &env, &[]).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings.iter().any(|text| text.starts_with("DNS_PROXY_ADDR=\"localhost:53\" has no effect"))
        );
        assert!(warnings.iter().any(|text| text.starts_with("POD_NAME is not set")), "{warnings:?}");
    }
}
