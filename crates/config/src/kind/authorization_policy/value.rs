//! Values of policies.

use std::net::IpAddr;

use crate::path_template;
use crate::validate::Checker;

/// Longest value: it may become a part of a regular expression.
const MAX_LENGTH: usize = 1024;

/// Tells what is wrong with one value at a field.
pub(super) type Check = fn(&str, &str, &mut Checker);

/// All values of a field.
pub(super) fn each(at: &str, values: &[String], check: Check, checker: &mut Checker) {
    for (index, value) in values.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if value.is_empty() {
            checker.error(at, "is empty: leave the value out");
        } else if value.len() > MAX_LENGTH {
            checker.error(at, format!("has {} characters: at most {MAX_LENGTH} are allowed", value.len()));
        } else {
            check(&at, value, checker);
        }
    }
}

/// A list that may have 16 values.
pub(super) fn at_most_16(at: &str, values: &[String], checker: &mut Checker) {
    if values.len() > 16 {
        checker.error(at, format!("has {} values: at most 16 are allowed", values.len()));
    }
}

/// Any text.
pub(super) fn text(_: &str, _: &str, _: &mut Checker) {}

/// A text with a `*` at its start or end, if at all.
pub(super) fn pattern(at: &str, value: &str, checker: &mut Checker) {
    let rest = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    // An issuer and a subject may each have one.
    if rest.contains('*') && !value.ends_with("/*") && !value.starts_with("*/") {
        let message =
            format!("{value:?} has a \"*\" that is taken as it is: it is a wildcard at the start or the end");
        checker.warn(at, message);
    }
}

/// A path, or a template of paths.
pub(super) fn path(at: &str, value: &str, checker: &mut Checker) {
    if let Err(why) = path_template::check(value) {
        return checker.error(at, format!("{value:?} {why}"));
    }
    let rest = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if rest.contains('*') && !path_template::is_template(value) {
        let message = format!(
            "{value:?} has a \"*\" that is taken as it is: write {{*}} for one segment and {{**}} for any number"
        );
        checker.warn(at, message);
    }
}

/// `NAME` or `NAMESPACE/NAME`.
pub(super) fn service_account(at: &str, value: &str, checker: &mut Checker) {
    let mut parts = value.split('/');
    let is_well = parts.clone().count() <= 2 && parts.all(|part| !part.is_empty() && !part.contains('*'));
    if !is_well || value.len() > 320 {
        let message = format!("{value:?} is not a service account: expected NAME or NAMESPACE/NAME");
        checker.error(at, message);
    }
}

/// A trust domain with at most one `*`, at its start or end.
pub(super) fn trust_domain(at: &str, value: &str, checker: &mut Checker) {
    let rest = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if rest.contains('*') {
        let message = format!("{value:?} may have one \"*\" only, at the start or the end");
        checker.error(at, message);
    }
    if value.contains('/') {
        checker.error(at, format!("{value:?} is not a trust domain: it has a \"/\""));
    }
}

/// An address, or a network as `ADDRESS/LENGTH`.
pub(super) fn network(at: &str, value: &str, checker: &mut Checker) {
    let (address, length) = value.split_once('/').unwrap_or((value, "0"));
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => -1,
    };
    if !length.parse::<u8>().is_ok_and(|length| i32::from(length) <= most) {
        let message = format!("{value:?} is not an address: expected one such as 10.1.2.3 or 10.1.0.0/16");
        checker.error(at, message);
    }
}

/// A number of a port, as text.
pub(super) fn port(at: &str, value: &str, checker: &mut Checker) {
    if value.parse::<u16>().is_err() || value.starts_with('+') {
        checker.error(at, format!("{value:?} is not a port: expected a number up to 65535"));
    }
}
