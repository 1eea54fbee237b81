//! Rules of `Endpoints`, as the API server has them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kube::Endpoints;
use crate::validate::Checker;

pub(super) fn check(endpoints: &Endpoints, checker: &mut Checker) {
    for (number, subset) in endpoints.subsets.iter().enumerate() {
        let at = format!("subsets[{number}]");
        let lists = [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)];
        for (name, list) in lists {
            for (index, address) in list.iter().enumerate() {
                if address.ip.parse::<IpAddr>().is_err() {
                    let message = format!("{:?} is not an IP address", address.ip);
                    checker.error(format!("{at}.{name}[{index}].ip"), message);
                }
            }
        }
        let mut names = BTreeSet::new();
        for (index, port) in subset.ports.iter().enumerate() {
            if port.port.is_none_or(|number| number == 0) {
                let message = "is missing or 0: expected 1 to 65535";
                checker.error(format!("{at}.ports[{index}].port"), message);
            }
            let name = port.name.as_deref().unwrap_or_default();
            if !names.insert(name) {
                let message = format!("there are two ports {name:?}: give each another name");
                checker.error(format!("{at}.ports[{index}].name"), message);
            }
        }
    }
}
