//! Endpoints of services: addresses and what is known of the workloads there.

mod instance;
mod slice;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use names::SpiffeId;

pub(super) use instance::{Instances, Selected, of_pod};
pub(super) use slice::{Slices, Traits};

use super::authn::{self, MtlsMode};

/// Where something runs: region, zone, sub-zone; parts may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
    /// Sub-zone.
    pub sub_zone: String,
}

impl Locality {
    /// `REGION/ZONE/SUBZONE`, with `separator` between the parts; what follows
    /// the third part does not count.
    #[must_use]
    pub fn parse(text: &str, separator: char) -> Self {
        let mut parts = text.split(separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), sub_zone: next() }
    }

    /// From a label of a workload, in which dots may stand for slashes.
    #[must_use]
    pub fn of_label(text: &str) -> Self {
        Self::parse(text, if text.contains('/') { '/' } else { '.' })
    }
}

/// What is known of an endpoint's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Nobody says; it counts as good.
    Unknown,
    /// Kubernetes says that it is ready.
    Healthy,
    /// It is not ready.
    Unhealthy,
    /// It ends and takes no new sessions; only services with persistent
    /// sessions send it.
    Draining,
    /// It ends: nobody is sent there any more, but it counts for what is told by
    /// all endpoints (identities, listeners of headless services).
    Terminating,
}

/// A workload at an address, shared by all endpoints there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    /// Labels of the workload, with those of its place (region, zone, sub-zone,
    /// node, cluster, network); workloads with equal ones share them.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload, without what its replicas add.
    pub name: String,
    /// Service account of the workload; empty when not known.
    pub service_account: String,
    /// Whether it has a sidecar that ends mutual TLS, whatever policies say.
    pub has_sidecar: bool,
    /// Whether that reads the short form of peer metadata (`sidecar.istio.io/peerMetadata`).
    pub reads_short: bool,
    /// Where it runs.
    pub locality: Locality,
    /// `WORKLOAD;NAMESPACE;SERVICE;REVISION;CLUSTER`, which telemetry reads.
    pub workload: String,
    /// Node it runs on; empty when not known.
    pub node_name: String,
    /// Network it is in; empty when there is only one.
    pub network: String,
    /// Its own name within a headless service (`HOSTNAME.SUBDOMAIN`); empty when it has none.
    pub dns_name: String,
    /// Named ports of its containers, or of its WorkloadEntry.
    pub ports: Arc<BTreeMap<String, u16>>,
}

/// One address and port behind a service. What does not depend on the service
/// is in its [`Instance`], which it derefs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// IP address; a host name for services that Envoy resolves by DNS; the path
    /// of a Unix socket when `port` is 0; empty for one that is only reached
    /// through its network's gateways.
    pub address: Arc<str>,
    /// Further addresses of the same workload (dual stack).
    pub more_addresses: Box<[Arc<str>]>,
    /// Port there.
    pub port: u16,
    /// Number of the service's port that it was made for, if it was made for one
    /// by number (ServiceEntries); else 0.
    pub service_port: u16,
    /// Share of the load, at least 1.
    pub weight: u32,
    /// Its state.
    pub health: Health,
    /// Whether it accepts mutual TLS of the mesh: it has a sidecar, and the
    /// PeerAuthentications for its port do not forbid it.
    pub accepts_mtls: bool,
    instance: Arc<Instance>,
}

impl Deref for Endpoint {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Endpoint {
    /// An endpoint of a workload.
    pub(super) fn new(authn: &authn::Index, address: &Arc<str>, port: u16, instance: &Arc<Instance>) -> Self {
        let accepts_mtls = instance.has_sidecar
            && authn.modes(&instance.namespace, &instance.labels).of_port(port) != MtlsMode::Disable;
        Self {
            address: address.clone(),
            more_addresses: Box::default(),
            port,
            service_port: 0,
            weight: 1,
            health: Health::Unknown,
            accepts_mtls,
            instance: instance.clone(),
        }
    }

    /// The identity that its certificate should prove.
    #[must_use]
    pub fn identity(&self, trust_domain: &str) -> Option<String> {
        if self.service_account.is_empty() {
            return None;
        }
        Some(format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.namespace, self.service_account))
            .filter(|id| id.parse::<SpiffeId>().is_ok())
    }

    /// Whether it can take requests, as far as anybody knows.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.health, Health::Unknown | Health::Healthy)
    }

    /// Its address as an IP address.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.parse().ok()
    }
}

/// The endpoints of one service, by the name of the service's port. Services of
/// one host and namespace share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints(BTreeMap<Box<str>, Vec<Endpoint>>);

impl Endpoints {
    /// Those of the port of that name.
    #[must_use]
    pub fn of_port(&self, name: &str) -> &[Endpoint] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.values().flatten()
    }

    /// All of them with the name of their port.
    pub fn by_port(&self) -> impl Iterator<Item = (&str, &[Endpoint])> {
        self.0.iter().map(|(name, list)| (&**name, list.as_slice()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }

    pub(super) fn push(&mut self, port: &str, endpoint: Endpoint) {
        if let Some(list) = self.0.get_mut(port) {
            list.push(endpoint);
        } else {
            self.0.insert(port.into(), vec![endpoint]);
        }
    }

    /// These and others.
    pub(super) fn with(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (port, list) in &other.0 {
            all.0.entry(port.clone()).or_default().extend(list.iter().cloned());
        }
        all
    }
}
