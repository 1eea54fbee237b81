//! The functions that Envoy calls of an HTTP filter.
//!
//! Envoy refuses a configuration when one of them is missing, used or not. Each answers 0,
//! which means that the stream goes on.

use std::ffi::c_void;
use std::sync::Arc;

use super::raw::{Envoy, Lent, Module};
use super::stream::HttpStream;
use super::{SCRAPE, STATS};
use crate::config::Config;
use crate::fault::{Switch, guard};
use crate::{http, log, scrape};

/// A configuration, as Envoy holds it.
enum Kind {
    Stats(Arc<Config>),
    Scrape(Arc<Switch>),
}

/// A stream's filter, as Envoy holds it.
enum Filter {
    Stats(http::Filter),
    Scrape(scrape::Filter, Arc<Switch>),
}

/// Runs `run` on the filter of one stream, unless its configuration is switched off.
///
/// # Safety
/// `envoy` and `module` must be those of one call of Envoy.
unsafe fn run(
    hook: &'static str,
    (envoy, module): (Envoy, Module),
    run: impl FnOnce(&mut Filter, &mut HttpStream<'_>),
) -> u32 {
    // SAFETY: it came from `filter_new`, and a stream's calls are of one thread, one by one.
    let Some(filter) = (unsafe { module.cast::<Filter>().cast_mut().as_mut() }) else { return 0 };
    let switch = match filter {
        Filter::Stats(filter) => &raw const filter.config().switch,
        Filter::Scrape(_, switch) => Arc::as_ptr(switch),
    };
    // SAFETY: the filter's own share keeps it, and no hook lets go of that.
    let switch = unsafe { &*switch };
    // SAFETY: used during this call only.
    let mut stream = unsafe { HttpStream::new(envoy) };
    switch.guard(hook, (), || run(filter, &mut stream));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    _: Envoy,
    name: Lent,
    config: Lent,
) -> Module {
    guard("http_filter_config_new", std::ptr::null(), || {
        // SAFETY: lent for this call.
        let (name, config) = unsafe { (name.bytes(), config.bytes()) };
        let kind = match name {
            STATS => match Config::new(config) {
                Ok(config) => Kind::Stats(Arc::new(config)),
                Err(error) => {
                    log::error(&format!("the configuration of istio.stats is not usable: {error}"));
                    return std::ptr::null();
                }
            },
            SCRAPE => Kind::Scrape(Arc::default()),
            other => {
                let name = String::from_utf8_lossy(other);
                log::error(&format!("there is no filter {name}: istio.stats and istio.scrape are there"));
                return std::ptr::null();
            }
        };
        Box::into_raw(Box::new(kind)).cast_const().cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: Module) {
    // SAFETY: it came from `config_new`, and this is its last call.
    guard("http_filter_config_destroy", (), || unsafe { destroy::<Kind>(config) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(config: Module, _: Envoy) -> Module {
    guard("http_filter_new", std::ptr::null(), || {
        // SAFETY: it came from `config_new`, and is only read.
        let Some(kind) = (unsafe { config.cast::<Kind>().as_ref() }) else { return std::ptr::null() };
        let filter = match kind {
            Kind::Stats(config) => Filter::Stats(http::Filter::new(Arc::clone(config))),
            Kind::Scrape(switch) => Filter::Scrape(scrape::Filter::default(), Arc::clone(switch)),
        };
        Box::into_raw(Box::new(filter)).cast_const().cast()
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: Module) {
    // SAFETY: it came from `filter_new`, and this is its last call.
    guard("http_filter_destroy", (), || unsafe { destroy::<Filter>(filter) });
}

/// Takes back what was given out.
///
/// # Safety
/// `given` must come from `Box::into_raw` of that type, and must not be used again.
pub(super) unsafe fn destroy<T>(given: *const c_void) {
    if !given.is_null() {
        // SAFETY: as the caller says.
        drop(unsafe { Box::from_raw(given.cast::<T>().cast_mut()) });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    envoy: Envoy,
    module: Module,
    _end: bool,
) -> u32 {
    let call = (envoy, module);
    // SAFETY: both of this call.
    unsafe {
        run("request_headers", call, |filter, stream| match filter {
            Filter::Stats(filter) => filter.request_headers(stream),
            Filter::Scrape(filter, _) => filter.request_headers(stream),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    envoy: Envoy,
    module: Module,
    _end: bool,
) -> u32 {
    let call = (envoy, module);
    // SAFETY: both of this call.
    unsafe {
        run("request_body", call, |filter, stream| {
            if let Filter::Stats(filter) = filter {
                filter.request_body(stream);
            }
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    envoy: Envoy,
    module: Module,
    _end: bool,
) -> u32 {
    let call = (envoy, module);
    // SAFETY: both of this call.
    unsafe {
        run("response_headers", call, |filter, stream| match filter {
            Filter::Stats(filter) => filter.response_headers(stream),
            Filter::Scrape(filter, _) => filter.response_headers(stream),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    envoy: Envoy,
    module: Module,
    end: bool,
) -> u32 {
    let call = (envoy, module);
    // SAFETY: both of this call.
    unsafe {
        run("response_body", call, |filter, stream| match filter {
            Filter::Stats(filter) => filter.response_body(stream),
            Filter::Scrape(filter, _) => filter.response_body(stream, end),
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(envoy: Envoy, module: Module) {
    let call = (envoy, module);
    // SAFETY: both of this call.
    unsafe {
        run("complete", call, |filter, stream| {
            if let Filter::Stats(filter) = filter {
                filter.complete(stream);
            }
        })
    };
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(_: Envoy, _: Module) -> u32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(_: Envoy, _: Module) -> u32 {
    0
}

// What follows is never called here: this module asks Envoy for none of it.

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    _: Envoy,
    _: Module,
    _: u64,
    _: u32,
    _: *const c_void,
    _: usize,
    _: *const c_void,
    _: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    _: Envoy,
    _: Module,
    _: u64,
    _: *const c_void,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    _: Envoy,
    _: Module,
    _: u64,
    _: *const c_void,
    _: usize,
    _: bool,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    _: Envoy,
    _: Module,
    _: u64,
    _: *const c_void,
    _: usize,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(_: Envoy, _: Module, _: u64) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(_: Envoy, _: Module, _: u64, _: u32) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(_: Envoy, _: Module, _: u64) {}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    _: Envoy,
    _: Module,
) {
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    _: Envoy,
    _: Module,
) {
}
