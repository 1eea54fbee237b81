//! Rules of `ProxyConfig`. What it says reaches a proxy by its pod, never by xDS.

use proto::istio::networking::v1beta1::ProxyConfig;

use crate::validate::Checker;

pub(super) fn check(config: &ProxyConfig, checker: &mut Checker) {
    if let Some(selector) = &config.selector {
        checker.selector("selector.matchLabels", &selector.match_labels);
    }
    if let Some(concurrency) = &config.concurrency {
        checker.not_negative("concurrency", concurrency.value);
    }
}
