//! Rules of `Secret`.

use crate::kube::Secret;

use crate::validate::Checker;

pub(super) fn check(_: &Secret, _: &mut Checker) {}
