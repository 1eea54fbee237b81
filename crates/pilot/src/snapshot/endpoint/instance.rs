//! Workloads: pods, WorkloadEntries and what ServiceEntries list inline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::kube::{Node, Pod};
use config::{Kind, Meta, Object, SpecKind, Store};
use names::{annotation, label};
use proto::istio::networking::v1alpha3::WorkloadEntry;

use super::{Instance, Locality};
use crate::settings::Settings;
use crate::snapshot::network::Networks;

/// What a service's selector picks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::snapshot) struct Selected {
    /// IP address; for WorkloadEntries perhaps a host name, a Unix socket
    /// (`unix://PATH`), or nothing.
    pub(in crate::snapshot) address: Arc<str>,
    /// Further addresses of the same workload.
    pub(in crate::snapshot) more_addresses: Box<[Arc<str>]>,
    /// Share of the load as written.
    pub(in crate::snapshot) weight: u32,
    /// Whether it is a pod.
    pub(in crate::snapshot) is_pod: bool,
    /// The workload.
    pub(in crate::snapshot) instance: Arc<Instance>,
}

/// A pod with its addresses.
#[derive(Debug)]
struct Named {
    instance: Arc<Instance>,
    addresses: Box<[Arc<str>]>,
    source: Arc<Object>,
}

/// All workloads of the mesh, by what leads to them.
#[derive(Debug)]
pub(in crate::snapshot) struct Instances {
    /// By namespace, then by name.
    by_name: BTreeMap<String, BTreeMap<String, Named>>,
    /// By namespace, then by address.
    by_ip: BTreeMap<String, BTreeMap<IpAddr, Arc<Instance>>>,
    entries: BTreeMap<String, Vec<Selected>>,
    pods: BTreeMap<String, Vec<Selected>>,
    networks: Arc<Networks>,
    cluster_id: Arc<str>,
}

