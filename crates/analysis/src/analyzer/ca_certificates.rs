//! DestinationRules whose clients trust any server.

use proto::istio::networking::v1alpha3::client_tls_settings::TlSmode;
use proto::istio::networking::v1alpha3::{ClientTlsSettings, DestinationRule};

use super::Report;
use crate::{Code, Kind, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    for (one, rule) in world.all::<DestinationRule>(Kind::DestinationRule) {
        let Some(policy) = &rule.traffic_policy else { continue };
        let has_selector = rule.workload_selector.is_some();
        let name = one.full_name();
        if let Some(mode) = trusts_all(policy.tls.as_ref(), has_selector) {
            let field = "spec.trafficPolicy.tls.caCertificates";
            let values = [&*name, &*one.namespace, mode, &*rule.host];
            report.add_at(Code::NoServerCertificateVerificationDestinationLevel, one, field, &values);
        }
        for (index, level) in policy.port_level_settings.iter().enumerate() {
            if let Some(mode) = trusts_all(level.tls.as_ref(), has_selector) {
                let field = format!("spec.trafficPolicy.portLevelSettings[{index}].tls.caCertificates");
                // As the API's own text form has it.
                let port = match &level.port {
                    None => "<nil>".to_owned(),
                    Some(port) if port.number == 0 => String::new(),
                    Some(port) => format!("number:{}", port.number),
                };
                let values = [&*name, &*one.namespace, mode, &*rule.host, &*port];
                report.add_at(Code::NoServerCertificateVerificationPortLevel, one, &field, &values);
            }
        }
    }
}

/// The mode of settings that use TLS and check nothing.
fn trusts_all(tls: Option<&ClientTlsSettings>, has_selector: bool) -> Option<&'static str> {
    let tls = tls?;
    let mode = tls.mode();
    // A credential holds certificates of servers, too, where it is in force.
    let has_credential = !tls.credential_name.is_empty() && has_selector;
    let checks = !tls.ca_certificates.is_empty() || has_credential;
    (matches!(mode, TlSmode::Simple | TlSmode::Mutual) && !checks).then(|| mode.as_str_name())
}
