//! Services of ServiceEntries: one for each host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::Object;
use config::kube::{ServiceEntry, TargetPort};
use names::{Hostname, annotation, label};
use proto::istio::networking::v1alpha3::service_entry::{Location, Resolution as ApiResolution};
use proto::istio::networking::v1alpha3::{ServicePort, WorkloadEntry};

use super::{AutoAddresses, Context, Key, Port, Registry, Resolution, Service, is_ip, traffic_distribution};
use crate::protocol::Protocol;
use crate::snapshot::endpoint::{Endpoint, Endpoints, Health, Instance, Instances, Selected};
use crate::snapshot::visibility::Visibility;

/// How an address of a Unix socket begins.
const UNIX: &str = "unix://";

/// Services of ServiceEntries; their endpoints are added to `endpoints`.
pub(super) fn services(
    context: &Context<'_>,
    instances: &Instances,
    endpoints: &mut BTreeMap<Key, Endpoints>,
) -> Vec<Service> {
    let mut services = Vec::new();
    // Ports of hosts that Envoy resolves to one address at a time: only the first
    // endpoint of each counts.
    let mut taken: BTreeSet<(Key, u16)> = BTreeSet::new();
    for (object, entry) in context.store.by_age::<ServiceEntry>() {
        let own = own_endpoints(context, instances, object, entry);
        for host in &entry.hosts {
            let mut service = service(context, object, entry, host);
            // The same host twice is one service, as the first says it.
            let is_known = |known: &Service| {
                known.object_name == service.object_name
                    && known.namespace == service.namespace
                    && known.host == service.host
            };
            if service.host.as_str().is_empty() || services.iter().rev().take(entry.hosts.len()).any(is_known)
            {
                continue;
            }
            service.auto_addresses = allocated(object, entry, host);
            let key = (service.namespace.clone(), service.host.clone());
            let is_single = service.resolution == Resolution::DnsRoundRobin;
            let all = endpoints.entry(key.clone()).or_default();
            let mut add = |port: &ServicePort, endpoint: Endpoint| {
                if !is_single || taken.insert((key.clone(), endpoint.service_port)) {
                    all.push(&port.name, endpoint);
                }
            };
            match &own {
                Some(own) => own.iter().for_each(|(port, endpoint)| add(port, endpoint.clone())),
                None => of_host(context, instances, object, entry, &service)
                    .into_iter()
                    .for_each(|(port, endpoint)| add(port, endpoint)),
            }
            services.push(service);
        }
    }
    endpoints.retain(|_, endpoints| !endpoints.is_empty());
    services
}

fn service(context: &Context<'_>, object: &Object, entry: &ServiceEntry, host: &str) -> Service {
    let Context { store, settings, .. } = context;
    let meta = &object.meta;
    let default = &settings.mesh.default_service_export_to;
    let strategy = meta.annotations.get(annotation::CONNECT_STRATEGY);
    Service {
        registry: Registry::External,
        resolution: resolution(entry),
        is_external: entry.location() == Location::MeshExternal,
        subject_alt_names: entry.subject_alt_names.clone(),
        created: meta.creation_timestamp.clone(),
        host: Hostname::new(host),
        name: host.to_owned(),
        object_name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        labels: meta.labels.clone(),
        ports: ports(entry),
        addresses: addresses(entry),
        auto_addresses: AutoAddresses::default(),
        is_headless: false,
        selector: entry
            .workload_selector
            .as_ref()
            .map(|selector| selector.labels.clone())
            .unwrap_or_default(),
        visibility: Visibility::new(&entry.export_to, default, &meta.namespace),
        aliases: Vec::new(),
        is_node_local: false,
        publishes_not_ready: false,
        traffic_distribution: traffic_distribution(store, "", &meta.annotations, &meta.namespace),
        races_connections: strategy.is_some_and(|text| text.eq_ignore_ascii_case("RACE_FIRST_TCP_CONNECT")),
        endpoints: Arc::default(),
    }
}

fn resolution(entry: &ServiceEntry) -> Resolution {
    match entry.resolution() {
        ApiResolution::None => Resolution::Passthrough,
        ApiResolution::Static => Resolution::Endpoints,
        ApiResolution::Dns => Resolution::Dns,
        ApiResolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        ApiResolution::DynamicDns => Resolution::DynamicDns,
    }
}

/// A port that is one, of each number the first.
fn ports(entry: &ServiceEntry) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for port in &entry.ports {
        let Some(number) = number(port.number) else { continue };
        if ports.iter().any(|known| known.number == number) {
            continue;
        }
        ports.push(Port {
            name: port.name.clone(),
            number,
            target: TargetPort::Number(self::number(port.target_port).unwrap_or(number)),
            protocol: Protocol::of_name(&port.protocol),
        });
    }
    ports
}

fn number(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port > 0)
}

