//! Rules of `PeerAuthentication`.

use proto::istio::security::v1beta1::PeerAuthentication;

use crate::validate::Checker;

pub(super) fn check(policy: &PeerAuthentication, checker: &mut Checker) {
    let labels = policy.selector.as_ref().map(|selector| &selector.match_labels);
    if !policy.port_level_mtls.is_empty() && labels.is_none_or(|labels| labels.is_empty()) {
        checker.error("portLevelMtls", "needs a selector: ports are those of selected workloads");
    }
    for port in policy.port_level_mtls.keys() {
        checker.port(&format!("portLevelMtls.{port}"), *port);
    }
    for (key, value) in labels.into_iter().flatten() {
        checker.label(&format!("selector.matchLabels.{key}"), key, value);
    }
}
