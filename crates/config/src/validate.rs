//! Rules that kinds share, and the list that findings are gathered in.

mod cel;
mod re2;
mod selection;
pub mod tls;

use proto::wkt::Duration;

use crate::Severity;

/// Something that a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the object can be used.
    pub severity: Severity,
    /// Path below `spec`.
    pub field: String,
    /// What is wrong and what to write.
    pub message: String,
}

/// Gathers what rules find in one object.
#[derive(Debug, Default)]
pub struct Checker {
    /// What was found so far.
    pub findings: Vec<Finding>,
}

/// Whether it is `NAMESPACE/NAME`, as ConfigMaps are named behind `configmap://`.
pub(crate) fn is_config_map(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
}

impl Checker {
    /// The object cannot be used.
    pub fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding {
            severity: Severity::Error,
            field: field.into(),
            message: message.into(),
        });
    }

    /// The object can be used, but hardly does what was meant.
    pub fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding {
            severity: Severity::Warning,
            field: field.into(),
            message: message.into(),
        });
    }

    /// Applies rules to a part of the object: what they find is below `at`.
    pub fn within(&mut self, at: &str, rules: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        rules(&mut inner);
        self.findings.extend(inner.findings.into_iter().map(|mut finding| {
            finding.field =
                if finding.field.is_empty() { at.to_owned() } else { format!("{at}.{}", finding.field) };
            finding
        }));
    }

    /// Whether the object cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// A port from 1 to 65535.
    pub fn port(&mut self, field: &str, port: u32) {
        if port == 0 || port > 65535 {
            self.error(field, format!("{port} is not a port: expected 1 to 65535"));
        }
    }

    /// A percentage, of which Envoy takes four decimals.
    pub fn percentage(&mut self, field: &str, percent: Option<f64>) {
        if let Some(percent) = percent
            && percent != 0.0
            && !(0.0001..=100.0).contains(&percent)
        {
            self.error(field, format!("{percent} is not a percentage: expected 0, or 0.0001 to 100"));
        }
    }

    /// The name of a subset, which becomes a part of names of clusters.
    pub fn subset(&mut self, field: &str, name: &str) {
        if !is_dns_label(&name.to_ascii_lowercase()) {
            let expected = "expected letters, digits and hyphens, such as v1";
            self.error(field, format!("{name:?} is not the name of a subset: {expected}"));
        }
    }

    /// Namespaces that an object is for.
    pub fn export_to(&mut self, namespaces: &[String]) {
        for (index, name) in namespaces.iter().enumerate() {
            if name == "~" {
                self.error(
                    format!("exportTo[{index}]"),
                    "\"~\" exports to nobody: remove the object instead",
                );
            } else if name == "*" && namespaces.len() > 1 {
                self.error(format!("exportTo[{index}]"), "\"*\" exports to all: remove the other namespaces");
            } else if ![".", "*"].contains(&name.as_str()) && !is_dns_label(name) {
                let message = format!("{name:?} is not a namespace: expected a name, \".\" or \"*\"");
                self.error(format!("exportTo[{index}]"), message);
            }
        }
    }

    /// One of a few words.
    pub fn one_of(&mut self, field: &str, word: &str, known: &[&str]) {
        if !known.contains(&word) {
            self.error(field, format!("{word:?} is unknown: expected {}", known.join(", ")));
        }
    }

    /// A length of time of at least a millisecond, in whole milliseconds.
    pub fn duration(&mut self, field: &str, duration: Option<&Duration>) {
        let Some(duration) = duration else { return };
        if duration.as_nanos() < 1_000_000 {
            self.error(field, format!("{duration} is too short: the least is 1ms"));
        } else if duration.nanos % 1_000_000 != 0 {
            self.error(field, format!("{duration} is finer than a millisecond, which is not supported"));
        }
    }

    /// A number that is not negative.
    pub fn not_negative(&mut self, field: &str, number: i32) {
        if number < 0 {
            self.error(field, format!("{number} must not be negative"));
        }
    }

    /// A host name: labels of a DNS name, the first of which may be `*`.
    pub fn host(&mut self, field: &str, host: &str) {
        if host.is_empty() {
            return self.error(field, "is missing: name a host");
        }
        let mut labels = host.strip_suffix('.').unwrap_or(host).split('.');
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let first = labels.next().unwrap_or_default();
        let first_fits = first == "*" || is_label(first) || first.strip_prefix('*').is_some_and(is_label);
        if host.len() > 255 || !first_fits || !labels.all(is_label) {
            self.error(
                field,
                format!("{host:?} is not a host name: expected a DNS name such as reviews or *.example.com"),
            );
        }
    }

    /// A regular expression of the syntax that Envoy uses (RE2).
    pub fn regex(&mut self, field: &str, pattern: &str) {
        if let Err(why) = re2::check(pattern) {
            self.error(field, format!("{pattern:?} is not a regular expression of RE2: {why}"));
        }
    }

    /// A condition in CEL.
    pub fn cel(&mut self, field: &str, expression: &str) {
        if let Err(why) = cel::check(expression) {
            self.error(field, format!("{expression:?} is not a CEL expression: {why}"));
        }
    }

    /// An expression in CEL that only itself has no effect when it cannot be read.
    pub fn doubtful_cel(&mut self, field: &str, expression: &str) {
        if let Err(why) = cel::check(expression) {
            self.warn(field, format!("{expression:?} is not a CEL expression and has no effect: {why}"));
        }
    }

    /// A label key and value as Kubernetes allows them.
    pub fn label(&mut self, field: &str, key: &str, value: &str) {
        let is_word = |text: &str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
            text.len() <= 63
                && edge(text.chars().next())
                && edge(text.chars().last())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        if !is_word(name) {
            self.error(field, format!("{key:?} is not a label key"));
        }
        if !value.is_empty() && !is_word(value) {
            self.error(field, format!("{value:?} is not a label value"));
        }
    }
}

/// gRPC status codes by number (`google.rpc.Code`).
pub const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A label of a DNS name in lower case, as names of services and namespaces are.
#[must_use]
pub fn is_dns_label(text: &str) -> bool {
    let is_edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// The name of a header of HTTP, in either case.
#[must_use]
pub fn is_header_name(text: &str) -> bool {
    let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Labels with dots between them, as names of most objects are.
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// The known word that may have been meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &str| strsim::osa_distance(&word.to_lowercase(), &known.to_lowercase());
    known
        .map(|known| (distance(known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 8)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(check: impl FnOnce(&mut Checker)) -> usize {
        let mut checker = Checker::default();
        check(&mut checker);
        checker.findings.len()
    }

    #[test]
    fn knows_host_names() {
        for host in ["reviews", "a.b.c.", "*.example.com", "*", "*foo.com", "a_b.c"] {
            assert_eq!(found(|checker| checker.host("", host)), 0, "{host}");
        }
        for host in ["", ".", "a..b", "-a", "a.*", "a b", "a/b"] {
            assert_eq!(found(|checker| checker.host("", host)), 1, "{host}");
        }
    }

    #[test]
    fn knows_durations_and_patterns() {
        let at = |text: &str| found(|checker| checker.duration("", Some(&text.parse().unwrap())));
        assert_eq!((at("5s"), at("1ms"), at("0s"), at("1us"), at("-5s"), at("1500us")), (0, 0, 1, 1, 1, 1));
        assert_eq!(found(|checker| checker.regex("", "a.*b")), 0);
        assert_eq!(found(|checker| checker.regex("", "a(")), 1);
    }
}
