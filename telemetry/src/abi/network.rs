//! The functions that Envoy calls of a network filter.

use std::sync::Arc;

use super::STATS;
use super::connection::Connection;
use super::http::destroy;
use super::raw::{Envoy, Lent, Module};
use crate::config::Config;
use crate::fault::guard;
use crate::{log, tcp};

/// The other side has closed.
const REMOTE_CLOSE: u32 = 0;
/// This side has closed.
const LOCAL_CLOSE: u32 = 1;

/// Runs `run` on the filter of one connection, unless its configuration is switched off.
///
/// # Safety
/// `envoy` and `module` must be those of one call of Envoy.
unsafe fn run(
    hook: &'static str,
    (envoy, module): (Envoy, Module),
    run: impl FnOnce(&mut tcp::Filter, &Connection<'_>),
) -> u32 {
    // SAFETY: it came from `filter_new`, and a connection's calls are of one thread, one by one.
    let Some(filter) = (unsafe { module.cast::<tcp::Filter>().cast_mut().as_mut() }) else { return 0 };
    let config = Arc::clone(filter.config());
    // SAFETY: used during this call only.
    let connection = unsafe { Connection::new(envoy) };
    config.switch.guard(hook, (), || run(filter, &connection));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_config_new(
    _: Envoy,
    name: Lent,
    config: Lent,
) -> Module {
    guard("network_filter_config_new", std::ptr::null(), || {
        // SAFETY: lent for this call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        if name != STATS {
            let name = String::from_utf8_lossy(name);
            log::error(&format!("there is no network filter {name}: istio.stats is there"));
            return std::ptr::null();
        }
        match Config::new(config) {
            Ok(config) => Box::into_raw(Box::new(Arc::new(config))).cast_const().cast(),
            Err(error) => {
                log::error(&format!("the configuration of istio.stats is not usable: {error}"));
                std::ptr::null()
            }
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(config: Module) {
    // SAFETY: it came from `config_new`, and this is its last call.
    guard("network_filter_config_destroy", (), || unsafe { destroy::<Arc<Config>>(config) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_new(config: Module, _: Envoy) -> Module {
    guard("network_filter_new", std::ptr::null(), || {
        // SAFETY: it came from `config_new`, and is only read.
        let Some(config) = (unsafe { config.cast::<Arc<Config>>().as_ref() }) else {
            return std::ptr::null();
        };
        Box::into_raw(Box::new(tcp::Filter::new(Arc::clone(config)))).cast_const().cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_destroy(filter: Module) {
    // SAFETY: it came from `filter_new`, and this is its last call.
    guard("network_filter_destroy", (), || unsafe { destroy::<tcp::Filter>(filter) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(_: Envoy, _: Module) -> u32 {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_read(
    envoy: Envoy,
    module: Module,
    length: usize,
    _end: bool,
) -> u32 {
    // SAFETY: both of this call.
    unsafe { run("data", (envoy, module), |filter, connection| filter.data(connection, 0, length as u64)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_write(
    envoy: Envoy,
    module: Module,
    length: usize,
    _end: bool,
) -> u32 {
    // SAFETY: both of this call.
    unsafe { run("data", (envoy, module), |filter, connection| filter.data(connection, length as u64, 0)) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_network_filter_event(envoy: Envoy, module: Module, event: u32) {
    if event == REMOTE_CLOSE || event == LOCAL_CLOSE {
        // SAFETY: both of this call.
        unsafe { run("closed", (envoy, module), |filter, connection| filter.closed(connection)) };
    }
}
