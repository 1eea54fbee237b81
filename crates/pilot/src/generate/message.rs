//! Small pieces that many of Envoy's messages are made of.

use std::collections::BTreeMap;

use prost::Name;
use prost_types::value::Kind as ValueKind;
use prost_types::{ListValue, Struct, Value};
use proto::Any;
use proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use proto::envoy::config::core::v3::socket_address::PortSpecifier;
use proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Metadata, SocketAddress, TransportSocket,
    address, transport_socket,
};
use proto::envoy::config::listener::v3::{Filter, filter};
use proto::wkt::Duration;

use crate::snapshot::Service;

pub(super) fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Longest time that Envoy counts in nanoseconds, in seconds.
const LONGEST: i64 = i64::MAX / 1_000_000_000 - 1;

/// A time of an object, if Envoy takes it: not a negative one, nor one of more than 292 years.
pub(super) fn time(of: Option<Duration>) -> Option<prost_types::Duration> {
    let is_time =
        |time: &Duration| (0..=LONGEST).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
    of.filter(is_time).map(Into::into)
}

/// The same where Envoy does not take zero either.
pub(super) fn time_over_zero(of: Option<Duration>) -> Option<prost_types::Duration> {
    time(of.filter(|time| time.as_nanos() > 0))
}

pub(super) fn socket_address(address: &str, port: u16) -> SocketAddress {
    SocketAddress {
        address: address.into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    }
}

pub(super) fn address(ip: &str, port: u16) -> Address {
    Address { address: Some(address::Address::SocketAddress(socket_address(ip, port))) }
}

/// "Ask for it on the stream that this came by, and wait for it."
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: seconds(0),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        ..ConfigSource::default()
    }
}

pub(super) fn network_filter<M: prost::Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(Any::pack(config))) }
}

pub(super) fn transport_socket<M: prost::Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(Any::pack(config))),
    }
}

fn value(kind: ValueKind) -> Value {
    Value { kind: Some(kind) }
}

pub(super) fn text(text: impl Into<String>) -> Value {
    value(ValueKind::StringValue(text.into()))
}

pub(super) fn truth(truth: bool) -> Value {
    value(ValueKind::BoolValue(truth))
}

pub(super) fn structure<const N: usize>(fields: [(&str, Value); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
}

/// Metadata of the namespaces given.
pub(super) fn metadata<const N: usize>(namespaces: [(&str, Struct); N]) -> Metadata {
    Metadata {
        filter_metadata: namespaces.into_iter().map(|(name, fields)| (name.to_owned(), fields)).collect(),
        typed_filter_metadata: BTreeMap::new(),
    }
}

/// `services` of a cluster's metadata, which telemetry reads.
pub(super) fn service_list<'a>(services: impl Iterator<Item = &'a Service>) -> Value {
    let values = services
        .map(|service| {
            let fields = [
                ("host", text(service.host.as_str())),
                ("name", text(&service.name)),
                ("namespace", text(&service.namespace)),
            ];
            value(ValueKind::StructValue(structure(fields)))
        })
        .collect();
    value(ValueKind::ListValue(ListValue { values }))
}

/// Path of an object in the Kubernetes API, which `config` metadata holds.
pub(super) fn api_path(group: &str, kind: &str, namespace: &str, name: &str) -> Value {
    text(format!("/apis/{group}/v1/namespaces/{namespace}/{kind}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_envoy_refuses_are_none() {
        for (seconds, nanos, is_time, is_over_zero) in [
            (5, 0, true, true),
            (0, 1, true, true),
            (0, 0, true, false),
            (-1, 0, false, false),
            (0, -1, false, false),
            (5, -1, false, false),
            (0, 1_000_000_000, false, false),
            (i64::MAX, 0, false, false),
            (LONGEST, 999_999_999, true, true),
        ] {
            let of = Some(Duration { seconds, nanos });
            assert_eq!(time(of).is_some(), is_time, "{of:?}");
            assert_eq!(time_over_zero(of).is_some(), is_over_zero, "{of:?}");
        }
        assert_eq!(time(None), None);
    }
}
