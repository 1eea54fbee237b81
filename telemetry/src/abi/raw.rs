//! Types and functions as they are in C.

use std::ffi::c_void;
use std::marker::PhantomData;

/// One of Envoy's objects.
pub(super) type Envoy = *mut c_void;
/// One of ours, as Envoy holds it.
pub(super) type Module = *const c_void;

/// Bytes that this module lends: `envoy_dynamic_module_type_module_buffer`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    ptr: *const u8,
    length: usize,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> Given<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { ptr: bytes.as_ptr(), length: bytes.len(), lent: PhantomData }
    }

    /// Where Envoy takes it as: nothing.
    pub(super) const fn null() -> Self {
        Self { ptr: std::ptr::null(), length: 0, lent: PhantomData }
    }
}

/// Bytes that Envoy lends: `envoy_dynamic_module_type_envoy_buffer`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Lent {
    ptr: *const u8,
    length: usize,
}

impl Lent {
    pub(super) const EMPTY: Self = Self { ptr: std::ptr::null(), length: 0 };

    /// The bytes.
    ///
    /// # Safety
    /// Envoy must not take them back during `'a`.
    pub(super) unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: Envoy lends that many bytes there, for at least 'a as the caller says.
        unsafe { std::slice::from_raw_parts(self.ptr, self.length) }
    }
}

/// A header that Envoy lends: `envoy_dynamic_module_type_envoy_http_header`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LentHeader {
    pub(super) name: Lent,
    pub(super) value: Lent,
}

// Each is described in abi.h under its name. `u32` stands for the enumerations.
unsafe extern "C" {
    pub(super) fn envoy_dynamic_module_callback_log(level: u32, message: Given<'_>);

    pub(super) fn envoy_dynamic_module_callback_http_get_header(
        filter: Envoy,
        map: u32,
        key: Given<'_>,
        result: *mut Lent,
        index: usize,
        count: *mut usize,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_headers_size(filter: Envoy, map: u32) -> usize;
    /// Writes as many as there are.
    pub(super) fn envoy_dynamic_module_callback_http_get_headers(
        filter: Envoy,
        map: u32,
        result: *mut LentHeader,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_add_header(
        filter: Envoy,
        map: u32,
        key: Given<'_>,
        value: Given<'_>,
    ) -> bool;
    /// A null value removes the header.
    pub(super) fn envoy_dynamic_module_callback_http_set_header(
        filter: Envoy,
        map: u32,
        key: Given<'_>,
        value: Given<'_>,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_body_chunks_size(filter: Envoy, body: u32) -> usize;
    pub(super) fn envoy_dynamic_module_callback_http_get_body_chunks(
        filter: Envoy,
        body: u32,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_append_body(
        filter: Envoy,
        body: u32,
        data: Given<'_>,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: Envoy,
        id: u32,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        filter: Envoy,
        id: u32,
        result: *mut u64,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_filter_get_attribute_bool(
        filter: Envoy,
        id: u32,
        result: *mut bool,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_metadata_string(
        filter: Envoy,
        source: u32,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_metadata_number(
        filter: Envoy,
        source: u32,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut f64,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_metadata_bool(
        filter: Envoy,
        source: u32,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut bool,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_http_get_filter_state_typed(
        filter: Envoy,
        key: Given<'_>,
        result: *mut Lent,
    ) -> bool;

    pub(super) fn envoy_dynamic_module_callback_network_filter_get_attribute_string(
        filter: Envoy,
        id: u32,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_filter_get_attribute_int(
        filter: Envoy,
        id: u32,
        result: *mut u64,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_filter_get_attribute_bool(
        filter: Envoy,
        id: u32,
        result: *mut bool,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_filter_get_upstream_host_hostname(
        filter: Envoy,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_get_dynamic_metadata_string(
        filter: Envoy,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut Lent,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_get_dynamic_metadata_number(
        filter: Envoy,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut f64,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_get_dynamic_metadata_bool(
        filter: Envoy,
        namespace: Given<'_>,
        key: Given<'_>,
        result: *mut bool,
    ) -> bool;
    pub(super) fn envoy_dynamic_module_callback_network_get_filter_state_typed(
        filter: Envoy,
        key: Given<'_>,
        result: *mut Lent,
    ) -> bool;
}
