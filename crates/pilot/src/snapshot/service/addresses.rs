//! Addresses of services: those of one proxy, and those that are allocated for
//! hosts without any.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use names::{Hostname, label};

use super::{AutoAddresses, Registry, Resolution, Service};
use crate::proxy::Proxy;

/// First address and size of the range for IPv4, `240.240.0.0/16`, which is
/// reserved and routed nowhere.
const V4: (Ipv4Addr, u32) = (Ipv4Addr::new(240, 240, 0, 0), 1 << 16);
/// The range for IPv6, `2001:2::/48`, which is for measurements.
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);

impl Service {
    /// The addresses by which a proxy's workload reaches it, the main one first:
    /// those of the families that the proxy has, or those that were allocated
    /// if the proxy answers DNS queries. Of a ServiceEntry all that are written,
    /// whatever their family. Empty: the service has none that the proxy can use.
    ///
    /// The rule is Istio's `Service.GetAllAddressesForProxy`.
    #[must_use]
    pub fn addresses_for(&self, proxy: &Proxy) -> Vec<String> {
        if self.addresses.is_empty() {
            return self.auto_addresses_for(proxy);
        }
        let has_family = |is_ipv4: bool| proxy.ips.iter().any(|ip| ip.is_ipv4() == is_ipv4);
        let fits = |address: &&String| address.parse::<IpAddr>().is_ok_and(|ip| has_family(ip.is_ipv4()));
        if self.registry == Registry::Kubernetes && !proxy.ips.is_empty() {
            return self.addresses.iter().filter(fits).cloned().collect();
        }
        self.addresses.clone()
    }

    fn auto_addresses_for(&self, proxy: &Proxy) -> Vec<String> {
        if !proxy.dns_capture {
            return Vec::new();
        }
        let has_v4 = proxy.ips.iter().any(IpAddr::is_ipv4);
        let has_v6 = proxy.ips.iter().any(IpAddr::is_ipv6);
        let v4 = self.auto_addresses.v4.filter(|_| has_v4).map(|ip| ip.to_string());
        let v6 = self.auto_addresses.v6.filter(|_| has_v6).map(|ip| ip.to_string());
        v4.into_iter().chain(v6).collect()
    }
}

/// Allocates addresses for hosts of ServiceEntries that have none. Which one a
/// host gets is told by its name and namespace, so that it is the same in every
/// control plane and after every restart; of two that want the same the older
/// one gets it. Addresses that a controller gave stay.
pub(super) fn allocate(services: &mut [Service]) {
    let mut hosts: BTreeMap<(String, Hostname), AutoAddresses> = BTreeMap::new();
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    for service in services.iter() {
        let AutoAddresses { v4, v6 } = service.auto_addresses;
        if let Some(v4) = v4 {
            taken.insert(u32::from(v4).wrapping_sub(u32::from(V4.0)));
        }
        if let Some(slot) = v6.and_then(|v6| u32::try_from(u128::from(v6) ^ u128::from(V6)).ok()) {
            taken.insert(slot);
        }
        if v4.is_some() || v6.is_some() {
            hosts.insert((service.namespace.clone(), service.host.clone()), service.auto_addresses);
        }
    }
    for service in services.iter_mut().filter(|service| wants(service)) {
        let key = (service.namespace.clone(), service.host.clone());
        if let Some(known) = hosts.get(&key) {
            service.auto_addresses = *known;
            continue;
        }
        let Some(slot) = free_slot(&key, &taken) else { continue };
        taken.insert(slot);
        let made = AutoAddresses {
            v4: Some(Ipv4Addr::from(u32::from(V4.0) + slot)),
            v6: Some(Ipv6Addr::from(u128::from(V6) + u128::from(slot))),
        };
        service.auto_addresses = made;
        hosts.insert(key, made);
    }
}

fn wants(service: &Service) -> bool {
    let AutoAddresses { v4, v6 } = service.auto_addresses;
    let label = service.labels.get(label::AUTO_ALLOCATE_IP);
    service.registry == Registry::External
        && service.addresses.is_empty()
        && service.resolution != Resolution::Passthrough
        && (!service.host.is_wildcard() || service.resolution == Resolution::DynamicDns)
        && !label.is_some_and(|text| text.eq_ignore_ascii_case("false"))
        && v4.is_none()
        && v6.is_none()
}

/// The first free slot, from the one that the name tells on. The first and the
/// last address of the range are no addresses of hosts.
fn free_slot((namespace, host): &(String, Hostname), taken: &BTreeSet<u32>) -> Option<u32> {
    let usable = V4.1 - 2;
    let mut hash: u32 = 0x811c_9dc5;
    // FNV-1a: short, and the same everywhere.
    for byte in namespace.bytes().chain([b'/']).chain(host.as_str().bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let first = hash % usable;
    (0..usable).map(|step| 1 + (first + step) % usable).find(|slot| !taken.contains(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_slot_when_others_come_and_go() {
        let key = |host: &str| ("default".to_owned(), Hostname::new(host));
        let mut taken = BTreeSet::new();
        let alone: Vec<u32> = (0..200)
            .map(|number| free_slot(&key(&format!("{number}.example.com")), &taken).unwrap())
            .collect();
        assert!(alone.iter().all(|slot| (1..(1 << 16) - 1).contains(slot)));
        taken.insert(alone[0]);
        assert_ne!(free_slot(&key("0.example.com"), &taken), Some(alone[0]));
        assert_eq!(free_slot(&key("1.example.com"), &taken), Some(alone[1]));
    }

    #[test]
    fn slots_run_out() {
        let taken = (1..(1 << 16) - 1).collect();
        assert_eq!(free_slot(&("a".into(), Hostname::new("b")), &taken), None);
    }
}