impl Instances {
    /// Reads all workloads of a store. After those of `before` nothing but pods
    /// has changed: those that are as they were are the same ones.
    pub(in crate::snapshot) fn build(
        store: &Store,
        networks: &Arc<Networks>,
        settings: &Settings,
        before: Option<&Self>,
    ) -> Self {
        let mut all = Self {
            by_name: BTreeMap::new(),
            by_ip: BTreeMap::new(),
            entries: BTreeMap::new(),
            pods: BTreeMap::new(),
            networks: networks.clone(),
            cluster_id: settings.cluster_id.clone(),
        };
        // Pods are only picked one by one where a ServiceEntry does so.
        let selecting: BTreeSet<&str> = store
            .all::<config::kube::ServiceEntry>()
            .filter(|(_, entry)| entry.workload_selector.is_some())
            .map(|(object, _)| object.meta.namespace.as_str())
            .collect();
        let mut shared = Shared::default();
        for object in store.shared(Kind::Pod) {
            let Some(pod) = Pod::of(&object.spec).filter(|pod| !pod.is_finished()) else { continue };
            let meta = &object.meta;
            let known = before.and_then(|before| before.by_name.get(&meta.namespace)?.get(&meta.name));
            let instance = match known {
                Some(known) if Arc::ptr_eq(&known.source, object) => known.instance.clone(),
                _ => {
                    let mut made = all.of_pod(store, meta, pod);
                    shared.share(&mut made);
                    let same = known.filter(|known| *known.instance == made);
                    same.map_or_else(|| Arc::new(made), |same| same.instance.clone())
                }
            };
            let selects = selecting.contains(meta.namespace.as_str());
            all.add_pod(object, pod, instance, selects, settings.features.dual_stack);
        }
        if let Some(before) = before {
            all.entries = before.entries.clone();
            return all;
        }
        for (object, entry) in store.all::<config::kube::WorkloadEntry>() {
            if !entry.is_healthy(&object.meta.annotations) {
                continue;
            }
            let mut meta = object.meta.clone();
            // Labels of the object win over those inside.
            for (key, value) in &entry.labels {
                meta.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            let selected = all.of_entry(&meta, entry);
            all.entries.entry(object.meta.namespace.clone()).or_default().push(selected);
        }
        all
    }

    fn add_pod(
        &mut self,
        object: &Arc<Object>,
        pod: &Pod,
        instance: Arc<Instance>,
        is_selectable: bool,
        is_dual_stack: bool,
    ) {
        let ips: Vec<IpAddr> = pod.addresses().filter_map(|ip| ip.parse().ok()).collect();
        let addresses = ips.iter().map(|ip| ip.to_string().into()).collect();
        let meta = &object.meta;
        let named = Named { instance: instance.clone(), addresses, source: object.clone() };
        self.by_name.entry(meta.namespace.clone()).or_default().insert(meta.name.clone(), named);
        if pod.spec.host_network {
            // It shares its addresses with others.
            return;
        }
        let by_ip = self.by_ip.entry(meta.namespace.clone()).or_default();
        for ip in &ips {
            by_ip.insert(*ip, instance.clone());
        }
        let is_ready = pod
            .status
            .conditions
            .iter()
            .any(|condition| condition.condition_type == "Ready" && condition.status == "True");
        if let Some((first, more)) = ips.split_first()
            && is_selectable
            && is_ready
        {
            let more = if is_dual_stack { more } else { &[] };
            self.pods.entry(meta.namespace.clone()).or_default().push(Selected {
                address: first.to_string().into(),
                more_addresses: more.iter().map(|ip| ip.to_string().into()).collect(),
                weight: 1,
                is_pod: true,
                instance,
            });
        }
    }

    fn of_pod(&self, store: &Store, meta: &Meta, pod: &Pod) -> Instance {
        let ip = pod.addresses().find_map(|ip| ip.parse().ok());
        let locality = of_pod(store, meta, pod);
        let name = meta.labels.get(label::WORKLOAD_NAME).cloned().unwrap_or_else(|| owner_name(meta));
        let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
        let mut named = BTreeMap::new();
        for port in ports.filter(|port| !port.name.is_empty() && port.protocol != "UDP") {
            named.entry(port.name.clone()).or_insert(port.container_port);
        }
        let mut made = Instance {
            namespace: meta.namespace.clone(),
            workload: describe(&meta.labels, &meta.namespace, &name, &self.cluster_id),
            name,
            service_account: pod.service_account().into(),
            has_sidecar: tls_mode(&meta.labels) == Some(true),
            reads_short: reads_short(meta),
            node_name: pod.spec.node_name.clone(),
            dns_name: if pod.spec.subdomain.is_empty() {
                String::new()
            } else {
                let host = Some(&pod.spec.hostname).filter(|host| !host.is_empty()).unwrap_or(&meta.name);
                format!("{host}.{}", pod.spec.subdomain)
            },
            ports: Arc::new(named),
            network: self.networks.of(ip, &meta.labels).unwrap_or_default().to_owned(),
            ..Instance::default()
        };
        made.labels = self.augmented(&meta.labels, &locality, &made.node_name, &made.network);
        made.locality = locality;
        made
    }

    /// A workload that an entry describes; `meta` has the labels of both.
    pub(in crate::snapshot) fn of_entry(&self, meta: &Meta, entry: &WorkloadEntry) -> Selected {
        let locality = match locality_label(&meta.labels) {
            _ if !entry.locality.is_empty() => Locality::parse(&entry.locality, '/'),
            Some(text) => Locality::of_label(text),
            None => Locality::default(),
        };
        let name = meta
            .annotations
            .get(annotation::AUTO_REGISTRATION_GROUP)
            .or_else(|| meta.labels.get(label::WORKLOAD_NAME))
            .unwrap_or(&meta.name);
        let network = if entry.network.is_empty() {
            self.networks.of(entry.address.parse().ok(), &meta.labels).unwrap_or_default()
        } else {
            &entry.network
        };
        let mut made = Instance {
            namespace: meta.namespace.clone(),
            name: name.clone(),
            workload: describe(&meta.labels, &meta.namespace, name, &self.cluster_id),
            service_account: entry.service_account.clone(),
            has_sidecar: tls_mode(&meta.labels).unwrap_or(!entry.service_account.is_empty()),
            reads_short: reads_short(meta),
            // Istio takes a network that only ranges or labels tell for the label alone.
            network: entry.network.clone(),
            ports: Arc::new(
                entry
                    .ports
                    .iter()
                    .filter_map(|(name, port)| Some((name.clone(), u16::try_from(*port).ok()?)))
                    .filter(|(_, port)| *port > 0)
                    .collect(),
            ),
            ..Instance::default()
        };
        made.labels = self.augmented(&meta.labels, &locality, "", network);
        made.locality = locality;
        Selected {
            address: entry.address.as_str().into(),
            more_addresses: Box::default(),
            weight: entry.weight,
            is_pod: false,
            instance: Arc::new(made),
        }
    }

    /// What is known of an address that no workload is at.
    pub(super) fn unknown(&self, namespace: &str, ip: IpAddr, node_name: &str) -> Instance {
        let none = BTreeMap::new();
        let network = self.networks.of(Some(ip), &none).unwrap_or_default();
        Instance {
            labels: self.augmented(&none, &Locality::default(), node_name, network),
            namespace: namespace.into(),
            workload: format!(";;;;{}", self.cluster_id),
            node_name: node_name.into(),
            network: network.to_owned(),
            ..Instance::default()
        }
    }

    /// The server that a host name stands for.
    pub(in crate::snapshot) fn of_host(&self, namespace: &str, name: &str) -> Instance {
        Instance {
            namespace: namespace.into(),
            name: name.into(),
            workload: describe(&BTreeMap::new(), namespace, name, &self.cluster_id),
            ..Instance::default()
        }
    }

    /// The pod of that name, with its addresses.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<(&Arc<Instance>, &[Arc<str>])> {
        let named = self.by_name.get(namespace)?.get(name)?;
        Some((&named.instance, &named.addresses))
    }

