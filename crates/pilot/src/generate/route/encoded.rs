//! Messages of routes whose parts are encoded already: the same bytes on the
//! wire, where a virtual host is written once however often it is sent, and the
//! routes of a host are not written for each of its names.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use proto::Any;
use proto::envoy::config::route::v3::RouteConfiguration;

/// [`proto::envoy::config::route::v3::VirtualHost`] with encoded routes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Host {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) domains: Vec<String>,
    /// Each a [`proto::envoy::config::route::v3::Route`].
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) routes: Vec<Bytes>,
    #[prost(bool, tag = "14")]
    pub(super) include_request_attempt_count: bool,
    /// Settings of filters, by their names.
    #[prost(btree_map = "string, message", tag = "15")]
    pub(super) typed_per_filter_config: BTreeMap<String, Any>,
}

/// [`RouteConfiguration`] with encoded virtual hosts.
#[derive(Clone, PartialEq, Message)]
pub(in crate::generate) struct Configuration {
    #[prost(string, tag = "1")]
    pub(in crate::generate) name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) virtual_hosts: Vec<Bytes>,
    #[prost(message, optional, tag = "7")]
    pub(super) validate_clusters: Option<bool>,
    #[prost(message, optional, tag = "11")]
    pub(super) max_direct_response_body_size_bytes: Option<u32>,
    #[prost(bool, tag = "14")]
    pub(super) ignore_port_in_host_matching: bool,
}

impl Configuration {
    /// The same with all its parts, for those who change them.
    pub(in crate::generate) fn message(&self) -> RouteConfiguration {
        // What was encoded here can be decoded.
        RouteConfiguration::decode(self.encode_to_vec().as_slice()).unwrap_or_default()
    }
}

/// A message as a part of others.
pub(super) fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use proto::envoy::config::route::v3::{Route, VirtualHost};

    use super::*;
    use crate::generate::route;

    #[test]
    fn bytes_are_those_of_the_whole_message() {
        let routes = vec![Route { name: "a".into(), ..Route::default() }];
        let settings = BTreeMap::from([("f".to_owned(), Any::pack(&Route::default()))]);
        let host = Host {
            name: "h:80".into(),
            domains: vec!["h".into(), "h:80".into()],
            routes: routes.iter().map(encoded).collect(),
            include_request_attempt_count: true,
            typed_per_filter_config: settings.clone(),
        };
        let whole = VirtualHost {
            name: host.name.clone(),
            domains: host.domains.clone(),
            routes,
            include_request_attempt_count: true,
            typed_per_filter_config: settings,
            ..VirtualHost::default()
        };
        assert_eq!(encoded(&host), encoded(&whole));
        let made = route::encoded_configuration("80", vec![encoded(&host)]);
        let whole = route::configuration("80", vec![whole]);
        assert_eq!(encoded(&made), encoded(&whole));
        assert_eq!(made.message(), whole);
    }
}
