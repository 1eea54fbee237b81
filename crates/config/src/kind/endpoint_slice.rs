//! Rules of `EndpointSlice`, as the API server has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kube::EndpointSlice;
use crate::validate::Checker;

/// Fields that the mesh does not use.
pub(super) const UNUSED: &[&str] = &[
    "hints",
    "forZones",
    "forNodes",
    "deprecatedTopology",
    "uid",
    "apiVersion",
    "resourceVersion",
    "fieldPath",
];

pub(super) fn check(slice: &EndpointSlice, checker: &mut Checker) {
    checker.one_of("addressType", &slice.address_type, &["IPv4", "IPv6", "FQDN"]);
    if slice.address_type == "FQDN" {
        checker.warn("addressType", "FQDN has no effect: only endpoints with IP addresses are used");
    }
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (number, address) in endpoint.addresses.iter().enumerate() {
            let fits = match slice.address_type.as_str() {
                "IPv4" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
                "IPv6" => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
                _ => true,
            };
            if !fits {
                let message = format!("{address:?} is not an address of type {}", slice.address_type);
                checker.error(format!("endpoints[{index}].addresses[{number}]"), message);
            }
        }
    }
    let mut names = BTreeSet::new();
    for (index, port) in slice.ports.iter().enumerate() {
        if port.port == Some(0) {
            checker.error(format!("ports[{index}].port"), "0 is not a port: expected 1 to 65535");
        }
        let name = port.name.as_deref().unwrap_or_default();
        if !names.insert(name) {
            checker.error(format!("ports[{index}].name"), format!("there are two ports {name:?}"));
        }
    }
}
