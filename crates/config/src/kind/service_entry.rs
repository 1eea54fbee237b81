//! Rules of `ServiceEntry`.

use crate::kube::ServiceEntry;

use crate::validate::Checker;

pub(super) fn check(_: &ServiceEntry, _: &mut Checker) {}
