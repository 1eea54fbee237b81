//! Rules of `Secret`: the credentials of TLS that one holds must be usable.

use crate::kube::{Flaw, Secret, TLS_TYPE};
use crate::validate::Checker;

pub(super) fn check(secret: &Secret, checker: &mut Checker) {
    for name in secret.data.keys().filter(|name| !secret.string_data.contains_key(*name)) {
        if secret.value(name).is_none() {
            checker
                .error(format!("data.{name}"), "is not base64: encode the value, or write it to stringData");
        }
    }
    let has = |names: &[&str]| names.iter().all(|name| secret.has(name));
    let is_tls = secret.secret_type == TLS_TYPE;
    if is_tls || has(&["tls.crt", "tls.key"]) || has(&["cert", "key"]) {
        found(secret.pair().err(), is_tls, checker);
    }
    if has(&["ca.crt"]) || has(&["cacert"]) {
        found(secret.roots().err(), is_tls, checker);
    }
}

/// A Secret that is for TLS only cannot be used; any other may be for somebody else.
fn found(flaw: Option<&Flaw>, is_tls: bool, checker: &mut Checker) {
    let Some(flaw) = flaw else { return };
    if checker.findings.iter().any(|finding| finding.field == flaw.field && !flaw.field.is_empty()) {
        return;
    }
    if is_tls {
        checker.error(&flaw.field, &flaw.message);
    } else {
        checker.warn(&flaw.field, format!("{}: gateways cannot use it", flaw.message));
    }
}
