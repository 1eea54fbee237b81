//! Rules of `ConfigMap`: certificates that one holds must be usable.

use crate::kube::ConfigMap;
use crate::validate::Checker;

pub(super) fn check(map: &ConfigMap, checker: &mut Checker) {
    // Most hold something else, which is nobody's business here.
    if !["ca.crt", "cacert"].iter().any(|name| map.data.contains_key(*name)) {
        return;
    }
    if let Err(flaw) = map.roots() {
        checker.warn(&flaw.field, format!("{}: proxies cannot use it", flaw.message));
    }
}
