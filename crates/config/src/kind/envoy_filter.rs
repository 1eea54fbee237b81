//! Rules of `EnvoyFilter`.

use proto::istio::networking::v1alpha3::EnvoyFilter;

use crate::validate::Checker;

pub(super) fn check(_: &EnvoyFilter, _: &mut Checker) {}
