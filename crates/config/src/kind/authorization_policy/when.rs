//! Conditions.

use proto::istio::security::v1beta1::Condition;

use super::value;
use crate::validate::{Checker, is_header_name, nearest};

/// Attributes without brackets, and how their values are checked.
const ATTRIBUTES: &[(&str, value::Check)] = &[
    ("source.ip", value::network),
    ("remote.ip", value::network),
    ("source.namespace", value::text),
    ("source.serviceAccount", value::service_account),
    ("source.trustDomain", value::trust_domain),
    ("source.principal", value::pattern),
    ("request.auth.principal", value::pattern),
    ("request.auth.audiences", value::pattern),
    ("request.auth.presenter", value::pattern),
    ("destination.ip", value::network),
    ("destination.port", value::port),
    ("connection.sni", value::pattern),
];

const HEADERS: &str = "request.headers";
const CLAIMS: &str = "request.auth.claims";
const FILTERS: &str = "experimental.envoy.filters.";

pub(super) fn check(at: &str, condition: &Condition, checker: &mut Checker) {
    let Condition { key, values, not_values } = condition;
    if key.is_empty() {
        return checker.error(format!("{at}.key"), "is missing: name an attribute");
    }
    let Some(check) = key_check(&format!("{at}.key"), key, checker) else { return };
    if values.is_empty() && not_values.is_empty() {
        checker.error(at, format!("has neither values nor notValues for {key:?}: give at least one"));
    }
    for (name, values) in [("values", values), ("notValues", not_values)] {
        let at = format!("{at}.{name}");
        value::each(&at, values, check, checker);
        if key == "source.serviceAccount" {
            value::at_most_16(&at, values, checker);
        }
    }
}

/// How values of an attribute are checked; `None` when it is none.
fn key_check(at: &str, key: &str, checker: &mut Checker) -> Option<value::Check> {
    if let Some((_, check)) = ATTRIBUTES.iter().find(|(name, _)| *name == key) {
        return Some(*check);
    }
    let brackets = |name: &str| key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']');
    if key.starts_with(HEADERS) {
        // `:method` and its like are headers, too.
        let name = brackets(HEADERS).map(|name| name.strip_prefix(':').unwrap_or(name));
        if name.is_some_and(is_header_name) {
            return Some(value::pattern);
        }
        checker.error(at, format!("{key:?} names no header: expected request.headers[NAME]"));
    } else if key.starts_with(CLAIMS) {
        if brackets(CLAIMS).is_some_and(|path| path.split("][").all(|part| !part.is_empty())) {
            return Some(value::pattern);
        }
        let expected = "expected request.auth.claims[NAME], or [NAME][NAME] for one inside another";
        checker.error(at, format!("{key:?} names no claim: {expected}"));
    } else if let Some(rest) = key.strip_prefix(FILTERS) {
        let path = rest.strip_suffix(']').and_then(|rest| rest.split_once('['));
        if path.is_some_and(|(filter, name)| !filter.is_empty() && !name.is_empty()) {
            return Some(value::text);
        }
        checker.error(at, format!("{key:?} names no metadata: expected {FILTERS}FILTER[KEY]"));
    } else {
        let instead = match key {
            "destination.namespace" => "put the policy into the namespace instead".into(),
            "destination.name" | "destination.user" => "use a selector instead".into(),
            _ if key.starts_with("destination.labels") => "use a selector instead".into(),
            _ => {
                let known = ATTRIBUTES.iter().map(|(name, _)| *name).chain([HEADERS, CLAIMS]);
                nearest(key, known).map_or_else(
                    || {
                        "expected one such as source.ip, request.headers[NAME] or request.auth.claims[NAME]"
                            .into()
                    },
                    |near| format!("did you mean {near}?"),
                )
            }
        };
        checker.error(at, format!("there is no attribute {key:?}: {instead}"));
    }
    None
}