    /// The pod of a namespace at that address.
    pub(super) fn at(&self, namespace: &str, ip: IpAddr) -> Option<&Arc<Instance>> {
        self.by_ip.get(namespace)?.get(&ip)
    }

    /// WorkloadEntries of a namespace that have the labels.
    pub(in crate::snapshot) fn entries<'a>(
        &'a self,
        namespace: &str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Selected> + use<'a> {
        having(self.entries.get(namespace), labels)
    }

    /// Ready pods of a namespace that have the labels.
    pub(in crate::snapshot) fn pods<'a>(
        &'a self,
        namespace: &str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Selected> + use<'a> {
        having(self.pods.get(namespace), labels)
    }

    /// Whether a ServiceEntry selects the same pods of both.
    pub(in crate::snapshot) fn selects_as(&self, other: &Self) -> bool {
        self.pods == other.pods
    }

    /// Labels with those that say where the workload is, which subsets and
    /// `failoverPriority` may name.
    fn augmented(
        &self,
        labels: &BTreeMap<String, String>,
        locality: &Locality,
        node_name: &str,
        network: &str,
    ) -> Arc<BTreeMap<String, String>> {
        Arc::new(crate::snapshot::network::augmented(labels, locality, &self.cluster_id, node_name, network))
    }
}

/// Those of a list that have the labels.
fn having<'a>(
    list: Option<&'a Vec<Selected>>,
    labels: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = &'a Selected> {
    list.into_iter().flatten().filter(|selected| config::matches(labels, &selected.instance.labels))
}

/// Where a pod runs: by its own label, else by its node's.
pub(in crate::snapshot) fn of_pod(store: &Store, meta: &Meta, pod: &Pod) -> Locality {
    locality_label(&meta.labels).map_or_else(|| of_node(store, &pod.spec.node_name), Locality::of_label)
}