/// Addresses and ranges; a range of one address is that address.
fn addresses(entry: &ServiceEntry) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for text in &entry.addresses {
        let address = match text.split_once('/') {
            None => is_ip(text).then_some(text.as_str()),
            Some((ip, bits)) => match (ip.parse::<IpAddr>(), bits.parse::<u8>()) {
                (Ok(IpAddr::V4(_)), Ok(32)) | (Ok(IpAddr::V6(_)), Ok(128)) => Some(ip),
                (Ok(IpAddr::V4(_)), Ok(0..32)) | (Ok(IpAddr::V6(_)), Ok(0..128)) => Some(text.as_str()),
                _ => None,
            },
        };
        if let Some(address) = address
            && !all.iter().any(|known| known == address)
        {
            all.push(address.to_owned());
        }
    }
    all
}

/// Addresses that a controller allocated for the host.
fn allocated(object: &Object, entry: &ServiceEntry, host: &str) -> AutoAddresses {
    let mut made = AutoAddresses::default();
    if !may_allocate(object, entry) {
        return made;
    }
    for address in entry.status.addresses.iter().filter(|address| address.host == host) {
        match address.value.parse() {
            Ok(IpAddr::V4(ip)) => made.v4 = Some(ip),
            Ok(IpAddr::V6(ip)) => made.v6 = Some(ip),
            Err(_) => {}
        }
    }
    made
}

/// Whether hosts of the entry use addresses that were allocated for them.
/// Without resolution the address that the client chose would be lost.
fn may_allocate(object: &Object, entry: &ServiceEntry) -> bool {
    let label = object.meta.labels.get(label::AUTO_ALLOCATE_IP);
    entry.addresses.is_empty()
        && entry.resolution() != ApiResolution::None
        && !label.is_some_and(|text| text.eq_ignore_ascii_case("false"))
}

/// The endpoints that all hosts of an entry have, with their ports; `None` when
/// each host stands for itself.
fn own_endpoints<'a>(
    context: &Context<'_>,
    instances: &Instances,
    object: &Object,
    entry: &'a ServiceEntry,
) -> Option<Vec<(&'a ServicePort, Endpoint)>> {
    let is_dns = resolution(entry).is_dns();
    let namespace = &object.meta.namespace;
    let selected: Vec<Selected> = match &entry.workload_selector {
        Some(selector) => {
            let pods = instances.pods(namespace, &selector.labels);
            let entries = instances.entries(namespace, &selector.labels);
            pods.chain(entries).filter(|selected| is_dns || is_plain(&selected.address)).cloned().collect()
        }
        None if entry.endpoints.is_empty() && is_dns => return None,
        None => {
            let inline = entry.endpoints.iter().enumerate();
            inline.map(|(index, inline)| of_inline(instances, object, index, inline)).collect()
        }
    };
    let mut made = Vec::new();
    for selected in &selected {
        for port in &entry.ports {
            made.extend(endpoint(context, selected, port).map(|endpoint| (port, endpoint)));
        }
    }
    Some(made)
}

/// Whether an address can be used without DNS.
fn is_plain(address: &str) -> bool {
    address.is_empty() || is_ip(address)
}

/// An endpoint that the entry lists itself.
fn of_inline(instances: &Instances, object: &Object, index: usize, entry: &WorkloadEntry) -> Selected {
    let meta = config::Meta {
        name: format!("{}-{index}", object.meta.name),
        namespace: object.meta.namespace.clone(),
        labels: entry.labels.clone(),
        ..config::Meta::default()
    };
    instances.of_entry(&meta, entry)
}

/// At the workload's own port of that name, else at the target port, else at the
/// same port.
fn endpoint(context: &Context<'_>, selected: &Selected, port: &ServicePort) -> Option<Endpoint> {
    let service_port = number(port.number)?;
    let (address, number) = match selected.address.strip_prefix(UNIX) {
        Some(path) => (path.into(), 0),
        None => {
            let own = selected.instance.ports.get(&port.name).copied();
            (selected.address.clone(), own.or(number(port.target_port)).unwrap_or(service_port))
        }
    };
    let mut made = Endpoint::new(context.authn, &address, number, &selected.instance);
    made.more_addresses.clone_from(&selected.more_addresses);
    made.weight = selected.weight.max(1);
    made.service_port = service_port;
    if selected.is_pod {
        made.health = Health::Healthy;
    }
    Some(made)
}

/// Endpoints of a host that Envoy resolves itself.
fn of_host<'a>(
    context: &Context<'_>,
    instances: &Instances,
    object: &Object,
    entry: &'a ServiceEntry,
    service: &Service,
) -> Vec<(&'a ServicePort, Endpoint)> {
    let instance: Arc<Instance> = Arc::new(instances.of_host(&object.meta.namespace, &object.meta.name));
    let address: Arc<str> = service.host.as_str().into();
    let of_port = |port: &'a ServicePort| {
        let service_port = number(port.number)?;
        let target = number(port.target_port).unwrap_or(service_port);
        let mut made = Endpoint::new(context.authn, &address, target, &instance);
        made.service_port = service_port;
        Some((port, made))
    };
    entry.ports.iter().filter_map(of_port).collect()
}
