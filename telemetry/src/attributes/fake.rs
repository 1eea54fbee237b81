//! A stream without an Envoy, for the tests.

use std::collections::BTreeMap;

use super::{Attribute, Attributes, Body, Headers, Metadata, Stream};

/// What a test says there is.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) texts: BTreeMap<Attribute, String>,
    pub(crate) numbers: BTreeMap<Attribute, u64>,
    pub(crate) request: BTreeMap<String, String>,
    pub(crate) response: BTreeMap<String, String>,
    /// By source, namespace and key.
    pub(crate) metadata: BTreeMap<(u32, String, String), String>,
    /// Of clusters, in namespace `istio`.
    pub(crate) truths: Vec<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) appended: Vec<u8>,
}

impl Fake {
    pub(crate) fn text(mut self, id: Attribute, text: &str) -> Self {
        self.texts.insert(id, text.into());
        self
    }

    pub(crate) fn number(mut self, id: Attribute, number: u64) -> Self {
        self.numbers.insert(id, number);
        self
    }

    pub(crate) fn request(mut self, name: &str, value: &str) -> Self {
        self.request.insert(name.into(), value.into());
        self
    }

    pub(crate) fn response(mut self, name: &str, value: &str) -> Self {
        self.response.insert(name.into(), value.into());
        self
    }

    pub(crate) fn metadata(mut self, source: Metadata, namespace: &str, key: &str, text: &str) -> Self {
        self.metadata.insert((source as u32, namespace.into(), key.into()), text.into());
        self
    }

    fn map(&mut self, map: Headers) -> &mut BTreeMap<String, String> {
        if map == Headers::Request { &mut self.request } else { &mut self.response }
    }
}

impl Attributes for Fake {
    fn text(&self, id: Attribute) -> Option<&str> {
        self.texts.get(&id).map(String::as_str)
    }

    fn number(&self, id: Attribute) -> Option<u64> {
        self.numbers.get(&id).copied()
    }

    fn truth(&self, _: Attribute) -> Option<bool> {
        None
    }

    fn header(&self, map: Headers, name: &str) -> Option<&[u8]> {
        let map = match map {
            Headers::Request => &self.request,
            Headers::Response => &self.response,
            _ => return None,
        };
        map.get(name).map(String::as_bytes)
    }

    fn metadata(&self, source: Metadata, namespace: &str, key: &str) -> Option<&str> {
        self.metadata.get(&(source as u32, namespace.into(), key.into())).map(String::as_str)
    }

    fn metadata_number(&self, _: Metadata, _: &str, _: &str) -> Option<f64> {
        None
    }

    fn metadata_truth(&self, source: Metadata, namespace: &str, key: &str) -> Option<bool> {
        let asked = source == Metadata::Cluster && namespace == "istio";
        (asked && self.truths.iter().any(|truth| truth == key)).then_some(true)
    }

    fn filter_state(&self, key: &str) -> Option<&[u8]> {
        (key == "state").then_some(b"kept")
    }
}

impl Stream for Fake {
    fn headers<const N: usize>(&self, map: Headers, names: [&str; N]) -> [Option<&[u8]>; N] {
        names.map(|name| self.header(map, name))
    }

    fn add_header(&mut self, map: Headers, name: &str, value: &[u8]) {
        let value = String::from_utf8_lossy(value).into_owned();
        assert_eq!(self.map(map).insert(name.into(), value), None, "{name} is there already");
    }

    fn set_header(&mut self, map: Headers, name: &str, value: &[u8]) {
        self.map(map).insert(name.into(), String::from_utf8_lossy(value).into_owned());
    }

    fn remove_header(&mut self, map: Headers, name: &str) {
        self.map(map).remove(name);
    }

    fn body(&self, _: Body, each: &mut dyn FnMut(&[u8])) {
        for piece in self.body.chunks(7) {
            each(piece);
        }
    }

    fn append_response(&mut self, data: &[u8]) -> bool {
        self.appended.extend(data);
        true
    }
}
