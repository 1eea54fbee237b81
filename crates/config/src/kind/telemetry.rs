//! Rules of `Telemetry`.

use proto::istio::telemetry::v1alpha1::Telemetry;

use crate::validate::Checker;

pub(super) fn check(_: &Telemetry, _: &mut Checker) {}
