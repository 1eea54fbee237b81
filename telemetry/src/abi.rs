//! The C interface between Envoy and this module: the only place with `unsafe`.
//!
//! Written by hand from `source/extensions/dynamic_modules/abi/abi.h` of Envoy, for what
//! is used here only. Three rules of that file hold everywhere below:
//!
//! - A pointer to one of Envoy's objects is valid during the call that brought it, and is
//!   used by that call's thread only.
//! - Bytes that Envoy lends are valid until the call ends or something is changed. So
//!   what is read borrows from `&self`, and what changes takes `&mut self`.
//! - A pointer that this module gives out comes back unchanged, and last in the call that
//!   destroys it.

#![allow(unsafe_code, reason = "a C interface has no other")]

mod connection;
mod http;
mod network;
mod raw;
mod stream;

use std::ffi::{CStr, c_char};
use std::time::Instant;

use crate::{fault, log, registry};

/// The version of the interface that this module is written for: that of Envoy 1.40.
/// Envoy warns of a module of another version, and refuses what lacks a function.
pub const VERSION: &CStr = c"v0.2.0";

/// The name of the filter that counts and exchanges.
const STATS: &[u8] = b"istio.stats";
/// The name of the filter that shows what was counted.
const SCRAPE: &[u8] = b"istio.scrape";

/// Called once, when Envoy has loaded the library. Every function of Envoy that is used
/// has been found by then: an Envoy of another interface lacks one, and the loader says
/// which. Answers the version, or null to be unloaded.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    fault::guard("program_init", std::ptr::null(), || {
        log::set(write_log);
        // The clock and the registry begin here.
        let _ = (registry::seconds(Instant::now()), registry::global());
        log::info(&format!(
            "telemetry module {} for interface {}",
            env!("CARGO_PKG_VERSION"),
            VERSION.to_string_lossy()
        ));
        VERSION.as_ptr()
    })
}

fn write_log(level: log::Level, line: &str) {
    let line = format!("istio telemetry: {line}");
    // SAFETY: Envoy reads the line before it returns.
    unsafe { raw::envoy_dynamic_module_callback_log(level as u32, raw::Given::of(line.as_bytes())) };
}
