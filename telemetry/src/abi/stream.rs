//! One HTTP stream, for the length of one call.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::raw::{self, Envoy, Given, Lent, LentHeader};
use crate::attributes::{Attribute, Attributes, Body, Headers, Metadata, Stream};

/// Envoy's side of an HTTP filter.
pub(super) struct HttpStream<'a> {
    filter: Envoy,
    call: PhantomData<&'a ()>,
}

impl HttpStream<'_> {
    /// For the call that brought `filter`.
    ///
    /// # Safety
    /// `filter` must be the pointer of this call, and it must not be used after the call.
    pub(super) const unsafe fn new(filter: Envoy) -> Self {
        Self { filter, call: PhantomData }
    }

    /// What `ask` was lent, where it says that it was.
    fn lent(&self, ask: impl FnOnce(*mut Lent) -> bool) -> Option<&[u8]> {
        let mut lent = Lent::EMPTY;
        // SAFETY: lent until something changes, and what changes takes &mut self.
        ask(&raw mut lent).then(|| unsafe { lent.bytes() })
    }
}

/// What `ask` wrote, where it says that it did.
pub(super) fn written<T: Default>(ask: impl FnOnce(*mut T) -> bool) -> Option<T> {
    let mut value = T::default();
    ask(&raw mut value).then_some(value)
}

// SAFETY of all below: the pointer is valid as `new` says, and Envoy neither keeps what it
// is given nor writes more than one value.
impl Attributes for HttpStream<'_> {
    fn text(&self, id: Attribute) -> Option<&str> {
        let text = self.lent(|result| unsafe {
            raw::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.filter,
                id as u32,
                result,
            )
        });
        std::str::from_utf8(text?).ok()
    }

    fn number(&self, id: Attribute) -> Option<u64> {
        written(|result| unsafe {
            raw::envoy_dynamic_module_callback_http_filter_get_attribute_int(self.filter, id as u32, result)
        })
    }

    fn truth(&self, id: Attribute) -> Option<bool> {
        written(|result| unsafe {
            raw::envoy_dynamic_module_callback_http_filter_get_attribute_bool(self.filter, id as u32, result)
        })
    }

    fn header(&self, map: Headers, name: &str) -> Option<&[u8]> {
        self.lent(|result| unsafe {
            let name = Given::of(name.as_bytes());
            let count = std::ptr::null_mut();
            raw::envoy_dynamic_module_callback_http_get_header(
                self.filter,
                map as u32,
                name,
                result,
                0,
                count,
            )
        })
    }

    fn metadata(&self, source: Metadata, namespace: &str, key: &str) -> Option<&str> {
        let (namespace, key) = (Given::of(namespace.as_bytes()), Given::of(key.as_bytes()));
        let text = self.lent(|result| unsafe {
            let (filter, source) = (self.filter, source as u32);
            raw::envoy_dynamic_module_callback_http_get_metadata_string(
                filter, source, namespace, key, result,
            )
        });
        std::str::from_utf8(text?).ok()
    }

    fn metadata_number(&self, source: Metadata, namespace: &str, key: &str) -> Option<f64> {
        let (namespace, key) = (Given::of(namespace.as_bytes()), Given::of(key.as_bytes()));
        written(|result| unsafe {
            let (filter, source) = (self.filter, source as u32);
            raw::envoy_dynamic_module_callback_http_get_metadata_number(
                filter, source, namespace, key, result,
            )
        })
    }

    fn metadata_truth(&self, source: Metadata, namespace: &str, key: &str) -> Option<bool> {
        let (namespace, key) = (Given::of(namespace.as_bytes()), Given::of(key.as_bytes()));
        written(|result| unsafe {
            let (filter, source) = (self.filter, source as u32);
            raw::envoy_dynamic_module_callback_http_get_metadata_bool(filter, source, namespace, key, result)
        })
    }

    fn filter_state(&self, key: &str) -> Option<&[u8]> {
        self.lent(|result| unsafe {
            let key = Given::of(key.as_bytes());
            raw::envoy_dynamic_module_callback_http_get_filter_state_typed(self.filter, key, result)
        })
    }
}

impl Stream for HttpStream<'_> {
    fn headers<const N: usize>(&self, map: Headers, names: [&str; N]) -> [Option<&[u8]>; N] {
        let number = map as u32;
        let count = unsafe { raw::envoy_dynamic_module_callback_http_get_headers_size(self.filter, number) };
        // Rarely there are more, and then it is no matter.
        let mut all = [const { MaybeUninit::uninit() }; 40];
        let Some(all) = all.get_mut(..count) else {
            return names.map(|name| self.header(map, name));
        };
        // There is room for as many as Envoy said there are, and it writes all of them.
        let all: &[LentHeader] = unsafe {
            let is_done = count > 0
                && raw::envoy_dynamic_module_callback_http_get_headers(
                    self.filter,
                    number,
                    all.as_mut_ptr().cast(),
                );
            if is_done { all.assume_init_ref() } else { &[] }
        };
        let mut found = [None; N];
        for header in all {
            let key = unsafe { header.name.bytes() };
            for (name, found) in names.iter().zip(&mut found) {
                if found.is_none() && key == name.as_bytes() {
                    *found = Some(unsafe { header.value.bytes() });
                }
            }
        }
        found
    }

    fn add_header(&mut self, map: Headers, name: &str, value: &[u8]) {
        let (name, value) = (Given::of(name.as_bytes()), Given::of(value));
        unsafe {
            raw::envoy_dynamic_module_callback_http_add_header(self.filter, map as u32, name, value);
        }
    }

    fn set_header(&mut self, map: Headers, name: &str, value: &[u8]) {
        let (name, value) = (Given::of(name.as_bytes()), Given::of(value));
        unsafe {
            raw::envoy_dynamic_module_callback_http_set_header(self.filter, map as u32, name, value);
        }
    }

    fn remove_header(&mut self, map: Headers, name: &str) {
        let (name, value) = (Given::of(name.as_bytes()), Given::null());
        unsafe {
            raw::envoy_dynamic_module_callback_http_set_header(self.filter, map as u32, name, value);
        }
    }

    fn body(&self, from: Body, each: &mut dyn FnMut(&[u8])) {
        let from = from as u32;
        let count =
            unsafe { raw::envoy_dynamic_module_callback_http_get_body_chunks_size(self.filter, from) };
        // Mostly there are few pieces, and no memory is needed for them.
        let mut few = [Lent::EMPTY; 8];
        let mut many = Vec::new();
        let pieces = if let Some(pieces) = few.get_mut(..count) {
            pieces
        } else {
            many.resize(count, Lent::EMPTY);
            many.as_mut_slice()
        };
        // There is room for as many pieces as Envoy said there are.
        let done = count > 0
            && unsafe {
                raw::envoy_dynamic_module_callback_http_get_body_chunks(
                    self.filter,
                    from,
                    pieces.as_mut_ptr(),
                )
            };
        for piece in pieces.iter().filter(|_| done) {
            each(unsafe { piece.bytes() });
        }
    }

    fn append_response(&mut self, data: &[u8]) -> bool {
        let (body, data) = (Body::Response as u32, Given::of(data));
        unsafe { raw::envoy_dynamic_module_callback_http_append_body(self.filter, body, data) }
    }
}
