//! Which services have changed, and how deep.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::Kind;
use names::Hostname;

use crate::snapshot::endpoint::Instance;
use crate::snapshot::{Endpoints, Resolution, Service, basis};

/// Whether services are made of objects of a kind.
pub(super) fn concern(kind: Kind) -> bool {
    basis::OF_SERVICES.contains(&kind)
}

/// How deep a service has changed; each covers those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// Only endpoints, which come by EDS.
    Endpoints,
    /// The identities of its endpoints, which clusters name.
    Identities,
    /// Addresses that stand in clusters, listeners or name tables.
    Addresses,
    /// What it is.
    Shape,
}

/// The services of a host and a namespace, of which some have changed.
#[derive(Debug)]
pub(super) struct Changed<'a> {
    pub(super) host: &'a Hostname,
    pub(super) how: How,
    /// Addresses of endpoints that came, went or changed their ports.
    pub(super) addresses: BTreeSet<IpAddr>,
    old: Vec<&'a Service>,
    new: Vec<&'a Service>,
}

impl<'a> Changed<'a> {
    /// As they were and as they are.
    pub(super) fn services(&self) -> impl Iterator<Item = &'a Service> + use<'a, '_> {
        self.old.iter().chain(&self.new).copied()
    }
}

/// The services of which two lists differ.
pub(super) fn changed<'a>(old: &'a [Arc<Service>], new: &'a [Arc<Service>]) -> Vec<Changed<'a>> {
    let mut pairs: BTreeMap<_, (Vec<&Service>, Vec<&Service>)> = BTreeMap::new();
    let is_at = |list: &[Arc<Service>], index: usize, service: &Arc<Service>| {
        list.get(index).is_some_and(|other| Arc::ptr_eq(other, service))
    };
    // Where nothing was added or removed the others are at their places, and the same.
    for (_, service) in old.iter().enumerate().filter(|(index, service)| !is_at(new, *index, service)) {
        pairs.entry((&service.host, &service.namespace)).or_default().0.push(service);
    }
    for (_, service) in new.iter().enumerate().filter(|(index, service)| !is_at(old, *index, service)) {
        pairs.entry((&service.host, &service.namespace)).or_default().1.push(service);
    }
    let mut changed = Vec::new();
    for ((host, _), (old, new)) in pairs {
        let how = match (old.as_slice(), new.as_slice()) {
            (old, new) if old == new => continue,
            ([old], [new]) => how(old, new),
            _ => How::Shape,
        };
        let addresses = addresses(&old, &new);
        changed.push(Changed { host, how, addresses, old, new });
    }
    changed
}

fn how(old: &Service, new: &Service) -> How {
    let shape = |service: &Service| Service { endpoints: Arc::default(), ..service.clone() };
    if shape(old) != shape(new) {
        return How::Shape;
    }
    if new.is_headless || new.resolution != Resolution::Endpoints || new.addresses.is_empty() {
        return How::Addresses;
    }
    // One without endpoints keeps the identities that clusters know: nobody can
    // connect, and most often the same endpoints come back.
    if new.endpoints.is_empty() || identities(&old.endpoints) == identities(&new.endpoints) {
        return How::Endpoints;
    }
    How::Identities
}

/// Addresses of which the one list says anything else than the other.
fn addresses(old: &[&Service], new: &[&Service]) -> BTreeSet<IpAddr> {
    let of = |services: &[&Service]| -> BTreeSet<(String, u16, u16)> {
        let endpoints = services.iter().flat_map(|service| service.endpoints.iter());
        endpoints
            .map(|endpoint| (endpoint.address.to_string(), endpoint.service_port, endpoint.port))
            .collect()
    };
    let (old, new) = (of(old), of(new));
    old.symmetric_difference(&new).filter_map(|(address, ..)| address.parse().ok()).collect()
}

/// What clusters know of endpoints.
fn identities(endpoints: &Endpoints) -> BTreeSet<(&str, &str, bool, bool)> {
    endpoints
        .iter()
        .map(|endpoint| {
            let Instance { namespace, service_account, reads_short, .. } = &**endpoint;
            (namespace.as_str(), service_account.as_str(), endpoint.accepts_mtls, *reads_short)
        })
        .collect()
}
