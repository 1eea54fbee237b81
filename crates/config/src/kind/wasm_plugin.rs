//! Rules of `WasmPlugin`.

use proto::istio::extensions::v1alpha1::WasmPlugin;

use crate::validate::Checker;

pub(super) fn check(_: &WasmPlugin, _: &mut Checker) {}
