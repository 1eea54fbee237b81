//! Rules of `RequestAuthentication`.

use proto::istio::security::v1beta1::RequestAuthentication;

use crate::validate::Checker;

pub(super) fn check(_: &RequestAuthentication, _: &mut Checker) {}
