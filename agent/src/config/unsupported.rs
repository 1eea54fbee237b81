//! Settings of Istio's agent that this one does not follow yet. Who sets one
//! relies on it: it is refused with what to do instead, and where nothing
//! depends on it there is a warning.

use super::ProxyConfig;
use super::args::Proxy;
use super::env::{self, Reader, Variable};
use super::resolve::Inputs;

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

const TOKEN_ONLY: &str = "the agent shows a token of a file: unset it, and mount one with the audience istio-ca at ./var/run/secrets/tokens/istio-token";

/// Refused.
const ERRORS: &[(Variable, Fine, &str)] = &[
    (env::CREDENTIAL_FETCHER_TYPE, Fine::Only(&["JWT"]), TOKEN_ONLY),
    (
        env::CA_PROVIDER,
        Fine::Only(&["Citadel", "GkeWorkloadCertificate"]),
        "unset it, and name in CA_ADDR a CA that speaks istio.v1.auth.IstioCertificateService",
    ),
    (env::COMPLIANCE_POLICY, Fine::Only(&[]), "neither the agent nor stock Envoy is validated: unset it"),
];

/// Without effect, and nothing breaks by it.
const WARNINGS: &[(Variable, Fine, &str)] = &[
    (env::XDS_AUTH_PROVIDER, Fine::Only(&[]), "xDS has the token that the CA gets"),
    (env::PEER_METADATA_DISCOVERY, Fine::Off, "the extension for it is not in stock Envoy"),
];

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
    refuse_flags(inputs.args, reader);
    refuse_templates(inputs.args, proxy, reader);
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

fn refuse_flags(args: &Proxy, reader: &mut Reader<'_>) {
    let flags = [
        ("--stsPort", args.sts_port.as_str(), "0", "there is no token exchange: leave it out"),
        ("--tokenManagerPlugin", &args.token_manager_plugin, "", "there is no token exchange: leave it out"),
    ];
    for (name, value, fine, instead) in flags {
        if !value.is_empty() && value != fine {
            reader.error(format!("{name}={value:?}: not supported yet; {instead}"));
        }
    }
}

/// The template of Istio's images.
const USUAL_TEMPLATE: &str = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json";
const OVERRIDE: &str = "put what differs into a file and name it in ISTIO_BOOTSTRAP_OVERRIDE";

/// Templates are programs of another language; what users want from them is
/// mostly a difference, which Envoy merges by itself.
fn refuse_templates(args: &Proxy, proxy: &ProxyConfig, reader: &mut Reader<'_>) {
    let templates = [
        (env::ISTIO_BOOTSTRAP.name, reader.text(env::ISTIO_BOOTSTRAP)),
        ("proxyBootstrapTemplatePath", &proxy.proxy_bootstrap_template_path),
        ("--templateFile", &args.template_file),
    ];
    for (name, value) in templates {
        // The template of Istio's images says what the agent does by itself.
        if !value.is_empty() && value.trim_start_matches('.') != USUAL_TEMPLATE {
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
            ("CA_PROVIDER", "GoogleCA"),
            ("COMPLIANCE_POLICY", "fips-140-3"),
            ("PROXY_CONFIG", "proxyBootstrapTemplatePath: /mine.json"),
        ];
        let line = [LINE, &["--stsPort=15463", "--templateFile", "/t.json"]].concat();
        let errors = with(dir.path(), &line, &env, &[]).unwrap_err();
        for part in [
            "CA_PROVIDER=\"GoogleCA\": not supported yet",
            "COMPLIANCE_POLICY=\"fips-140-3\": not supported yet",
            "proxyBootstrapTemplatePath=\"/mine.json\": bootstrap templates are not supported",
            "--stsPort=\"15463\": not supported yet",
            "--templateFile=\"/t.json\": bootstrap templates are not supported; put what differs into a file",
        ] {
            assert_eq!(
                errors.iter().filter(|error| error.contains(part)).count(),
                1,
                "{part} in\n{errors:#?}"
            );
        }
        assert_eq!(errors.len(), 5, "{errors:#?}");
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
            ("ISTIO_BOOTSTRAP", "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"),
        ];
        let (_, warnings) = with(dir.path(), &[LINE, &["--stsPort", "0"]].concat(), &env, &[]).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn what_nothing_depends_on_is_warned_of() {
        let dir = root();
        let env = [("XDS_AUTH_PROVIDER", "gcp"), ("POD_NAME", "")];
        let (_, warnings) = with(dir.path(), LINE, &env, &[]).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().any(|text| text.starts_with("XDS_AUTH_PROVIDER=\"gcp\" has no effect")));
        assert!(warnings.iter().any(|text| text.starts_with("POD_NAME is not set")), "{warnings:?}");
    }
}
