//! One connection, for the length of one call.

use std::marker::PhantomData;

use super::raw::{self, Envoy, Given, Lent};
use super::stream::written;
use crate::attributes::{Attribute, Attributes, Headers, Metadata};

/// Envoy's side of a network filter.
pub(super) struct Connection<'a> {
    filter: Envoy,
    call: PhantomData<&'a ()>,
}

impl Connection<'_> {
    /// For the call that brought `filter`.
    ///
    /// # Safety
    /// `filter` must be the pointer of this call, and it must not be used after the call.
    pub(super) const unsafe fn new(filter: Envoy) -> Self {
        Self { filter, call: PhantomData }
    }

    fn lent(&self, ask: impl FnOnce(*mut Lent) -> bool) -> Option<&[u8]> {
        let mut lent = Lent::EMPTY;
        // SAFETY: lent until the call ends; nothing here changes anything.
        ask(&raw mut lent).then(|| unsafe { lent.bytes() })
    }
}

// SAFETY of all below: the pointer is valid as `new` says, and Envoy neither keeps what it
// is given nor writes more than one value. Of metadata a connection has its own, and one
// text of the endpoint's.
impl Attributes for Connection<'_> {
    fn text(&self, id: Attribute) -> Option<&str> {
        let text = self.lent(|result| unsafe {
            raw::envoy_dynamic_module_callback_network_filter_get_attribute_string(
                self.filter,
                id as u32,
                result,
            )
        });
        std::str::from_utf8(text?).ok()
    }

    fn number(&self, id: Attribute) -> Option<u64> {
        written(|result| unsafe {
            raw::envoy_dynamic_module_callback_network_filter_get_attribute_int(
                self.filter,
                id as u32,
                result,
            )
        })
    }

    fn truth(&self, id: Attribute) -> Option<bool> {
        written(|result| unsafe {
            raw::envoy_dynamic_module_callback_network_filter_get_attribute_bool(
                self.filter,
                id as u32,
                result,
            )
        })
    }

    fn header(&self, _: Headers, _: &str) -> Option<&[u8]> {
        None
    }

    fn metadata(&self, source: Metadata, namespace: &str, key: &str) -> Option<&str> {
        let text = match (source, namespace, key) {
            (Metadata::Dynamic, ..) => self.lent(|result| unsafe {
                raw::envoy_dynamic_module_callback_network_get_dynamic_metadata_string(
                    self.filter,
                    Given::of(namespace.as_bytes()),
                    Given::of(key.as_bytes()),
                    result,
                )
            }),
            // Of an endpoint a connection sees the name only, so istiod writes this text there
            // too. What a name of DNS cannot have tells them apart.
            (Metadata::Host, "istio", "workload") => self
                .lent(|result| unsafe {
                    raw::envoy_dynamic_module_callback_network_filter_get_upstream_host_hostname(
                        self.filter,
                        result,
                    )
                })
                .filter(|name| name.contains(&b';')),
            _ => None,
        };
        std::str::from_utf8(text?).ok()
    }

    fn metadata_number(&self, source: Metadata, namespace: &str, key: &str) -> Option<f64> {
        let (namespace, key) = (Given::of(namespace.as_bytes()), Given::of(key.as_bytes()));
        written(|result| unsafe {
            source == Metadata::Dynamic
                && raw::envoy_dynamic_module_callback_network_get_dynamic_metadata_number(
                    self.filter,
                    namespace,
                    key,
                    result,
                )
        })
    }

    fn metadata_truth(&self, source: Metadata, namespace: &str, key: &str) -> Option<bool> {
        let (namespace, key) = (Given::of(namespace.as_bytes()), Given::of(key.as_bytes()));
        written(|result| unsafe {
            source == Metadata::Dynamic
                && raw::envoy_dynamic_module_callback_network_get_dynamic_metadata_bool(
                    self.filter,
                    namespace,
                    key,
                    result,
                )
        })
    }

    fn filter_state(&self, key: &str) -> Option<&[u8]> {
        self.lent(|result| unsafe {
            let key = Given::of(key.as_bytes());
            raw::envoy_dynamic_module_callback_network_get_filter_state_typed(self.filter, key, result)
        })
    }
}
