//! Rules of `AuthorizationPolicy`.

use proto::istio::security::v1beta1::AuthorizationPolicy;

use crate::validate::Checker;

pub(super) fn check(_: &AuthorizationPolicy, _: &mut Checker) {}
