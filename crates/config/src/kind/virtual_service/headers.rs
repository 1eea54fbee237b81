//! Rules of what is done to headers.

use proto::istio::networking::v1alpha3::Headers;
use proto::istio::networking::v1alpha3::headers::HeaderOperations;

use crate::validate::Checker;

pub(super) fn check(at: &str, headers: Option<&Headers>, checker: &mut Checker) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        operations(&format!("{at}.request"), request, true, checker);
    }
    if let Some(response) = &headers.response {
        operations(&format!("{at}.response"), response, false, checker);
    }
}

fn operations(at: &str, operations: &HeaderOperations, is_request: bool, checker: &mut Checker) {
    let hosts: Vec<&String> =
        operations.set.keys().chain(operations.add.keys()).filter(|name| is_host(name)).collect();
    if is_request && hosts.len() > 1 {
        checker.error(at, format!("sets the host twice: {hosts:?}"));
    }
    for (what, values) in [("set", &operations.set), ("add", &operations.add)] {
        for (key, value) in values {
            let at = format!("{at}.{what}.{key}");
            // A host is set in either way: a request has one.
            let is_settable_host = is_request && is_host(key);
            if !is_settable_host && (is_host(key) || key.starts_with(':')) {
                checker.error(&at, format!("{key:?} cannot be changed: Envoy makes it itself"));
            } else if !is_settable_host {
                name(&at, key, checker);
            }
            self::value(&at, value, checker);
        }
    }
    for (index, key) in operations.remove.iter().enumerate() {
        let at = format!("{at}.remove[{index}]");
        if is_host(key) || key.starts_with(':') {
            checker.error(at, format!("{key:?} cannot be removed: every message needs it"));
        } else {
            name(&at, key, checker);
        }
    }
}

/// Requests have their host in one of both.
pub(super) fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// A header's name; those of HTTP/2's own begin with a colon.
pub(super) fn name(at: &str, name: &str, checker: &mut Checker) {
    let word = name.strip_prefix(':').unwrap_or(name);
    let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if word.is_empty() || !word.bytes().all(is_token) {
        checker.error(at, format!("{name:?} is not the name of a header"));
    }
}

/// The first header of a request that sets its host.
pub(super) fn host_of(headers: Option<&Headers>) -> Option<&String> {
    let request = headers?.request.as_ref()?;
    request.set.keys().chain(request.add.keys()).find(|name| is_host(name))
}

/// Text that becomes the value of a header as it is.
pub(super) fn literal(at: &str, value: &str, checker: &mut Checker) {
    if value.contains(['\0', '\r', '\n']) {
        checker.error(at, format!("{value:?} has control characters"));
    }
}

/// A value, in which Envoy replaces `%COMMAND(ARGUMENTS):LENGTH%`.
fn value(at: &str, value: &str, checker: &mut Checker) {
    literal(at, value, checker);
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        let Some(end) = command(after) else {
            let message =
                format!("{value:?} has a % that begins no %COMMAND%: write %% for one that is meant so");
            return checker.error(at, message);
        };
        rest = &after[end..];
    }
}

/// Where the command ends that a text begins with, its last `%` included.
fn command(text: &str) -> Option<usize> {
    if text.starts_with('%') {
        return Some(1);
    }
    let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let after = text.trim_start_matches(is_word);
    if after.len() == text.len() {
        return None;
    }
    let after = match after.strip_prefix('(') {
        Some(arguments) => arguments.split_once(')')?.1,
        None => after,
    };
    let after = match after.strip_prefix(':') {
        Some(length) => length.trim_start_matches(|c: char| c.is_ascii_digit()),
        None => after,
    };
    Some(text.len() - after.strip_prefix('%')?.len())
}
