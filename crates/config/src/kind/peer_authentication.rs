//! Rules of `PeerAuthentication`.

use proto::istio::security::v1beta1::PeerAuthentication;

use crate::validate::Checker;

pub(super) fn check(policy: &PeerAuthentication, checker: &mut Checker) {
    checker.selection(policy.selector.as_ref(), None, &[]);
    let labels = policy.selector.as_ref().map(|selector| &selector.match_labels);
    if !policy.port_level_mtls.is_empty() && labels.is_none_or(|labels| labels.is_empty()) {
        checker.error("portLevelMtls", "needs a selector: ports are those of selected workloads");
    }
    for port in policy.port_level_mtls.keys() {
        checker.port(&format!("portLevelMtls.{port}"), *port);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Severity, yaml};

    #[test]
    fn ports_are_those_of_selected_workloads() {
        let found = |spec: &str| -> Vec<(Severity, String)> {
            let text = format!(
                "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
                 metadata: {{name: p, namespace: ns}}\nspec: {spec}\n"
            );
            let problems = yaml::read("a.yaml", &text).problems.into_iter();
            problems.map(|problem| (problem.severity, problem.field)).collect()
        };
        let selector = "selector: {matchLabels: {app: a}}";
        assert_eq!(found(&format!("{{{selector}, portLevelMtls: {{80: {{mode: STRICT}}}}}}")), []);
        assert_eq!(
            found("{portLevelMtls: {80: {mode: STRICT}}}"),
            [(Severity::Error, "spec.portLevelMtls".into())]
        );
        assert_eq!(
            found(&format!("{{{selector}, portLevelMtls: {{70000: {{mode: STRICT}}}}}}")),
            [(Severity::Error, "spec.portLevelMtls.70000".into())]
        );
        assert_eq!(
            found("{selector: {matchLabels: {app: '*'}}}"),
            [(Severity::Error, "spec.selector.matchLabels.app".into())]
        );
        assert_eq!(found("{selector: {}}"), [(Severity::Warning, "spec.selector.matchLabels".into())]);
    }
}