/// Maps that workloads share: those of one Deployment have equal ones.
#[derive(Debug, Default)]
struct Shared {
    labels: BTreeSet<Arc<BTreeMap<String, String>>>,
    ports: BTreeSet<Arc<BTreeMap<String, u16>>>,
}

impl Shared {
    fn share(&mut self, instance: &mut Instance) {
        share(&mut self.labels, &mut instance.labels);
        share(&mut self.ports, &mut instance.ports);
    }
}

fn share<T: Ord>(known: &mut BTreeSet<Arc<T>>, value: &mut Arc<T>) {
    match known.get(value) {
        Some(known) => *value = known.clone(),
        None => drop(known.insert(value.clone())),
    }
}

fn locality_label(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels
        .get(label::TOPOLOGY_LOCALITY)
        .or_else(|| labels.get(label::LOCALITY))
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

/// Whether the workload's proxy reads the short form of peer metadata.
fn reads_short(meta: &Meta) -> bool {
    meta.annotations.get(annotation::PEER_METADATA).map(String::as_str)
        == Some(annotation::PEER_METADATA_SHORT)
}

/// Whether the workload says that it ends mutual TLS, if it says anything.
fn tls_mode(labels: &BTreeMap<String, String>) -> Option<bool> {
    labels.get(label::TLS_MODE).map(|mode| mode == label::TLS_MODE_ISTIO)
}

fn of_node(store: &Store, name: &str) -> Locality {
    if name.is_empty() {
        return Locality::default();
    }
    let Some((object, _)) = store.get::<Node>("", name) else { return Locality::default() };
    let get =
        |keys: &[&str]| keys.iter().find_map(|key| object.meta.labels.get(*key)).cloned().unwrap_or_default();
    Locality {
        region: get(&[label::REGION, "failure-domain.beta.kubernetes.io/region"]),
        zone: get(&[label::ZONE, "failure-domain.beta.kubernetes.io/zone"]),
        sub_zone: get(&[label::SUB_ZONE]),
    }
}

/// The name of what made the pod, without the hash that a Deployment adds.
fn owner_name(meta: &Meta) -> String {
    // A pod with a name of its own stands for itself.
    let owner = meta.owner_references.iter().find(|owner| owner.controller);
    let Some(owner) = owner.filter(|_| !meta.generate_name.is_empty()) else {
        return meta.name.clone();
    };
    let without = |key: &str| {
        let hash = meta.labels.get(key).filter(|hash| !hash.is_empty())?;
        owner.name.strip_suffix(&format!("-{hash}")).map(str::to_owned)
    };
    let short = match owner.kind.as_str() {
        "ReplicaSet" => without("pod-template-hash").or_else(|| without("rollouts-pod-template-hash")),
        "ReplicationController" => meta.labels.get("deploymentconfig").cloned(),
        "Job" => of_cron_job(&owner.name),
        _ => None,
    };
    short.unwrap_or_else(|| owner.name.clone())
}

/// The CronJob of a Job: the name is followed by the minute it was made for.
fn of_cron_job(job: &str) -> Option<String> {
    let (name, minute) = job.rsplit_once('-')?;
    let is_minute = (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit());
    (is_minute && !name.is_empty()).then(|| name.to_owned())
}

fn describe(labels: &BTreeMap<String, String>, namespace: &str, name: &str, cluster_id: &str) -> String {
    let label = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).map(String::as_str);
    let service = label(&[label::CANONICAL_NAME, "app.kubernetes.io/name", "app"]).unwrap_or(name);
    let revision = label(&[label::CANONICAL_REVISION, "app.kubernetes.io/version", "version"])
        .filter(|revision| *revision != "latest")
        .unwrap_or_default();
    format!("{name};{namespace};{service};{revision};{cluster_id}")
}
