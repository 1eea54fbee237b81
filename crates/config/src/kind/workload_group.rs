//! Rules of `WorkloadGroup`.

use proto::istio::networking::v1alpha3::WorkloadGroup;

use crate::validate::Checker;

pub(super) fn check(_: &WorkloadGroup, _: &mut Checker) {}
