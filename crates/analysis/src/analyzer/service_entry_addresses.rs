//! ServiceEntries for TCP without an address: there is nothing to tell them by.

use proto::istio::networking::v1alpha3::ServiceEntry;

use super::Report;
use crate::{Body, Code, Kind, Resource, World};

pub(super) fn run<'a>(world: &'a World, report: &mut Report<'a>) {
    let proxy = world.mesh.default_config.as_ref();
    let is_set = |name: &str| {
        proxy.and_then(|proxy| proxy.proxy_metadata.get(name)).is_some_and(|value| value == "true")
    };
    let allocates = is_set("ISTIO_META_DNS_CAPTURE")
        && (is_set("ISTIO_META_DNS_AUTO_ALLOCATE") || is_set("PILOT_ENABLE_IP_AUTOALLOCATE"));
    if allocates {
        return;
    }
    for (one, entry) in world.all::<ServiceEntry>(Kind::ServiceEntry) {
        if !entry.addresses.is_empty() || has_addresses(one) {
            continue;
        }
        for (index, port) in entry.ports.iter().enumerate() {
            if port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP") {
                let field = format!("spec.ports[{index}].name");
                report.add_at(Code::ServiceEntryAddressesRequired, one, &field, &[]);
            }
        }
    }
}

/// Whether the control plane has given its hosts addresses.
fn has_addresses(one: &Resource) -> bool {
    matches!(&one.body, Body::Istio(content) if content.has_addresses)
}
