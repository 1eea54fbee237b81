//! Rules of `Sidecar`.

use proto::istio::networking::v1alpha3::Sidecar;

use crate::validate::Checker;

pub(super) fn check(_: &Sidecar, _: &mut Checker) {}
