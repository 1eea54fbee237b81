//! Times and sizes, in Istio's buckets.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::label::Type;

/// Seconds of what is often quick.
pub(super) const SECONDS: &[f64] = &[0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Seconds until a proxy is served.
pub(super) const PROXY: &[f64] = &[0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Seconds to send something.
pub(super) const SENDING: &[f64] = &[0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Seconds to index a configuration.
pub(super) const INDEXING: &[f64] = &[0.01, 0.1, 0.5, 1.0, 3.0, 5.0];
/// Bytes of a response.
const BYTES: &[f64] = &[1.0, 10e3, 1e6, 4e6, 10e6, 40e6];

/// Times or sizes by type.
pub(super) type ByType = Family<Type, Histogram, fn() -> Histogram>;

/// A histogram of these buckets.
pub(super) fn histogram(buckets: &[f64]) -> Histogram {
    Histogram::new(buckets.iter().copied())
}

/// Seconds by type.
pub(super) fn seconds_by_type() -> ByType {
    Family::new_with_constructor(|| histogram(SECONDS))
}

/// Bytes by type.
pub(super) fn bytes_by_type() -> ByType {
    Family::new_with_constructor(|| histogram(BYTES))
}
