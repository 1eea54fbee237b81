//! Which formats a scraper takes, and which one an answer has.

use std::collections::BTreeMap;

/// The older text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text";
/// Formats that Envoy's metrics can be joined in.
pub(super) const ENVOY: &[&str] = &["text/*", "text/plain"];
/// Formats that an application's metrics can be joined in.
pub(super) const APPLICATION: &[&str] = &["text/*", "text/plain", OPEN_METRICS];

/// Format of a joined answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    OpenMetrics001,
    OpenMetrics100,
}

impl Format {
    /// The format that a `Content-Type` names; text for any other.
    pub(super) fn of(content_type: &str) -> Self {
        match parse(content_type) {
            Some(Media { kind, parameters }) if kind == OPEN_METRICS => {
                match parameters.get("version").map(String::as_str) {
                    Some("1.0.0") => Self::OpenMetrics100,
                    Some("0.0.1") | None => Self::OpenMetrics001,
                    Some(_) => Self::Text,
                }
            }
            _ => Self::Text,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Self::OpenMetrics100 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Whether a line marks the end.
    pub(super) fn has_end(self) -> bool {
        self != Self::Text
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Media {
    kind: String,
    parameters: BTreeMap<String, String>,
}

impl Media {
    fn new(kind: &str, version: &str) -> Self {
        Self { kind: kind.into(), parameters: [("version".into(), version.into())].into() }
    }

    fn is_valid(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    }
}

/// `KIND/SORT; NAME=VALUE; ...`.
fn parse(text: &str) -> Option<Media> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (first, second) = kind.split_once('/').unwrap_or((&kind, "*"));
    if !Media::is_valid(first) || !Media::is_valid(second) {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let plain = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if !Media::is_valid(name) || !Media::is_valid(plain) {
            return None;
        }
        parameters.insert(name.to_ascii_lowercase(), plain.to_owned());
    }
    Some(Media { kind, parameters })
}

/// What to ask a source for, so that its metrics can be joined: the accepted
/// formats that are allowed, in their order; text when there is none.
pub(super) fn filter(accept: &str, allowed: &[&str]) -> String {
    let text = Media::new("text/plain", "0.0.4");
    let mut kept: Vec<Media> = Vec::new();
    for part in accept.split(',') {
        let Some(mut media) = parse(part) else { return "text/plain;version=0.0.4".into() };
        media.parameters.remove("q");
        // The least of what a wildcard takes.
        let media = match media.kind.as_str() {
            "*/*" | "*" => text.clone(),
            "application/*" => Media::new(OPEN_METRICS, "0.0.1"),
            _ => media,
        };
        if allowed.contains(&media.kind.as_str()) && !kept.contains(&media) {
            kept.push(media);
        }
    }
    if kept.is_empty() {
        return "text/plain;version=0.0.4".into();
    }
    let total = kept.len();
    let parts = kept.into_iter().enumerate().map(|(at, mut media)| {
        // From near one down; Prometheus sends fewer than ten.
        media.parameters.insert("q".into(), format!("0.{}", (total - at).min(9)));
        let parameters = media.parameters.iter().map(|(name, value)| format!("; {name}={value}"));
        format!("{}{}", media.kind, parameters.collect::<String>())
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_are_asked_for_what_can_be_joined() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;\
                          version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                        encoding=delimited;q=0.6,text/plain;version=0.0.4;q=0.3";
        let plain = "text/plain;version=0.0.4";
        for (accept, envoy, application) in [
            (
                prometheus,
                "text/plain; q=0.1; version=0.0.4",
                "application/openmetrics-text; q=0.3; version=1.0.0,application/openmetrics-text; q=0.2; \
                 version=0.0.1,text/plain; q=0.1; version=0.0.4",
            ),
            (protobuf, "text/plain; q=0.1; version=0.0.4", "text/plain; q=0.1; version=0.0.4"),
            ("application/*", plain, "application/openmetrics-text; q=0.1; version=0.0.1"),
            ("*", "text/plain; q=0.1; version=0.0.4", "text/plain; q=0.1; version=0.0.4"),
            ("", plain, plain),
            ("image/png", plain, plain),
            ("text/plain;x", plain, plain),
        ] {
            assert_eq!(filter(accept, ENVOY), envoy, "{accept}");
            assert_eq!(filter(accept, APPLICATION), application, "{accept}");
        }
    }

    #[test]
    fn the_format_is_that_of_the_application() {
        for (content_type, format) in [
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics100),
            ("application/openmetrics-text; version=\"0.0.1\"", Format::OpenMetrics001),
            ("application/openmetrics-text", Format::OpenMetrics001),
            ("application/openmetrics-text; version=9", Format::Text),
            ("text/plain", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(Format::of(content_type), format, "{content_type}");
            assert_eq!(Format::of(format.content_type()), format);
        }
    }

    proptest! {
        #[test]
        fn any_header_is_filtered(accept in "[ -~]{0,60}|([a-z*]{1,6}/[a-z*]{1,6}(;q=0.[0-9])?,?){0,4}") {
            let asked = filter(&accept, APPLICATION);
            prop_assert!(http::HeaderValue::try_from(&asked).is_ok(), "{asked}");
            for part in asked.split(',') {
                prop_assert!(APPLICATION.contains(&part.split(';').next().unwrap()), "{asked}");
            }
        }
    }
}
