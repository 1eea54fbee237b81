//! Rules of `TrafficExtension`.

use proto::istio::extensions::v1alpha1::TrafficExtension;

use crate::validate::Checker;

pub(super) fn check(_: &TrafficExtension, _: &mut Checker) {}
