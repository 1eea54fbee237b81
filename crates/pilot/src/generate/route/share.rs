//! Shares of requests.

use proto::envoy::config::core::v3::RuntimeFractionalPercent;
use proto::envoy::r#type::v3::FractionalPercent;
use proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use proto::istio::networking::v1alpha3::Percent;

/// A percentage, of which Envoy takes four decimals.
pub(super) fn of(percent: &Percent) -> FractionalPercent {
    // Within 0 and 100, so the product fits; what is no number becomes 0.
    let numerator = (percent.value.clamp(0.0, 100.0) * 10_000.0) as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million.into() }
}

/// A whole percentage.
pub(super) fn whole(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent.min(100), denominator: DenominatorType::Hundred.into() }
}

/// A share that no runtime setting changes.
pub(super) fn fixed(share: FractionalPercent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent { default_value: Some(share), ..RuntimeFractionalPercent::default() }
}
