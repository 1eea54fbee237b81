//! What the filters may ask Envoy about a request or a connection.

/// An attribute of a stream, with Envoy's own number for it.
/// <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[allow(missing_docs, reason = "each is described at Envoy's list of attributes")]
pub enum Attribute {
    RequestPath = 0,
    RequestUrlPath = 1,
    RequestHost = 2,
    RequestScheme = 3,
    RequestMethod = 4,
    RequestReferer = 6,
    RequestUserAgent = 7,
    RequestId = 9,
    RequestProtocol = 10,
    RequestQuery = 11,
    RequestSize = 13,
    RequestTotalSize = 14,
    ResponseCode = 15,
    ResponseCodeDetails = 16,
    ResponseFlags = 17,
    ResponseGrpcStatus = 18,
    ResponseSize = 21,
    ResponseTotalSize = 22,
    SourceAddress = 24,
    SourcePort = 25,
    DestinationAddress = 26,
    DestinationPort = 27,
    ConnectionId = 28,
    ConnectionMtls = 29,
    ConnectionRequestedServerName = 30,
    ConnectionTlsVersion = 31,
    ConnectionSubjectLocalCertificate = 32,
    ConnectionSubjectPeerCertificate = 33,
    ConnectionDnsSanLocalCertificate = 34,
    ConnectionDnsSanPeerCertificate = 35,
    ConnectionUriSanLocalCertificate = 36,
    ConnectionUriSanPeerCertificate = 37,
    ConnectionSha256PeerCertificateDigest = 38,
    ConnectionTransportFailureReason = 39,
    ConnectionTerminationDetails = 40,
    UpstreamAddress = 41,
    UpstreamPort = 42,
    UpstreamTlsVersion = 43,
    UpstreamSubjectLocalCertificate = 44,
    UpstreamSubjectPeerCertificate = 45,
    UpstreamDnsSanLocalCertificate = 46,
    UpstreamDnsSanPeerCertificate = 47,
    UpstreamUriSanLocalCertificate = 48,
    UpstreamUriSanPeerCertificate = 49,
    UpstreamSha256PeerCertificateDigest = 50,
    UpstreamLocalAddress = 51,
    UpstreamTransportFailureReason = 52,
    UpstreamRequestAttemptCount = 53,
    XdsClusterName = 57,
    XdsListenerDirection = 59,
    XdsRouteName = 61,
    XdsVirtualHostName = 63,
    XdsFilterChainName = 66,
}

/// A map of headers of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Headers {
    Request = 0,
    RequestTrailers = 1,
    Response = 2,
    ResponseTrailers = 3,
}

/// Where metadata of a stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Metadata {
    Dynamic = 0,
    Route = 1,
    Cluster = 2,
    Host = 3,
    HostLocality = 4,
}

/// What can be read of a request or a connection at any time in its life.
pub trait Attributes {
    /// An attribute that is text; none where Envoy does not have it (yet).
    fn text(&self, id: Attribute) -> Option<&str>;
    /// An attribute that is a number.
    fn number(&self, id: Attribute) -> Option<u64>;
    /// An attribute that is true or false.
    fn truth(&self, id: Attribute) -> Option<bool>;
    /// The first value of a header; the name is in lower case.
    fn header(&self, map: Headers, name: &str) -> Option<&[u8]>;
    /// Text at `namespace`, `key` of metadata.
    fn metadata(&self, source: Metadata, namespace: &str, key: &str) -> Option<&str>;
    /// A number at `namespace`, `key` of metadata.
    fn metadata_number(&self, source: Metadata, namespace: &str, key: &str) -> Option<f64>;
    /// True or false at `namespace`, `key` of metadata.
    fn metadata_truth(&self, source: Metadata, namespace: &str, key: &str) -> Option<bool>;
    /// A filter state, as text.
    fn filter_state(&self, key: &str) -> Option<&[u8]>;
}

/// What the HTTP filter may change of a stream, and its bodies.
pub trait Stream: Attributes {
    /// The first value of each header; the names are in lower case. One pass over the map:
    /// a look-up of a name that Envoy does not keep a place for has it build an index first.
    fn headers<const N: usize>(&self, map: Headers, names: [&str; N]) -> [Option<&[u8]>; N];
    /// Adds a header that is not there.
    fn add_header(&mut self, map: Headers, name: &str, value: &[u8]);
    /// Sets a header, instead of all values that it had.
    fn set_header(&mut self, map: Headers, name: &str, value: &[u8]);
    /// Removes all values of a header.
    fn remove_header(&mut self, map: Headers, name: &str);
    /// Calls `each` with every piece of the body that has just come.
    fn body(&self, from: Body, each: &mut dyn FnMut(&[u8]));
    /// Adds to the end of the response's body that has just come. False when there is none.
    fn append_response(&mut self, data: &[u8]) -> bool;
}

/// Which body has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Body {
    /// What the client sent.
    Request = 0,
    /// What the server sent.
    Response = 2,
}

#[cfg(test)]
pub(crate) mod fake;
