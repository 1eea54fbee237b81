//! Labels of metrics.

use names::TypeUrl;
use prometheus_client::encoding::EncodeLabelSet;
use tonic::Code;

/// A label `type` (`cds`, `eds`, …).
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Type {
    pub(super) r#type: String,
}

impl Type {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { r#type: name.into() }
    }
}

/// A label `error`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Reason {
    pub(super) error: String,
}

/// A label `version`.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Version {
    pub(super) version: String,
}

/// Labels of a refusal.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Refusal {
    /// The proxy.
    pub(super) node: String,
    /// The code of its reason.
    pub(super) err: String,
}

/// Labels of an object.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Object {
    /// Its kind, in lower case.
    pub(super) r#type: String,
    /// `NAMESPACE/NAME`.
    pub(super) name: String,
}

/// The label of a type; types that nobody serves share one.
pub(super) fn of(type_url: &TypeUrl) -> Type {
    let name = if let TypeUrl::Other(_) = type_url { "other" } else { type_url.short() };
    Type::new(name.to_ascii_lowercase())
}

/// Istio's label where it counts by the whole URL.
pub(super) fn whole(type_url: &TypeUrl) -> Type {
    Type::new(if let TypeUrl::Other(_) = type_url { "other" } else { type_url.as_str() })
}

/// The name of a code of gRPC, as Go's library writes it. Proxies may send any
/// number; those without a name share one.
pub(super) fn code(code: i32) -> String {
    match Code::from_i32(code) {
        Code::Cancelled => "Canceled".to_owned(),
        Code::Ok => "OK".to_owned(),
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_gos_names() {
        for (number, name) in [
            (1, "Canceled"),
            (2, "Unknown"),
            (3, "InvalidArgument"),
            (13, "Internal"),
            (16, "Unauthenticated"),
            (17, "Unknown"),
            (-5, "Unknown"),
            (0, "OK"),
        ] {
            assert_eq!(code(number), name, "{number}");
        }
    }
}
