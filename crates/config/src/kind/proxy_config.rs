//! Rules of `ProxyConfig`.

use proto::istio::networking::v1beta1::ProxyConfig;

use crate::validate::Checker;

pub(super) fn check(_: &ProxyConfig, _: &mut Checker) {}
